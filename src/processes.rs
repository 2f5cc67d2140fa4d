//! The processes that own sockets, and those above them: what each runs, who started it, and when it ended.
//!
//! An owner is looked up in `/proc` once, when its first line is written. What is gone by then is known from what the
//! `lifetimes` hook told, which also tells when a process ends.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ktrace_bundle::attribution::Owner;
use ktrace_bundle::manifest::SourceReport;
use ktrace_bundle::process::{LONGEST_TEXT, ProcessRecord};
use ktrace_bundle::why::Reason;
use procfs::ProcError;
use procfs::process::Process;

use crate::hooks::wire;
use crate::kernel::skel::types::kt_task;

/// Processes that are remembered: 16,384 of them are some 6 MiB.
const MOST: usize = 1 << 14;
/// Processes of which it is remembered that they began or ended, until one of them owns a socket.
const MOST_NOTICED: usize = 1 << 12;
/// Ancestors that are looked up for one process.
const DEEPEST: usize = 64;

/// Pid, and the clock tick of its start: as exact as `/proc` tells it, and two processes never share both.
type Key = (u32, u64);

/// What is known of processes.
pub struct Processes {
    known: HashMap<Key, Known>,
    noticed: HashMap<u32, Noticed>,
    /// Of `noticed`, oldest first.
    order: VecDeque<u32>,
    /// The pids of this `/proc` are those of the events.
    reads_proc: bool,
    with_cmdline: bool,
    /// Length of a clock tick, ns.
    tick_ns: u64,
    evicted: u64,
    notices: u64,
}

struct Known {
    record: ProcessRecord,
    exit_ns: Option<u64>,
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
            noticed: HashMap::new(),
            order: VecDeque::new(),
            reads_proc,
            with_cmdline,
            tick_ns: Duration::from_secs(1).as_nanos() as u64 / procfs::ticks_per_second().max(1),
            evicted: 0,
            notices: 0,
        }
    }

    /// A process owns a socket that is written. `hierarchy`: where its cgroup's id is one, if not in version 2.
    pub fn see(&mut self, owner: &Owner, hierarchy: Option<&Reason>) {
        let Some(start_ns) = owner.proc_start_ns else { return };
        let key = self.key(owner.pid, start_ns);
        if let Some(Known { record, .. }) = self.known.get_mut(&key) {
            // of one that was above another /proc told less
            record.proc_start_ns = start_ns;
            if record.comm != owner.comm {
                record.comm.clone_from(&owner.comm);
            }
            if record.cgroup_id.is_none() {
                record.cgroup_id = owner.cgroup_id;
                record.why.extend(hierarchy.map(|it| ("cgroup_id".to_owned(), it.text().into_owned())));
            }
            return;
        }
        let mut record = ProcessRecord::new(owner.pid, start_ns, owner.ppid.unwrap_or(0), owner.comm.clone());
        (record.uid, record.cgroup_id) = (owner.uid, owner.cgroup_id);
        record.why.extend(hierarchy.map(|it| ("cgroup_id".to_owned(), it.text().into_owned())));
        let process = self.look_up(owner.pid).filter(|it| self.tick_of(it) == Some(key.1));
        let noticed = self.noticed.get(&owner.pid).filter(|it| it.start_ns == start_ns);
        let exit_ns = noticed.and_then(|it| it.exit_ns);
        record.exe = noticed.filter(|_| process.is_none()).and_then(|it| it.exe.clone());
        record.is_as_called = record.exe.is_some();
        self.read(&mut record, process.as_ref());
        let ppid = record.ppid;
        self.add(key, Known { record, exit_ns });
        self.see_ancestors(ppid, start_ns);
    }

    /// A process has begun to run something.
    pub fn exec(&mut self, task: &kt_task, exe: Option<String>) {
        self.notices += 1;
        let key = self.key(task.pid, task.start_ns);
        if self.known.contains_key(&key) {
            let process = self.look_up(task.pid).filter(|it| self.tick_of(it) == Some(key.1));
            let Some(mut known) = self.known.remove(&key) else { return };
            known.record.comm = wire::text(&task.comm);
            known.record.is_as_called = process.is_none() && exe.is_some();
            known.record.exe = exe.filter(|_| process.is_none());
            self.read(&mut known.record, process.as_ref());
            self.known.insert(key, known);
            return;
        }
        self.notice(task).exe = exe;
    }

    /// The last thread of a process exits.
    pub fn exit(&mut self, task: &kt_task, boot_ns: u64) {
        self.notices += 1;
        match self.known.get_mut(&(task.pid, task.start_ns / self.tick_ns)) {
            Some(known) => known.exit_ns = Some(boot_ns),
            None => self.notice(task).exit_ns = Some(boot_ns),
        }
    }

    /// What is known by now, by pid and start. `utc_of`: the time that a boot time stands for.
    pub fn records(&self, utc_of: impl Fn(u64) -> DateTime<Utc>) -> Vec<ProcessRecord> {
        let record = |(key, known): (&Key, &Known)| {
            let mut record = known.record.clone();
            record.exit_at = known.exit_ns.map(&utc_of);
            let is_there = || self.look_up(record.pid).is_some_and(|it| self.tick_of(&it) == Some(key.1));
            if record.exit_at.is_none() && !(self.reads_proc && is_there()) {
                let reason = if self.reads_proc { Reason::Gone } else { Reason::SourceAbsent };
                record.why.insert("exit_at".into(), reason.text().into_owned());
            }
            record
        };
        let mut records: Vec<_> = self.known.iter().map(record).collect();
        records.sort_by_key(|it| (it.pid, it.proc_start_ns));
        records
    }

    /// For the manifest. `untold`: notices that were lost.
    pub fn report(&self, untold: u64) -> SourceReport {
        SourceReport {
            name: "processes".into(),
            outcome: if self.reads_proc { "answered" } else { "absent" }.into(),
            entries: Some(self.known.len() as u64),
            errors: Some(untold),
            error: (untold > 0).then(|| "notices of processes and cgroups were lost".into()),
            evicted: Some(self.evicted),
            ..SourceReport::default()
        }
    }

    fn key(&self, pid: u32, start_ns: u64) -> Key {
        (pid, start_ns / self.tick_ns)
    }

    fn add(&mut self, key: Key, known: Known) {
        if self.known.len() < MOST {
            self.known.insert(key, known);
        } else {
            self.evicted += 1;
        }
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
            let (key, known) = match self.look_up(pid) {
                Some(process) => {
                    let Some((tick, record)) =
                        self.ancestor(&process).filter(|(tick, _)| *tick <= child_ns / self.tick_ns)
                    else {
                        return;
                    };
                    ((pid, tick), Known { record, exit_ns: None })
                }
                None => {
                    let Some(it) = self.noticed.get(&pid).filter(|it| it.start_ns <= child_ns) else { return };
                    let mut record = ProcessRecord::new(pid, it.start_ns, it.ppid, it.comm.clone());
                    record.uid = Some(it.uid);
                    record.exe.clone_from(&it.exe);
                    record.is_as_called = record.exe.is_some();
                    let exit_ns = it.exit_ns;
                    self.read(&mut record, None);
                    (self.key(pid, record.proc_start_ns), Known { record, exit_ns })
                }
            };
            if self.known.contains_key(&key) {
                return;
            }
            (pid, child_ns) = (known.record.ppid, known.record.proc_start_ns);
            self.add(key, known);
        }
    }

    fn ancestor(&self, process: &Process) -> Option<(u64, ProcessRecord)> {
        let stat = process.stat().ok()?;
        let pid = u32::try_from(process.pid()).ok()?;
        let ppid = u32::try_from(stat.ppid).unwrap_or(0);
        let mut record = ProcessRecord::new(pid, stat.starttime * self.tick_ns, ppid, stat.comm);
        record.uid = process.status().ok().map(|it| it.ruid);
        self.read(&mut record, Some(process));
        Some((stat.starttime, record))
    }

    fn look_up(&self, pid: u32) -> Option<Process> {
        let pid = i32::try_from(pid).ok().filter(|_| self.reads_proc)?;
        Process::new(pid).ok()
    }

    fn tick_of(&self, process: &Process) -> Option<u64> {
        process.stat().ok().map(|stat| stat.starttime)
    }

    /// Adds what `/proc` tells of it, or why it does not.
    fn read(&self, record: &mut ProcessRecord, process: Option<&Process>) {
        let missing = if self.reads_proc { Reason::Gone } else { Reason::SourceAbsent };
        let mut is_cut = false;
        let mut set = |key: &str, slot: &mut Option<String>, found: Result<String, Reason>| {
            record.why.remove(key);
            match found {
                Ok(text) => *slot = Some(clip(&text, &mut is_cut)),
                Err(_) if slot.is_some() => {}
                Err(reason) => drop(record.why.insert(key.into(), reason.text().into_owned())),
            }
            if std::mem::take(&mut is_cut) {
                record.why.insert(key.into(), Reason::Truncated.text().into_owned());
            }
        };
        let exe = process.ok_or(missing.clone()).and_then(|it| it.exe().map_err(|e| reason(&e)));
        set("exe", &mut record.exe, exe.map(|it| it.to_string_lossy().into_owned()));
        if self.with_cmdline {
            let cmdline = process.ok_or(missing).and_then(|it| it.cmdline().map_err(|e| reason(&e)));
            set("cmdline", &mut record.cmdline, cmdline.map(|it| it.join(" ")));
        }
    }
}

fn reason(error: &ProcError) -> Reason {
    match error {
        ProcError::PermissionDenied(_) => Reason::NoPermission,
        // threads of the kernel run no file
        ProcError::NotFound(_) => Reason::NotFound,
        _ => Reason::SourceError,
    }
}

/// The first bytes of a text, whole characters of it.
fn clip(text: &str, is_cut: &mut bool) -> String {
    let end = text.floor_char_boundary(LONGEST_TEXT);
    *is_cut = end < text.len();
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[path = "processes/processes_tests.rs"]
mod tests;
