//! One capture from start to seal: the only place where the stages meet.
//!
//! attach → read sockets → open the gate → (ring → decode → pair → write) until the end → close the gate → wait
//! for running programs → drain → read the counters → read sockets → detach → seal. The ledger is kept here.

mod account;
mod budget;
mod cost;
mod coverage;
mod error;
mod hold;
mod manifest;
mod notes;
mod onlooker;
mod owners;
mod sink;
mod spare;
mod stop;
mod tee;
mod window;

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ktrace_bundle::dns::DnsPairs;
use ktrace_bundle::event::When;
use ktrace_bundle::manifest::{EndedBy, Head, Manifest};
use ktrace_bundle::totals::SummaryBuilder;
use ktrace_bundle::writer::{BundleName, BundleWriter, WriteError, WriterCaps};

use crate::audit::Audit;
use crate::clock::{self, Readings};
use crate::command::{self, Running};
use crate::error::Hint;
use crate::flows::Flows;
use crate::hooks::{
    decode_socket,
    reasons::Reasons,
    wire::{self, Context},
};
use crate::identity::Homes;
use crate::kernel::features::Features;
use crate::kernel::loader;
use crate::kernel::looks::Looks;
use crate::kernel::session::{Rings, Session, SessionError};
use crate::kernel::skel::types::kt_when;
use crate::memory;
use crate::node::Node;
use crate::plan::Plan;
use crate::plan::naming::Choice;
use crate::preflight;
use crate::processes::Processes;
use coverage::Timeline;
pub use error::CaptureError;
pub use onlooker::Onlooker;
use sink::{Acceptor, Sink};
pub use stop::Stop;
pub use tee::Tee;
use window::Window;

/// Sockets that are read between two turns of what looks at the node.
const SOCKETS_IN_A_TURN: usize = 128;
/// Outstanding DNS queries that are remembered.
const MAX_QUERIES: usize = 1 << 16;

/// A capture that ended with a sealed bundle.
pub struct Sealed {
    /// Path of the tgz.
    pub bundle: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Why loose files are there although they were not wanted.
    pub leftover: Option<Leftover>,
    /// Lines that are still on their way to stdout, if they go there.
    pub tee: Option<Tee>,
}

/// Loose files that could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("the loose files in `{}` could not be removed", .dir.display())]
pub struct Leftover {
    dir: PathBuf,
    source: WriteError,
}

impl Hint for Leftover {}

/// Runs one capture, with somebody who reads along, if anybody does.
///
/// # Errors
/// See [`CaptureError`]. Nothing stays attached.
pub fn run(plan: &Plan, stop: &Stop, onlooker: Option<&dyn Onlooker>) -> Result<Sealed, CaptureError> {
    // the runtime answers while the programs are loaded
    let homes = Homes::new(&plan.naming, &plan.filters.homes, &plan.node);
    let flows = Flows::new(plan.with_conntrack != Choice::False);
    let node = Node::new(plan.with_node, &plan.naming.host_root);
    let features = Features::of_this_kernel(plan.btf.as_deref());
    let mut session = loader::load(plan, &features)?;
    let reasons = Reasons::of(features.types().own());
    drop(features);
    memory::give_back();
    let mut clocks = Readings::new(clock::sample());
    let first = clocks.first().clone();
    // before the sockets are read, which takes a while: see the audit's tolerance
    let mut audit = Audit::begin();
    let context = Context {
        node: Arc::from(plan.node.as_str()),
        boot_ns: first.boot_ns,
        utc: first.utc,
        with_security: plan.with_security,
        sample: (plan.sample > 1).then_some(plan.sample),
        reasons: reasons.into(),
    };
    let mut head = manifest::head(plan, &first, session.reports());
    let mut sink = start_bundle(plan, &head, context.clone(), homes, flows)?;
    sink.node = node;
    sink.tee = plan.stdout.then(Tee::to_stdout).transpose().map_err(CaptureError::Stdout)?;
    let mut degraded = session.degraded().to_vec();
    if !preflight::sees_all_processes() {
        degraded.push("sockets of processes outside this pid namespace have no owner and are not listed".into());
    }
    sink.flows.wait_until_listening();
    sink.homes.wait_for_first_names();
    sink.homes.refresh(false);
    degraded.extend(read_sockets(&mut session, When::Start, &context, &mut sink));
    tell_homes(&session, &mut sink)?;
    sink.begin_node(&first);
    memory::give_back();
    memory::give_back_code();

    let sink = RefCell::new(sink);
    // one reference for both rings: the callbacks run one after the other, on this thread
    let on_record = |record: &[u8]| sink.borrow_mut().take(record);
    let rings = session.rings(|notice| sink.borrow_mut().take_notice(notice), on_record)?;
    let looks = session.watch_waits();
    manifest::opened(&mut head, clock::boot_ns());
    session.open_gate();
    audit.opened();
    let begin = Instant::now();
    sink.borrow_mut().timeline = Timeline::new(head.clocks.start_boot_ns);
    announce(plan)?;
    let (mut command, refused) = start_command(plan, stop, &mut head);
    if let Some(onlooker) = onlooker {
        onlooker.begin(sink.borrow().writer.dir());
    }
    sink.borrow_mut().writer.set_head(head.clone());
    let window = Window {
        plan,
        session: &mut session,
        rings: &rings,
        sink: &sink,
        stop,
        onlooker,
        audit: &mut audit,
        clocks: &mut clocks,
        begin,
    };
    let ended_by = if refused.is_some() { EndedBy::Error } else { window.run(&mut command)? };
    degraded.extend(refused);
    degraded.extend(finish_looks(looks));
    audit.closing();
    session.close_gate();
    sink.borrow_mut().node.close();
    let end_boot_ns = clock::boot_ns();
    session.wait_for_programs()?;
    audit.closed();
    while drain(&rings, &sink)? {}
    drop(rings);
    session.take_drops(true, |record| sink.borrow_mut().take(record))?;
    sink.borrow_mut().write_batch();

    let mut sink = sink.into_inner();
    sink.look_ahead(|cookie| acceptor(plan, &session, cookie));
    sink.homes.wait_for_last_names();
    sink.settle_overdue(None, |cookie| acceptor(plan, &session, cookie));
    let counters = session.counters()?;
    let missed = session.missed_by_hook();
    let ledger = |sink: &Sink| account::ledger(&counters, &sink.tally, &plan.filter, 0, 0);
    sink.note_losses(&ledger(&sink), &missed, end_boot_ns);
    sink.open_reserve();
    sink.note_undated(&ledger(&sink), &missed);
    let missed = sink.timeline.missed();
    let (rows, rest) = session.observed()?;
    let audit = audit.finish(&rows, &rest, session.reports(), missed);
    sink.summary.add_refused(session.refused(&counters)?);
    sink.turn_node();
    memory::give_back();
    degraded.extend(read_sockets(&mut session, When::End, &context, &mut sink));
    sink.turn_node();
    head.hooks = session.reports_at_end();
    sink.untold = session.untold();
    drop(session); // detached from here on
    sink.homes.wait_for_last_names();
    let utc_of = |boot_ns| clock::utc_of(clocks.first(), boot_ns);
    head.sources.push(sink.finish_flows(utc_of(end_boot_ns)));
    head.sources.extend(sink.finish_node());
    sink.write_workloads(utc_of);
    sink.write_processes(utc_of);
    if let (Some(report), Some(command)) = (&mut head.command, &mut command) {
        report.exit_code = command.exit_code();
    }
    seal(plan, sink, manifest::End { head, clocks, end_boot_ns, ended_by, degraded, counters, missed, audit })
}

fn start_bundle(plan: &Plan, head: &Head, context: Context, homes: Homes, flows: Flows) -> Result<Sink, CaptureError> {
    let name = BundleName { node: plan.node.clone(), at: context.utc };
    let caps = WriterCaps { max_bytes: head.byte_bound.as_ref().map_or(plan.max_bytes, |it| it.bytes) };
    let writer = BundleWriter::create(&plan.out_dir, &name, head.clone(), caps)
        .map_err(|source| CaptureError::Create { dir: plan.out_dir.clone(), source })?;
    let dns = DnsPairs::new(plan.all_dns_ports(), MAX_QUERIES);
    let processes = Processes::new(preflight::sees_all_processes(), plan.with_cmdline);
    let mut sink = Sink::new(writer, SummaryBuilder::new(), dns, plan.max_events, context, homes, processes);
    sink.flows = flows;
    Ok(sink)
}

/// Starts the user's command, if there is one; returns why it could not be.
fn start_command(plan: &Plan, stop: &Stop, head: &mut Head) -> (Option<Running>, Option<String>) {
    let Some(asked) = &plan.command else { return (None, None) };
    let mut report = command::report(&asked.argv);
    let started = Running::start(&asked.program, &asked.argv, plan.stdout, stop.ignored_before());
    report.pid = started.as_ref().ok().map(Running::pid);
    head.command = Some(report);
    match started {
        Ok(running) => (Some(running), None),
        Err(e) => (None, Some(format!("`{}` could not be started: {e}", asked.program.display()))),
    }
}

/// Makes the ready file: whole or not at all, so that a waiting program cannot see it half-written.
fn announce(plan: &Plan) -> Result<(), CaptureError> {
    let Some(path) = &plan.ready_file else { return Ok(()) };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let made = fs::write(&temporary, "ready\n").and_then(|()| fs::rename(&temporary, path));
    made.map_err(|source| CaptureError::Ready { path: path.clone(), source })
}

/// Records the sockets that exist; returns what makes the bundle incomplete.
fn read_sockets(session: &mut Session, when: When, context: &Context, sink: &mut Sink) -> Option<String> {
    let number = match when {
        When::Start => kt_when::KT_WHEN_START,
        When::End => kt_when::KT_WHEN_END,
    };
    let mut undecodable = 0u64;
    let mut unwritten = None;
    let mut seen = std::collections::HashSet::new();
    let result = session.read_sockets(number, |record| match decode_socket(record, when, context) {
        // several descriptors, one socket
        Ok(socket) if socket.id.socket.is_some_and(|cookie| !seen.insert(cookie)) => {}
        Ok(mut socket) => {
            sink.homes.settle(&mut socket.id);
            if sink.homes.refuses(&socket.id) {
                return;
            }
            sink.summary.push_socket(&socket);
            sink.see_owner(&socket.id);
            // what looks at the node goes on meanwhile, and must find room for its lines
            if seen.len() % SOCKETS_IN_A_TURN == 0 {
                sink.turn_node();
            }
            if let Err(e) = sink.writer.push_socket(&socket) {
                // the first one says why: what follows is only refused
                unwritten.get_or_insert(e);
            }
        }
        Err(_) => undecodable += 1,
    });
    match (result, unwritten, undecodable) {
        (Err(e), ..) => Some(format!("the sockets could not be read to the end: {e}")),
        (_, Some(e), _) => {
            let text = format!("the sockets could not be written: {e}");
            sink.failure.get_or_insert(e);
            Some(text)
        }
        (.., 0) => None,
        (.., count) => Some(format!("{count} sockets could not be decoded")),
    }
}

/// Ends the looks at what waits; returns what makes the bundle incomplete.
fn finish_looks(looks: io::Result<Option<Looks>>) -> Option<String> {
    let outcome = looks.and_then(|looks| looks.map_or(Ok(()), Looks::finish));
    outcome.err().map(|e| format!("what waits could not be looked at until the end: {e}"))
}

/// What is known about who accepted a connection.
fn acceptor(plan: &Plan, session: &Session, cookie: u64) -> Option<Acceptor> {
    let task = session.acceptor(cookie)?;
    Some(Acceptor { passes: owners::pass(&plan.filters, &task), cgroup: wire::cgroup(&task) })
}

/// What the filters by pod say of cgroups that were met meanwhile, the kernel need not ask any more.
fn tell_homes(session: &Session, sink: &mut Sink) -> Result<(), SessionError> {
    sink.homes.decided().into_iter().try_for_each(|(cgroup, answer)| session.tell_home(cgroup, answer))
}

/// One turn of the event path; returns whether there may be more.
fn drain(rings: &Rings<'_>, sink: &RefCell<Sink>) -> Result<bool, SessionError> {
    let more = rings.take()?;
    sink.borrow_mut().write_batch();
    Ok(more)
}

/// Writes the last members, or, where the disk has failed, saves what there is.
fn seal(plan: &Plan, mut sink: Sink, mut end: manifest::End) -> Result<Sealed, CaptureError> {
    let dir = sink.writer.dir().to_owned();
    // so that a full disk shows while the ledger can still say which lines are on it
    sink.flush();
    if let Some(source) = sink.failure.take() {
        end.ended_by = match source {
            WriteError::DiskFull { .. } => EndedBy::DiskFull,
            _ => EndedBy::Error,
        };
        sink.settle();
        let manifest = manifest::finish(plan, &sink, end);
        // its own failure would say no more than the first one
        let _ = sink.writer.abandon(manifest);
        return Err(CaptureError::write(dir, source));
    }
    let manifest = manifest::finish(plan, &sink, end);
    let tee = sink.tee.take();
    let summary = sink.summary.build(&manifest, &sink.dns);
    match sink.writer.seal(manifest.clone(), &summary) {
        Ok(sealed) => {
            let removed = if plan.no_loose { sealed.remove_loose() } else { Ok(()) };
            let leftover = removed.err().map(|source| Leftover { dir, source });
            Ok(Sealed { bundle: sealed.tgz, manifest, leftover, tee })
        }
        Err(source) => Err(CaptureError::write(dir, source)),
    }
}
