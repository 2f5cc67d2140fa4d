//! Plan and ladder → loaded and attached programs, with the gate still closed.
//!
//! Loads once per attempt. When a program is refused, its variant is struck off and the next attempt takes the
//! next one; every attempt strikes off at least one, so it ends. What cannot be had never takes the rest down.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::time::Instant;

use ktrace_bundle::event::{bulk_share, bulk_spare};
use ktrace_bundle::manifest::HookReport;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{AsRawLibbpf, Link, ProgramMut, ProgramType, libbpf_sys};

use super::attachment::Attachment;
use super::features::Features;
use super::ladder::{Choice, Refusals, choose};
use super::session::Session;
use super::skel::{KtraceSkel, KtraceSkelBuilder, OpenKtraceSkel};
use super::{filters, log, remedy, skel};
use crate::error::Hint;
use crate::hooks::{CGROUP_PROGRAMS, FIRST_PROGRAMS, Store, Variant, limits};
use crate::plan::{MIN_RING_BYTES, Plan};
use crate::preflight;

/// Why no capture can start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Every hook was refused.
    #[error("no hook could be attached: {}", .0.join("; "))]
    NothingAttached(Vec<String>),
    /// libbpf failed in a way that no single program explains.
    #[error("the BPF object cannot be {step}: {detail}")]
    Object {
        /// `opened`, `loaded`, `filled`.
        step: &'static str,
        /// libbpf's words.
        detail: String,
        /// What to do, where that is known.
        remedy: Option<String>,
    },
}

impl Hint for LoadError {
    fn hint(&self) -> Option<String> {
        if let Self::Object { remedy: Some(remedy), .. } = self {
            return Some(remedy.clone());
        }
        Some("run `ktrace check` to see what this host supports and what is missing".into())
    }
}

/// Loads and attaches what the plan asks for.
///
/// # Errors
/// See [`LoadError`]; nothing stays attached.
pub fn load(plan: &Plan, features: &Features) -> Result<Session, LoadError> {
    let mut refusals = Refusals::default();
    loop {
        let choices = choose(Some(plan), features, &refusals);
        if choices.iter().all(|c| c.variant.is_none() || c.hook.kinds().is_empty()) {
            return Err(LoadError::NothingAttached(reasons(&choices)));
        }
        let skel = match open_and_load(plan, features, &choices) {
            Ok(skel) => skel,
            Err(refused) => {
                strike_off(&mut refusals, &choices, refused)?;
                continue;
            }
        };
        filters::fill(&skel, plan).map_err(|e| LoadError::Object {
            step: "filled",
            detail: log::chain(&e),
            remedy: None,
        })?;
        match attach(&skel, &choices) {
            Ok(attached) => return Ok(Session::new(attached, skel)),
            Err(refused) => strike_off(&mut refusals, &choices, refused)?,
        }
    }
}

fn reasons(choices: &[Choice]) -> Vec<String> {
    let wanted = choices.iter().filter(|c| c.wanted && !c.hook.kinds().is_empty());
    wanted.flat_map(|c| c.tried.iter().map(|t| format!("{} {}: {}", c.hook.name(), t.variant, t.why))).collect()
}

/// A program that the kernel would not take, or `None` where libbpf blames no program.
struct Refused {
    program: Option<String>,
    step: &'static str,
    why: String,
    remedy: Option<String>,
}

fn strike_off(refusals: &mut Refusals, choices: &[Choice], refused: Refused) -> Result<(), LoadError> {
    let Refused { program, step, why, remedy } = refused;
    let owner = program.as_deref().and_then(|name| {
        choices.iter().find_map(|c| {
            let program = c.programs.iter().find(|p| **p == name)?;
            Some((c.hook.name(), c.variant?, *program))
        })
    });
    let why = match &remedy {
        Some(remedy) if owner.is_some() => format!("{why}: {remedy}"),
        _ => why,
    };
    match owner {
        Some((_, variant, program)) if variant.optional.iter().any(|o| o.programs.contains(&program)) => {
            refusals.optional(program, why);
            Ok(())
        }
        Some((hook, variant, program)) => {
            refusals.variant(hook, variant.name, program, why);
            Ok(())
        }
        None => Err(LoadError::Object { step, detail: why, remedy }),
    }
}

fn open_and_load(plan: &Plan, features: &Features, choices: &[Choice]) -> Result<KtraceSkel<'static>, Refused> {
    let blameless = |step, e: &libbpf_rs::Error| Refused { program: None, step, why: last_words(e), remedy: None };
    let _ = log::take();
    // A skeleton borrows the place of its object. One such place per attempt is never given back: a few bytes.
    let place = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut builder = KtraceSkelBuilder::default();
    features.types().apply(&mut builder.obj_builder).map_err(|e| blameless("opened", &e))?;
    let mut open = builder.open(place).map_err(|e| blameless("opened", &e))?;
    configure(&mut open, plan, features, choices).map_err(|e| blameless("configured", &e))?;
    for mut program in open.open_object_mut().progs_mut() {
        let chosen = choices.iter().any(|c| c.programs.iter().any(|p| program.name() == *p));
        program.set_autoload(chosen);
    }
    open.load().map_err(|e| {
        let lines = log::take();
        let programs = choices.iter().flat_map(|c| c.programs.iter().copied());
        match log::culprit(&lines, programs) {
            Some((program, why)) => {
                let is_of_cgroup = CGROUP_PROGRAMS.contains(&program) || FIRST_PROGRAMS.contains(&program);
                let remedy = is_of_cgroup.then(remedy::of_cgroup).flatten();
                Refused { program: Some(program.into()), step: "loaded", why, remedy }
            }
            None => {
                let why = format!("{}: {}", log::chain(&e), lines.join("; "));
                Refused { program: None, step: "loaded", why, remedy: remedy::of_memlock(&e, &preflight::release()) }
            }
        }
    })
}

fn last_words(error: &libbpf_rs::Error) -> String {
    match log::take().last() {
        Some(line) => format!("{}: {line}", log::chain(error)),
        None => log::chain(error),
    }
}

/// The ring of UDP, a quarter of the other: some 20,000 datagrams by default. What is rare is also what nobody can do
/// without, and comes in bursts (5,000 connections are 60,000 records); and a ring counts twice in the resident set,
/// since it is mapped twice.
fn bulk_ring_bytes(ring_bytes: u32) -> u32 {
    (ring_bytes / 4).max(MIN_RING_BYTES)
}

fn configure(
    open: &mut OpenKtraceSkel<'static>,
    plan: &Plan,
    features: &Features,
    choices: &[Choice],
) -> libbpf_rs::Result<()> {
    open.maps.bulk_ring.set_max_entries(bulk_ring_bytes(plan.ring_bytes))?;
    open.maps.rare_ring.set_max_entries(plan.ring_bytes)?;
    let uses = |program: &str| choices.iter().any(|c| c.programs.contains(&program));
    let stores = |store| choices.iter().any(|c| c.variant.is_some_and(|v| v.store == store));
    let hash = stores(Store::Hash) || !features.has_socket_storage();
    // a hash takes its memory when it is made
    if !hash {
        open.maps.sock_hash.set_max_entries(1)?;
    }
    let udp_calls = ["udp__send_kprobe", "udp__send_tp_btf", "udp__connect_fentry", "udp__asked_fentry"];
    if !udp_calls.into_iter().any(uses) {
        open.maps.udp_calls.set_max_entries(1)?;
    }
    if !uses("udp__send_fexit_more1") && !uses("udp__send_tp_btf_more1") {
        open.maps.udp_taken.set_max_entries(1)?;
    }
    if !uses("tcp_wait__iter_probed") && !hash {
        open.maps.wait_hash.set_max_entries(1)?;
    }
    if !choices.iter().any(|c| c.hook.name() == "drop" && c.variant.is_some()) {
        open.maps.drop_rows.set_max_entries(1)?;
        open.maps.drop_rest.set_max_entries(1)?;
    }
    filters::size_maps(open, plan)?;
    if let Some(rodata) = open.maps.rodata_data.as_deref_mut() {
        rodata.kt_config = skel::types::kt_config {
            max_events: plan.max_events,
            max_bulk: bulk_share(plan.max_events),
            spare_bulk: bulk_spare(plan.max_events),
            wants: filters::wants(plan),
            refuses: filters::refuses(plan),
            with_security: u32::from(plan.with_security),
            hash_store: u32::from(hash),
            task_btf: u32::from(features.lists("bpf_get_current_task_btf")),
            // within the bounds of the plan, so it fits
            sample: u32::try_from(plan.sample).unwrap_or(u32::MAX),
            more: u32::from(features.preempts()),
            reserved: 0,
        };
        filters::set_ports(rodata, plan);
    }
    Ok(())
}

/// The programs of one attempt; dropping them detaches.
#[derive(Default)]
pub struct Attached {
    /// Programs that run by themselves, and the socket iterator, which runs when read.
    pub programs: Vec<Attachment>,
    /// Coverage.
    pub reports: Vec<HookReport>,
    /// What should have been covered and is not.
    pub degraded: Vec<String>,
}

fn attach(skel: &KtraceSkel<'static>, choices: &[Choice]) -> Result<Attached, Refused> {
    let begin = Instant::now();
    let mut attached = Attached::default();
    for choice in choices {
        let mut report = choice.report();
        for name in choice.attach_order() {
            let program = attach_one(skel, choice, name)?;
            report.programs.push(program.report(None));
            attached.programs.push(program);
        }
        if attached.is_uncounted(choice) {
            report.limits.push(limits::UNCOUNTED.text.into());
        }
        attached.degraded.extend(choice.degraded.iter().cloned());
        attached.degraded.extend(partial_cgroups(choice));
        let after = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        report.attached_after_ns = choice.variant.map(|_| after);
        attached.reports.push(report);
    }
    Ok(attached)
}

impl Attached {
    /// Whether programs of this hook may lose events without anybody's knowing how many.
    fn is_uncounted(&self, choice: &Choice) -> bool {
        let mut own = self.programs.iter().filter(|p| p.hook == choice.hook.name() && p.is_recording);
        choice.variant.is_some_and(Variant::is_skipped) && own.any(|p| p.missed().is_none())
    }
}

fn attach_one(skel: &KtraceSkel<'static>, choice: &Choice, name: &'static str) -> Result<Attachment, Refused> {
    let refused = |why: String| Refused { program: Some(name.into()), step: "attached", why, remedy: None };
    let program = skel.object().progs_mut().find(|p| p.name() == name);
    let program = program.ok_or_else(|| refused(format!("`{name}` is not in the BPF object")))?;
    let link = if program.prog_type() == ProgramType::CgroupSockAddr {
        let root = cgroup_root().ok_or_else(|| refused("no cgroup v2 hierarchy is mounted".into()))?;
        let root = File::open(&root).map_err(|e| refused(format!("`{}`: {e}", root.display())))?;
        let can_be_first = FIRST_PROGRAMS.iter().all(|it| choice.programs.contains(it));
        attach_to_cgroup(&program, root.as_raw_fd(), can_be_first && FIRST_PROGRAMS.contains(&name))
    } else {
        program.attach()
    };
    let link = link.map_err(|e| Refused {
        remedy: remedy::of_attach(program.prog_type(), &e),
        ..refused(format!("`{name}` cannot be attached: {}", log::root(&e)))
    })?;
    // `more` and `seconds` take what the first ones are skipped for; what is optional adds to events and makes none
    let is_first = choice.variant.is_some_and(|v| v.programs.contains(&name));
    let makes_events = is_first && !choice.hook.kinds().is_empty() && choice.hook.counts_missed();
    Ok(Attachment::new((choice.hook.name(), name), makes_events, &program, link))
}

/// The last of a cgroup's programs, or the first of all that run for its tasks.
fn attach_to_cgroup(program: &ProgramMut<'_>, cgroup: RawFd, is_first: bool) -> libbpf_rs::Result<Link> {
    if !is_first {
        return program.attach_cgroup(cgroup);
    }
    let options = libbpf_sys::bpf_cgroup_opts {
        sz: size_of::<libbpf_sys::bpf_cgroup_opts>() as libbpf_sys::size_t,
        flags: libbpf_sys::BPF_F_PREORDER,
        ..Default::default()
    };
    let program = program.as_libbpf_object();
    // SAFETY: the program is loaded, and `options` is of the size that it says and outlives the call.
    let link = unsafe { libbpf_sys::bpf_program__attach_cgroup_opts(program.as_ptr(), cgroup, &raw const options) };
    match NonNull::new(link) {
        // SAFETY: a link that was just made, and that nobody else has.
        Some(link) => Ok(unsafe { Link::from_ptr(link) }),
        None => Err(std::io::Error::last_os_error().into()),
    }
}

/// The root of the whole hierarchy has inode 1. Below any other, only part of the machine passes our programs.
fn partial_cgroups(choice: &Choice) -> Option<String> {
    let uses_cgroups = choice.programs.iter().any(|p| CGROUP_PROGRAMS.contains(p));
    let root = cgroup_root().filter(|_| uses_cgroups)?;
    let inode = std::fs::metadata(&root).ok()?.ino();
    let (hook, root) = (choice.hook.name(), root.display());
    (inode != 1).then(|| format!("hook `{hook}` sees remote ends of unconnected sockets below `{root}` only"))
}

/// Where the cgroup v2 hierarchy is mounted.
fn cgroup_root() -> Option<PathBuf> {
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts.into_iter().find(|m| m.fs_type == "cgroup2").map(|m| m.mount_point)
}
