//! Owners and those above them, from notices and from `/proc`.

use ktrace_bundle::attribution::OwnerSource;

use super::*;

const MS: u64 = 1_000_000;

fn task(pid: u32, ppid: u32, start_ns: u64, name: &str) -> kt_task {
    let mut comm = [0; 16];
    comm.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from.cast_signed());
    kt_task { pid, tid: pid, ppid, start_ns, comm, ..kt_task::default() }
}

fn owner(pid: u32, ppid: u32, start_ns: u64, name: &str) -> Owner {
    Owner {
        source: OwnerSource::Current,
        pid,
        tid: None,
        ppid: Some(ppid),
        uid: Some(7),
        gid: None,
        comm: name.into(),
        thread: None,
        proc_start_ns: Some(start_ns),
        mnt_ns: None,
        pid_ns: None,
        user_ns: None,
        sec: None,
        cgroup_id: None,
    }
}

fn utc(boot_ns: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(i64::try_from(boot_ns).unwrap())
}

fn all(processes: &mut Processes) -> Vec<ProcessRecord> {
    let mut records = Vec::new();
    processes.each(utc, |record| records.push(record));
    records
}

fn records(processes: &mut Processes) -> Vec<(u32, u32, Option<String>, Option<u64>)> {
    let ended = |it: &ProcessRecord| it.exit_at.map(|at| at.timestamp_nanos_opt().unwrap().unsigned_abs());
    all(processes).into_iter().map(|it| (it.pid, it.ppid, it.exe.clone(), ended(&it))).collect()
}

#[test]
fn what_was_noticed_names_an_owner_and_those_above_it() {
    let mut processes = Processes::new(false, false);
    processes.exec(&task(20, 1, 10 * MS, "sh"), Some("/bin/sh".into()));
    processes.exec(&task(21, 20, 40 * MS, "curl"), Some("/bin/curl".into()));
    processes.exit(&task(21, 20, 40 * MS, "curl"), 90 * MS);
    processes.exit(&task(22, 1, 40 * MS, "other"), 91 * MS);
    processes.see(&owner(21, 20, 40 * MS, "curl"), Hierarchy::V2);
    processes.exit(&task(20, 1, 10 * MS, "sh"), 95 * MS);
    let sh = (20, 1, Some("/bin/sh".into()), Some(95 * MS));
    assert_eq!(records(&mut processes), [sh, (21, 20, Some("/bin/curl".into()), Some(90 * MS))]);
}

#[test]
fn a_parent_whose_notice_comes_after_the_line_of_its_child_is_listed() {
    let mut processes = Processes::new(false, false);
    processes.see(&owner(22, 21, 40 * MS, "curl"), Hierarchy::V2);
    processes.exec(&task(20, 1, 10 * MS, "sh"), Some("/bin/sh".into()));
    processes.exit(&task(21, 20, 30 * MS, "env"), 90 * MS);
    let (sh, env) = ((20, 1, Some("/bin/sh".into()), None), (21, 20, None, Some(90 * MS)));
    assert_eq!(records(&mut processes), [sh, env, (22, 21, None, None)]);
}

/// A process that has ended is in `/proc` until its parent asks how.
#[test]
fn one_that_has_ended_and_is_still_in_proc_keeps_what_was_noticed() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let ended = || Process::new(child.id() as i32).unwrap().stat().unwrap().state == 'Z';
    while !ended() {
        std::thread::yield_now();
    }
    let mut processes = Processes::new(true, false);
    let zombie = processes.look_up(child.id()).unwrap();
    let start_ns = processes.tick_of(&zombie).unwrap() * processes.tick_ns;
    let of_zombie = task(child.id(), std::process::id(), start_ns + 1, "true");
    processes.exec(&of_zombie, Some("/bin/true".into()));
    processes.exit(&of_zombie, start_ns + MS);
    processes.see(&owner(u32::MAX, child.id(), start_ns + MS, "below"), Hierarchy::V2);
    let records = records(&mut processes);
    let found = records.iter().find(|it| it.0 == child.id()).unwrap();
    assert_eq!((found.2.as_deref(), found.3), (Some("/bin/true"), Some(start_ns + MS)));
    child.wait().unwrap();
}

#[test]
fn another_process_with_the_same_pid_lends_it_nothing() {
    let mut processes = Processes::new(false, false);
    processes.exec(&task(20, 1, 50 * MS, "sh"), Some("/bin/sh".into()));
    processes.exit(&task(21, 20, 10 * MS, "old"), 20 * MS);
    processes.see(&owner(21, 20, 40 * MS, "curl"), Hierarchy::V2);
    // the parent of one that began at 40 ms did not begin at 50
    assert_eq!(records(&mut processes), [(21, 20, None, None)]);
    // nor one that had ended
    processes.exec(&task(30, 1, 10 * MS, "old"), Some("/bin/old".into()));
    processes.exit(&task(30, 1, 10 * MS, "old"), 20 * MS);
    processes.see(&owner(31, 30, 40 * MS, "curl"), Hierarchy::V2);
    assert_eq!(records(&mut processes).len(), 2);
    let why = &all(&mut processes)[0].why;
    assert_eq!((why["exe"].as_str(), why["exit_at"].as_str()), ("source_absent", "source_absent"));
}

#[test]
fn what_runs_something_else_later_is_called_so() {
    let mut processes = Processes::new(false, false);
    processes.see(&owner(21, 0, 40 * MS, "sh"), Hierarchy::V2);
    processes.exec(&task(21, 0, 40 * MS, "curl"), Some("/bin/curl".into()));
    let record = all(&mut processes).remove(0);
    assert_eq!((&*record.comm, record.exe.as_deref(), record.is_as_called), ("curl", Some("/bin/curl"), true));
    assert!(!record.why.contains_key("exe"), "{record:?}");
}

#[test]
fn both_tables_are_bounded_and_what_finds_no_room_is_counted() {
    let mut processes = Processes::new(false, false);
    for pid in 1..=(MOST_NOTICED as u32 + 10) {
        processes.exec(&task(pid, 0, MS, "a"), None);
    }
    assert_eq!((processes.noticed.len(), processes.order.len()), (MOST_NOTICED, MOST_NOTICED));
    assert!(!processes.noticed.contains_key(&10) && processes.noticed.contains_key(&11), "the oldest made room");
    for pid in 1..=(MOST as u32 + 5) {
        processes.see(&owner(pid, 0, MS, "a"), Hierarchy::V2);
    }
    // each is counted once, however often it is met
    (1..=(MOST as u32 + 5)).for_each(|pid| processes.see(&owner(pid, 0, MS, "a"), Hierarchy::V2));
    assert_eq!((processes.known.len(), processes.report(3).evicted), (MOST, Some(5)));
    assert_eq!(processes.report(3).errors, Some(3));
}

#[test]
fn this_process_is_read_from_proc_with_those_above_it() {
    let own = Process::myself().unwrap();
    let start_ns = own.stat().unwrap().starttime * 10 * MS + 1;
    let pid = std::process::id();
    let mut processes = Processes::new(true, true);
    processes.see(&owner(pid, std::os::unix::process::parent_id(), start_ns, "test"), Hierarchy::V2);
    let records = all(&mut processes);
    let record = records.iter().find(|it| it.pid == pid).unwrap();
    assert_eq!((record.proc_start_ns, record.exe.as_deref()), (start_ns, std::env::current_exe().unwrap().to_str()));
    assert!(record.cmdline.is_some() && record.exit_at.is_none() && record.why.is_empty(), "{record:?}");
    assert!(records.iter().any(|it| it.pid == std::os::unix::process::parent_id()));
}

#[test]
fn a_long_path_is_cut_between_two_characters() {
    let (mut texts, mut why) = (HashSet::new(), BTreeMap::new());
    let whole = Text::clip(&mut texts, "/bin/sh");
    assert_eq!(tell(&Ok(whole), "exe", &mut why).as_deref(), Some("/bin/sh"));
    assert!(why.is_empty());
    let long = format!("{}\u{e9}", "x".repeat(LONGEST_TEXT - 1));
    let cut = Text::clip(&mut texts, &long);
    assert_eq!(tell(&Ok(cut), "exe", &mut why).map(|it| it.len()), Some(LONGEST_TEXT - 1));
    assert_eq!(why["exe"], "truncated");
}
