//! The attached programs of one capture: gate, rings, counters, iterator. Dropping it detaches everything.
//!
//! Order at the end of a window, each step needed for exact counts: close the gate, wait for programs that
//! still run, drain the rings, read the counters.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use ktrace_bundle::event::EventKind;
use ktrace_bundle::manifest::HookReport;
use ktrace_bundle::writer::Capped;
use libbpf_rs::{Iter, MapCore, MapFlags, RingBuffer, RingBufferBuilder};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::attachment::Attachment;
use super::loader::Attached;
use super::looks::Looks;
use super::skel::KtraceSkel;
use super::skel::types::{kt_capped, kt_chain, kt_counters, kt_socket, kt_state, kt_task, kt_when};
use super::{drops, filters, refused};
use crate::clock;
use crate::hooks::{SOCKETS, TCP_WAIT, wire};
use crate::identity::Cgroup;
use crate::plan::filters::home::Answer;
use crate::preflight;

/// Notices that are taken before the events are looked at: as many as their ring holds.
const NOTICES_AT_ONCE: usize = 700;
/// Records that are taken from the rings before anything else is looked at.
pub const RECORDS_AT_ONCE: usize = 4096;

/// The hooks whose further programs take what the first ones are skipped for: `kt_state.rescued`.
const CHAINS: [(&str, kt_chain); 4] = [
    ("tcp_state", kt_chain::KT_CHAIN_STATE),
    ("connect", kt_chain::KT_CHAIN_CONNECT),
    ("udp", kt_chain::KT_CHAIN_UDP),
    ("tcp_retransmit", kt_chain::KT_CHAIN_RETRANSMIT),
];

/// How often the first programs of a hook were skipped since the gate opened, and how often another one took what they
/// would have recorded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Skipped {
    /// Upper bound of events that the first programs did not see.
    pub skipped: u64,
    /// Of those, recorded in the end. Comes later than the skip that it makes good, by a program's run.
    pub rescued: u64,
}

impl Skipped {
    /// Upper bound of lost events.
    pub const fn missed(self) -> u64 {
        self.skipped.saturating_sub(self.rescued)
    }
}

/// A running kernel side. Fields drop in this order: programs detach before the maps that they use go away.
pub struct Session {
    programs: Vec<Attachment>,
    reports: Vec<HookReport>,
    degraded: Vec<String>,
    /// How often each of `programs` had been skipped, and others had taken their place by [`CHAINS`], when the gate opened.
    missed_before: (Vec<Option<u64>>, [u64; CHAINS.len()]),
    /// See [`Session::unmarked`].
    unmarked_before: u64,
    pub(super) skel: KtraceSkel<'static>,
}

/// Why the kernel side cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A map operation failed.
    #[error("{what}: {source}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// libbpf's error.
        source: libbpf_rs::Error,
    },
    /// The rings are broken.
    #[error("cannot read the rings")]
    Rings,
    /// A counter of another size than `wire.h` says.
    #[error(transparent)]
    Wire(#[from] wire::DecodeError),
}

impl SessionError {
    pub(super) fn map(what: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Self {
        move |source| Self::Map { what, source }
    }
}

/// Which way the gate turns, and what else a running program looks at.
#[derive(Clone, Copy)]
enum Setting {
    Gate(bool),
    ByteCapped(u32),
    When(kt_when),
    SelfPid(u32),
}

impl Session {
    /// Takes over what the loader attached. The gate is closed.
    pub fn new(attached: Attached, skel: KtraceSkel<'static>) -> Self {
        let Attached { programs, reports, degraded } = attached;
        let mut session =
            Self { programs, reports, degraded, missed_before: Default::default(), unmarked_before: 0, skel };
        // in a pid namespace of our own this number is somebody else's; the iterator knows it in any case
        if preflight::sees_all_processes() {
            session.set(Setting::SelfPid(std::process::id()));
        }
        session
    }

    /// Coverage by hook.
    pub fn reports(&self) -> &[HookReport] {
        &self.reports
    }

    /// What should have been covered and is not, one sentence each.
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// From now on events are observed.
    pub fn open_gate(&mut self) {
        self.missed_before = (self.programs.iter().map(Attachment::missed).collect(), self.rescued());
        self.unmarked_before = self.unmarked();
        self.set(Setting::Gate(true));
    }

    /// From now on nothing new is observed; programs that have passed the gate still finish.
    pub fn close_gate(&mut self) {
        self.set(Setting::Gate(false));
    }

    /// What the writer refuses, the kernel need not send any more.
    pub fn byte_capped(&mut self, capped: Capped) {
        let flag = |on: bool, flag: kt_capped| if on { flag.0 } else { 0 };
        let flags = flag(capped.bulk, kt_capped::KT_CAPPED_BULK) | flag(capped.all, kt_capped::KT_CAPPED_ALL);
        self.set(Setting::ByteCapped(flags));
    }

    /// Returns when no program that was running at the time of the call runs any more.
    ///
    /// # Errors
    /// The map that makes the kernel wait could not be updated.
    pub fn wait_for_programs(&self) -> Result<(), SessionError> {
        let inner = self.skel.maps.grace_inner.as_fd().as_raw_fd();
        let grace = &self.skel.maps.grace;
        grace
            .update(&0u32.to_ne_bytes(), &inner.to_ne_bytes(), MapFlags::ANY)
            .map_err(SessionError::map("cannot wait for running programs"))
    }

    /// All rings: what tells of processes and cgroups, and events, rare ones first. `on_notice` and `on_record` get one record
    /// at a time.
    ///
    /// # Errors
    /// A ring could not be mapped.
    pub fn rings<'cb>(
        &self,
        on_notice: impl Fn(&[u8]) + 'cb,
        on_record: impl Fn(&[u8]) + Copy + 'cb,
    ) -> Result<Rings<'cb>, SessionError> {
        let what = "cannot map a ring";
        let mut notices = RingBufferBuilder::new();
        let callback = move |bytes: &[u8]| {
            on_notice(bytes);
            0
        };
        notices.add(&self.skel.maps.notices, callback).map_err(SessionError::map(what))?;
        let mut events = RingBufferBuilder::new();
        for map in [&self.skel.maps.rare_ring, &self.skel.maps.bulk_ring] {
            let callback = move |bytes: &[u8]| {
                on_record(bytes);
                0
            };
            events.add(map, callback).map_err(SessionError::map(what))?;
        }
        let build = |builder: RingBufferBuilder<'_, 'cb>| builder.build().map_err(SessionError::map(what));
        Ok(Rings { notices: build(notices)?, events: build(events)? })
    }

    /// Reads the sockets in all file tables; `on_record` gets one `struct kt_socket` at a time. Nothing happens
    /// where the iterator is not supported.
    ///
    /// # Errors
    /// The iterator failed half-way.
    pub fn read_sockets(&mut self, when: kt_when, mut on_record: impl FnMut(&[u8])) -> io::Result<()> {
        self.set(Setting::When(when));
        let Some(program) = self.iterator(SOCKETS) else { return Ok(()) };
        let mut iterator = Iter::new(program.link()).map_err(|e| io::Error::other(e.to_string()))?;
        let mut buffer = vec![0; 64 * size_of::<kt_socket>()];
        let mut held = 0;
        loop {
            let free = buffer.get_mut(held..).unwrap_or_default();
            let got = match iterator.read(free) {
                Ok(0) => return Ok(()),
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            held += got;
            let whole = held - held % size_of::<kt_socket>();
            buffer.get(..whole).unwrap_or_default().chunks_exact(size_of::<kt_socket>()).for_each(&mut on_record);
            buffer.copy_within(whole..held, 0);
            held -= whole;
        }
    }

    fn iterator(&self, hook: &str) -> Option<&Attachment> {
        self.programs.iter().find(|p| p.is_iterator && p.hook == hook)
    }

    /// Looks at what waits, by itself and once a second, as long as what is returned lives; `None` where that hook is not
    /// attached. The first look is over on return.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn watch_waits(&self) -> io::Result<Option<Looks>> {
        self.iterator(TCP_WAIT).map(|program| Looks::start(program.link().as_fd())).transpose()
    }

    /// Takes what has been thrown away: rows of seconds that are over, or all of them when no program runs any more.
    /// `on_record` gets one `struct kt_dropped` at a time.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn take_drops(&self, all: bool, mut on_record: impl FnMut(&[u8])) -> Result<(), SessionError> {
        let now = if all { None } else { Some(clock::boot_ns()) };
        let maps = &self.skel.maps;
        [&maps.drop_rows, &maps.drop_rest].into_iter().try_for_each(|rows| drops::take(rows, now, &mut on_record))
    }

    /// Who accepted this connection, as far as a filter by owner is concerned; `None`: nobody yet, or long ago.
    pub fn acceptor(&self, cookie: u64) -> Option<kt_task> {
        // an entry that cannot be read is one that is not there: the map is a cache
        let found = self.skel.maps.accepts.lookup(&cookie.to_ne_bytes(), MapFlags::ANY).ok()??;
        wire::read(&found).ok()
    }

    /// Says of a cgroup which filter by pod refuses it, or that none does.
    ///
    /// # Errors
    /// The map could not be written.
    pub fn tell_home(&self, cgroup: Cgroup, answer: Answer) -> Result<(), SessionError> {
        filters::tell_home(&self.skel, cgroup, answer).map_err(SessionError::map("cannot set the filters by pod"))
    }

    /// The account of every kind, summed over CPUs.
    ///
    /// # Errors
    /// The map could not be read.
    pub fn counters(&self) -> Result<Vec<(EventKind, kt_counters)>, SessionError> {
        EventKind::ALL.into_iter().map(|kind| Ok((kind, self.counters_of(kind)?))).collect()
    }

    fn counters_of(&self, kind: EventKind) -> Result<kt_counters, SessionError> {
        let key = wire::number_of(kind).to_ne_bytes();
        let per_cpu = self.skel.maps.counters.lookup_percpu(&key, MapFlags::ANY);
        let mut sum = kt_counters::default();
        for cpu in per_cpu.map_err(SessionError::map("cannot read the counters"))?.unwrap_or_default() {
            let kt_counters { observed, filtered, seen, submitted, dropped, refused } = wire::read(&cpu)?;
            refused::add(&mut sum.refused, &refused);
            sum.observed += observed;
            sum.seen += seen;
            sum.submitted += submitted;
            sum.filtered.iter_mut().zip(filtered).for_each(|(s, n)| *s += n);
            sum.dropped.iter_mut().zip(dropped).for_each(|(s, n)| *s += n);
        }
        Ok(sum)
    }

    /// How often since the gate opened the kernel skipped a program that records events, less what others took
    /// instead: an upper bound of lost events.
    pub fn missed(&self) -> u64 {
        self.missed_by_hook().values().sum()
    }

    /// The same by hook.
    pub fn missed_by_hook(&self) -> BTreeMap<&'static str, u64> {
        self.skipped_by_hook().into_iter().map(|(hook, it)| (hook, it.missed())).collect()
    }

    /// What that is made of.
    pub fn skipped_by_hook(&self) -> BTreeMap<&'static str, Skipped> {
        let mut by_hook: BTreeMap<&'static str, Skipped> = BTreeMap::new();
        for (program, missed) in self.programs.iter().zip(self.missed_by_program()).filter(|(p, _)| p.is_recording) {
            by_hook.entry(program.hook).or_default().skipped += missed.unwrap_or(0);
        }
        for (((hook, _), now), before) in CHAINS.iter().zip(self.rescued()).zip(self.missed_before.1) {
            if let Some(it) = by_hook.get_mut(hook) {
                it.rescued = now.saturating_sub(before);
            }
        }
        if let Some(it) = by_hook.get_mut("udp") {
            it.skipped += self.unmarked().saturating_sub(self.unmarked_before);
        }
        by_hook
    }

    /// In the order of `programs`; `None` where the kernel does not count.
    fn missed_by_program(&self) -> Vec<Option<u64>> {
        let since = |(now, before): (&Attachment, &Option<u64>)| Some(now.missed()?.saturating_sub((*before)?));
        self.programs.iter().zip(&self.missed_before.0).map(since).collect()
    }

    /// Coverage by hook, with how often each program was skipped since the gate opened.
    pub fn reports_at_end(&self) -> Vec<HookReport> {
        let mut reports = self.reports.clone();
        for (program, missed) in self.programs.iter().zip(self.missed_by_program()) {
            let own = reports.iter_mut().filter(|r| r.name == program.hook).flat_map(|r| &mut r.programs);
            own.filter(|p| p.name == program.name).for_each(|p| p.missed = missed);
        }
        reports
    }

    /// In the order of [`CHAINS`].
    fn rescued(&self) -> [u64; CHAINS.len()] {
        let Some(bss) = self.skel.maps.bss_data.as_deref() else { return Default::default() };
        let rescued = &raw const bss.kt_state.rescued;
        // SAFETY: a reference to the mapping of .bss, which lives as long as `skel`; programs add to it at any time.
        let rescued = unsafe { rescued.read_volatile() };
        CHAINS.map(|(_, chain)| rescued.get(chain.0 as usize).copied().unwrap_or(0))
    }

    /// What the first program of `udp` left to others although it was not skipped.
    fn unmarked(&self) -> u64 {
        let Some(bss) = self.skel.maps.bss_data.as_deref() else { return 0 };
        // SAFETY: as in `rescued`.
        unsafe { (&raw const bss.kt_state.unmarked).read_volatile() }
    }

    /// Notices of processes and cgroups that found no room.
    pub fn untold(&self) -> u64 {
        let Some(bss) = self.skel.maps.bss_data.as_deref() else { return 0 };
        // SAFETY: as in `rescued`.
        unsafe { (&raw const bss.kt_state.untold).read_volatile() }
    }

    fn set(&mut self, setting: Setting) {
        let Some(bss) = self.skel.maps.bss_data.as_deref_mut() else { return };
        let state: *mut kt_state = &raw mut bss.kt_state;
        // SAFETY: `state` points into the mapping of .bss, which lives as long as `skel`; programs on other CPUs
        // read these words at any time, hence volatile, and a torn u32 does not exist.
        unsafe {
            match setting {
                Setting::Gate(open) => (&raw mut (*state).gate).write_volatile(u32::from(open)),
                Setting::ByteCapped(flags) => (&raw mut (*state).byte_capped).write_volatile(flags),
                Setting::When(when) => (&raw mut (*state).when).write_volatile(when.0),
                Setting::SelfPid(pid) => (&raw mut (*state).self_pid).write_volatile(pid),
            }
        }
    }
}

/// The rings.
pub struct Rings<'cb> {
    notices: RingBuffer<'cb>,
    events: RingBuffer<'cb>,
}

impl Rings<'_> {
    /// Sleeps until a ring is filling up, a signal comes, or the time is over. Records are submitted without a
    /// wakeup, so there may be some in any case.
    pub fn wait(&self, time: Duration) {
        let ready = |rings: &RingBuffer<'_>| {
            // SAFETY: the descriptor belongs to the ring buffer, which outlives this borrow.
            let epoll = unsafe { BorrowedFd::borrow_raw(rings.epoll_fd()) };
            PollFd::new(epoll, PollFlags::POLLIN)
        };
        // whatever ends the sleep, a look at the rings is what follows
        let _ = poll(
            &mut [ready(&self.notices), ready(&self.events)],
            PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO),
        );
    }

    /// Takes a bounded number of notices, then of events, rare ones first, so that a flood of others never makes them wait.
    /// Returns whether there may be more.
    ///
    /// # Errors
    /// The rings cannot be read.
    pub fn take(&self) -> Result<bool, SessionError> {
        let take = |rings: &RingBuffer<'_>, most: usize| match usize::try_from(rings.consume_raw_n(most)) {
            Ok(taken) => Ok(taken >= most),
            Err(_) => Err(SessionError::Rings),
        };
        let more_notices = take(&self.notices, NOTICES_AT_ONCE)?;
        Ok(take(&self.events, RECORDS_AT_ONCE)? || more_notices)
    }
}
