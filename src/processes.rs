//! The processes that own sockets, and those above them: what each runs, who started it, and when it ended.
//!
//! An owner is looked up in `/proc` once, when its first line is written. What is gone by then is known from what the
//! `lifetimes` hook told, which also tells when a process ends.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ktrace_bundle::attribution::Owner;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::process::{LONGEST_TEXT, MAX_PROCESSES, ProcessRecord};
use ktrace_bundle::why::Reason;
use procfs::ProcError;
use procfs::process::Process;

use crate::cgroup::Hierarchy;
use crate::clock;
use crate::hooks::wire;
use crate::kernel::skel::types::kt_task;

/// Processes that are remembered, some 3 MiB.
const MOST: usize = MAX_PROCESSES as usize;
/// Processes beyond these that are counted once each.
const MOST_COUNTED: usize = 4 * MOST;
/// Processes of which it is remembered that they began or ended, until one of them owns a socket.
const MOST_NOTICED: usize = 1 << 12;
/// Different names and paths that are remembered.
const MOST_TEXTS: usize = 1 << 12;
/// Ancestors that are looked up for one process.
const DEEPEST: usize = 64;

/// Pid, and the clock tick of its start: as exact as `/proc` tells it, and two processes never share both.
type Key = (u32, u64);

/// What is known of processes.
pub struct Processes {
    known: HashMap<Key, Box<Known>>,
    /// Names and paths: many processes share few of them.
    texts: HashSet<Arc<str>>,
    noticed: HashMap<u32, Noticed>,
    /// Of `noticed`, oldest first.
    order: VecDeque<u32>,
    /// The pids of this `/proc` are those of the events.
    reads_proc: bool,
    with_cmdline: bool,
    /// Length of a clock tick, ns.
    tick_ns: u64,
    /// Offset of boot time in this time namespace, which `/proc` adds, ns.
    offset_ns: i64,
    /// Those that found no room.
    beyond: HashSet<Key>,
    /// Pids of parents that were gone before their notice was read, and when the child began.
    orphans: Vec<(u32, u64)>,
}

/// What becomes a record, in a fifth of its memory.
struct Known {
    start_ns: u64,
    exit_ns: Option<u64>,
    cgroup_id: Option<u64>,
    hierarchy: Hierarchy,
    ppid: u32,
    uid: Option<u32>,
    comm: Arc<str>,
    exe: Result<Text, Reason>,
    is_as_called: bool,
    /// If it was asked for.
    cmdline: Option<Box<Result<Text, Reason>>>,
}

/// Text from outside, at most [`LONGEST_TEXT`] bytes of it.
struct Text {
    text: Arc<str>,
    is_cut: bool,
}

#[derive(Default)]
struct Noticed {
    start_ns: u64,
    ppid: u32,
    uid: u32,
    comm: String,
    exe: Option<String>,
    exit_ns: Option<u64>,
}

impl Processes {
    /// None known yet. `reads_proc`: whether the pids of this `/proc` are those of the events.
    pub fn new(reads_proc: bool, with_cmdline: bool) -> Self {
        Self {
            known: HashMap::new(),
            texts: HashSet::new(),
            noticed: HashMap::new(),
            order: VecDeque::new(),
            reads_proc,
            with_cmdline,
            tick_ns: Duration::from_secs(1).as_nanos() as u64 / procfs::ticks_per_second().max(1),
            offset_ns: clock::offset_ns(),
            beyond: HashSet::new(),
            orphans: Vec::new(),
        }
    }

    /// A process owns a socket that is written. `hierarchy`: where its cgroup's id is one.
    pub fn see(&mut self, owner: &Owner, hierarchy: Hierarchy) {
        let Some(start_ns) = owner.proc_start_ns else { return };
        let key = self.key(owner.pid, start_ns);
        if let Some(known) = self.known.get_mut(&key) {
            // of one that was above another /proc told less
            known.start_ns = start_ns;
            if known.cgroup_id.is_none() {
                (known.cgroup_id, known.hierarchy) = (owner.cgroup_id, hierarchy);
            }
            return;
        }
        if !self.has_room(key) {
            return;
        }
        let process = self.look_up(owner.pid).filter(|it| self.tick_of(it) == Some(key.1));
        let noticed = self.noticed.get(&owner.pid).filter(|it| it.start_ns == start_ns);
        let (exit_ns, called) = noticed.map(|it| (it.exit_ns, it.exe.clone())).unwrap_or_default();
        let mut known = Known {
            exit_ns,
            cgroup_id: owner.cgroup_id,
            hierarchy,
            uid: owner.uid,
            ..Known::new(start_ns, owner.ppid.unwrap_or(0), shared(&mut self.texts, &owner.comm))
        };
        self.read(&mut known, process.as_ref(), called);
        let ppid = known.ppid;
        self.known.insert(key, known.into());
        self.see_ancestors(ppid, start_ns);
    }

    /// A process has begun to run something.
    pub fn exec(&mut self, task: &kt_task, exe: Option<String>) {
        let key = self.key(task.pid, task.start_ns);
        match self.known.remove(&key) {
            Some(mut known) => {
                let process = self.look_up(task.pid).filter(|it| self.tick_of(it) == Some(key.1));
                known.comm = shared(&mut self.texts, &wire::text(&task.comm));
                self.read(&mut known, process.as_ref(), exe);
                self.known.insert(key, known);
            }
            None => self.notice(task).exe = exe,
        }
    }

    /// The last thread of a process exits.
    pub fn exit(&mut self, task: &kt_task, boot_ns: u64) {
        match self.known.get_mut(&(task.pid, task.start_ns / self.tick_ns)) {
            Some(known) => known.exit_ns = Some(boot_ns),
            None => self.notice(task).exit_ns = Some(boot_ns),
        }
    }

    /// What is known by now, one after the other, by pid and start. `utc_of`: the time that a boot time stands for.
    pub fn each(&mut self, utc_of: impl Fn(u64) -> DateTime<Utc>, mut take: impl FnMut(ProcessRecord)) {
        for (pid, child_ns) in std::mem::take(&mut self.orphans) {
            self.see_ancestors(pid, child_ns);
        }
        let mut keys: Vec<_> = self.known.keys().collect();
        keys.sort_unstable();
        for (key, known) in keys.into_iter().filter_map(|key| Some((key, self.known.get(key)?))) {
            let mut record = known.record(key.0);
            record.exit_at = known.exit_ns.map(&utc_of);
            let is_there = || self.look_up(key.0).is_some_and(|it| self.tick_of(&it) == Some(key.1));
            if record.exit_at.is_none() && !is_there() {
                record.why.insert("exit_at".into(), self.missing().text().into_owned());
            }
            take(record);
        }
    }

    /// Why `/proc` does not tell of a process.
    const fn missing(&self) -> Reason {
        if self.reads_proc { Reason::Gone } else { Reason::SourceAbsent }
    }

    /// For the manifest. `untold`: notices that were lost.
    pub fn report(&self, untold: u64) -> SourceReport {
        SourceReport {
            name: "processes".into(),
            outcome: if self.reads_proc { "answered" } else { "absent" }.into(),
            entries: Some(self.known.len() as u64),
            errors: Some(untold),
            error: (untold > 0).then(|| "notices of processes and cgroups were lost".into()),
            evicted: Some(self.beyond.len() as u64),
            ..SourceReport::default()
        }
    }

    fn key(&self, pid: u32, start_ns: u64) -> Key {
        (pid, start_ns / self.tick_ns)
    }

    /// Whether there is room for it; counts it if there is none.
    fn has_room(&mut self, key: Key) -> bool {
        let is_room = self.known.len() < MOST;
        if !is_room && self.beyond.len() < MOST_COUNTED {
            self.beyond.insert(key);
        }
        is_room
    }

    fn notice(&mut self, task: &kt_task) -> &mut Noticed {
        if !self.noticed.contains_key(&task.pid) {
            if self.order.len() >= MOST_NOTICED
                && let Some(oldest) = self.order.pop_front()
            {
                self.noticed.remove(&oldest);
            }
            self.order.push_back(task.pid);
        }
        let noticed = self.noticed.entry(task.pid).or_default();
        if noticed.start_ns != task.start_ns {
            *noticed = Noticed { start_ns: task.start_ns, ppid: task.ppid, uid: task.uid, ..Noticed::default() };
        }
        noticed.comm = wire::text(&task.comm);
        noticed
    }

    /// Those above it, as far as they are there or were noticed. A parent began before its child: another one with its pid
    /// did not.
    fn see_ancestors(&mut self, mut pid: u32, mut child_ns: u64) {
        for _ in 0..DEEPEST {
            if pid == 0 {
                return;
            }
            let found = self.ancestor(pid, child_ns).or_else(|| self.of_notice(pid, child_ns));
            let Some(known) = found else {
                if self.orphans.len() < MOST {
                    self.orphans.push((pid, child_ns));
                }
                return;
            };
            let key = self.key(pid, known.start_ns);
            if self.known.contains_key(&key) || !self.has_room(key) {
                return;
            }
            (pid, child_ns) = (known.ppid, known.start_ns);
            self.known.insert(key, known.into());
        }
    }

    /// As `/proc` has it; nothing if it ends while it is read.
    fn ancestor(&mut self, pid: u32, child_ns: u64) -> Option<Known> {
        let process = self.look_up(pid)?;
        let start_ns = self.tick_of(&process)? * self.tick_ns;
        let stat = process.stat().ok().filter(|_| start_ns <= child_ns)?;
        let (ppid, comm) = (u32::try_from(stat.ppid).unwrap_or(0), shared(&mut self.texts, &stat.comm));
        let mut known = Known::new(start_ns, ppid, comm);
        known.uid = process.status().ok().map(|it| it.ruid);
        let noticed = self.noticed.get(&pid).filter(|it| it.start_ns / self.tick_ns == start_ns / self.tick_ns);
        let (exit_ns, called) = noticed.map(|it| (it.exit_ns, it.exe.clone())).unwrap_or_default();
        known.exit_ns = exit_ns;
        self.read(&mut known, Some(&process), called);
        Some(known)
    }

    /// One that had ended before its child began was another one's parent.
    fn of_notice(&mut self, pid: u32, child_ns: u64) -> Option<Known> {
        let noticed = self.noticed.get(&pid).filter(|it| it.start_ns <= child_ns)?;
        let noticed = Some(noticed).filter(|it| it.exit_ns.is_none_or(|at| at >= child_ns))?;
        let called = noticed.exe.clone();
        let comm = shared(&mut self.texts, &noticed.comm);
        let mut known = Known::new(noticed.start_ns, noticed.ppid, comm);
        (known.uid, known.exit_ns) = (Some(noticed.uid), noticed.exit_ns);
        self.read(&mut known, None, called);
        Some(known)
    }

    fn look_up(&self, pid: u32) -> Option<Process> {
        let pid = i32::try_from(pid).ok().filter(|_| self.reads_proc)?;
        Process::new(pid).ok()
    }

    /// The tick of its start, as events have it.
    fn tick_of(&self, process: &Process) -> Option<u64> {
        let shown_ns = process.stat().ok()?.starttime.checked_mul(self.tick_ns)?;
        Some(shown_ns.checked_add_signed(self.offset_ns.checked_neg()?)? / self.tick_ns)
    }

    /// Adds what `/proc` tells of it; else what it was `called` with (one that has ended stays in `/proc` until its parent
    /// asks, but runs no file), or why that is not known.
    fn read(&mut self, known: &mut Known, process: Option<&Process>, called: Option<String>) {
        let missing = self.missing();
        let exe = match process {
            Some(process) => process.exe().map(|it| it.to_string_lossy().into_owned()).map_err(|e| reason(&e)),
            None => Err(missing.clone()),
        };
        known.is_as_called = exe.is_err() && called.is_some();
        let exe = exe.or_else(|reason| called.ok_or(reason));
        known.exe = exe.map(|it| Text::clip(&mut self.texts, &it));
        if self.with_cmdline {
            let cmdline = process.map_or(Err(missing), |it| cmdline(it).map_err(|e| reason(&e)));
            known.cmdline = Some(Box::new(cmdline.map(|it| Text::clip(&mut self.texts, &it))));
        }
    }
}

/// One copy for all who say the same, as far as there is room to remember it.
fn shared(texts: &mut HashSet<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(known) = texts.get(text) {
        return Arc::clone(known);
    }
    let new: Arc<str> = text.into();
    if texts.len() < MOST_TEXTS {
        texts.insert(Arc::clone(&new));
    }
    new
}

/// The first arguments, with spaces between them. No more is read: the process itself says how much there is.
fn cmdline(process: &Process) -> Result<String, ProcError> {
    let mut bytes = Vec::new();
    process.open_relative("cmdline")?.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    while bytes.pop_if(|last| *last == 0).is_some() {}
    let bytes: Vec<_> = bytes.iter().map(|b| if *b == 0 { b' ' } else { *b }).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Known {
    /// One of which nothing else is known.
    const fn new(start_ns: u64, ppid: u32, comm: Arc<str>) -> Self {
        Self {
            start_ns,
            exit_ns: None,
            cgroup_id: None,
            hierarchy: Hierarchy::V2,
            ppid,
            uid: None,
            comm,
            exe: Err(Reason::Gone),
            is_as_called: false,
            cmdline: None,
        }
    }

    fn record(&self, pid: u32) -> ProcessRecord {
        let mut record = ProcessRecord::new(pid, self.start_ns, self.ppid, self.comm.as_ref().to_owned());
        (record.uid, record.cgroup_id) = (self.uid, self.cgroup_id);
        if let Some(reason) = self.hierarchy.why().filter(|_| self.cgroup_id.is_some()) {
            record.why.insert("cgroup_id".into(), reason.text().into_owned());
        }
        record.is_as_called = self.is_as_called;
        record.exe = tell(&self.exe, "exe", &mut record.why);
        record.cmdline = self.cmdline.as_ref().and_then(|it| tell(it, "cmdline", &mut record.why));
        record
    }
}

impl Text {
    /// The first bytes, whole characters of it.
    fn clip(texts: &mut HashSet<Arc<str>>, text: &str) -> Self {
        let whole = text.get(..text.floor_char_boundary(LONGEST_TEXT)).unwrap_or_default();
        Self { text: shared(texts, whole), is_cut: whole.len() < text.len() }
    }
}

/// The text; adds why it is none, or not all.
fn tell(text: &Result<Text, Reason>, key: &str, why: &mut BTreeMap<String, String>) -> Option<String> {
    let reason = match text {
        Ok(text) => text.is_cut.then_some(&Reason::Truncated),
        Err(reason) => Some(reason),
    };
    why.extend(reason.map(|it| (key.to_owned(), it.text().into_owned())));
    text.as_ref().ok().map(|it| it.text.as_ref().to_owned())
}

fn reason(error: &ProcError) -> Reason {
    match error {
        ProcError::PermissionDenied(_) => Reason::NoPermission,
        // threads of the kernel run no file
        ProcError::NotFound(_) => Reason::NotFound,
        _ => Reason::SourceError,
    }
}

#[cfg(test)]
#[path = "processes/processes_tests.rs"]
mod tests;
