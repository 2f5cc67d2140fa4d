//! Sources that hang, are not there, close every connection, or learn late.

use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::super::pod_logs;
use super::*;

fn logs(root: &Path) -> Directory {
    Directory { via: Via::PodLogs, root: root.to_owned(), read: pod_logs::read }
}

fn sockets(paths: &[&Path]) -> Vec<String> {
    paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn one_that_never_answers_keeps_nobody_waiting_and_is_said_to_be_slow() {
    let dir = tempfile::tempdir().unwrap();
    let silent = dir.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    let begin = Instant::now();
    let watch = Watch::start(&sockets(&[&silent]), vec![logs(dir.path())]);
    assert!(begin.elapsed() < cri::LONGEST / 2, "{:?}", begin.elapsed());
    watch.wait_for_first(3 * cri::LONGEST);
    let report = watch.sources(Source::report).next().unwrap();
    assert_eq!((&*report.outcome, report.errors), ("failed", Some(1)));
    assert_eq!(report.error.as_deref(), Some("no answer within 2 s"));
    // it is asked again, and nobody waits for the answer
    let begin = Instant::now();
    watch.ask();
    drop(watch);
    assert!(begin.elapsed() < cri::LONGEST / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_disk_that_hangs_keeps_neither_the_capture_nor_the_other_directory() {
    static HANGS: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    let (end, hangs) = mpsc::channel();
    *lock(&HANGS) = Some(hangs);
    let dir = tempfile::tempdir().unwrap();
    for sub in ["pods", "containers"] {
        std::fs::create_dir(dir.path().join(sub)).unwrap();
    }
    let read = |_: &Path| {
        let _ = lock(&HANGS).as_ref().map(mpsc::Receiver::recv);
        Ok(Names::default())
    };
    let hung = Directory { via: Via::KubeletDir, root: dir.path().to_owned(), read };
    let watch = Watch::start(&[], vec![hung, logs(dir.path())]);
    let begin = Instant::now();
    watch.wait_for_first(3 * cri::LONGEST);
    watch.ask_and_wait(cri::LONGEST / 4);
    let told: Vec<_> = watch.sources(Source::report).map(|it| (it.name, it.outcome, it.error)).collect();
    let failed = ("kubelet_dir".into(), "failed".into(), Some("no answer within 2 s".into()));
    assert_eq!(told, [failed, ("pod_logs".into(), "answered".into(), None)]);
    drop(watch);
    assert!(begin.elapsed() < 3 * cri::LONGEST, "{:?}", begin.elapsed());
    drop(end);
}

#[test]
fn where_nobody_is_nothing_is_waited_for() {
    let begin = Instant::now();
    let nowhere = Path::new("/nonexistent");
    let watch = Watch::start(&sockets(&[nowhere]), vec![logs(nowhere)]);
    watch.wait_for_first(cri::LONGEST);
    watch.ask_and_wait(cri::LONGEST);
    assert!(begin.elapsed() < cri::LONGEST / 2, "{:?}", begin.elapsed());
    assert!(!watch.has_anybody());
    let outcomes: Vec<_> = watch.sources(Source::report).map(|it| it.outcome).collect();
    assert_eq!(outcomes, ["absent", "absent"]);
}

#[test]
fn what_closes_every_connection_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let rude = dir.path().join("rude.sock");
    let listener = UnixListener::bind(&rude).unwrap();
    let thread = std::thread::spawn(move || drop(listener.accept()));
    let watch = Watch::start(&sockets(&[&rude]), vec![logs(dir.path())]);
    watch.wait_for_first(3 * cri::LONGEST);
    let report = watch.sources(Source::report).next().unwrap();
    assert_eq!((&*report.outcome, report.errors), ("failed", Some(1)), "{report:?}");
    drop(watch);
    thread.join().unwrap();
}

#[test]
fn names_that_come_later_are_told_by_the_generation() {
    const UID: &str = "0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10";
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("pods")).unwrap();
    std::fs::create_dir(dir.path().join("containers")).unwrap();
    let watch = Watch::start(&[], vec![logs(dir.path())]);
    watch.wait_for_first(cri::LONGEST);
    let before = watch.generation();
    std::fs::create_dir(dir.path().join(format!("pods/shop_api-1_{UID}"))).unwrap();
    watch.ask_and_wait(cri::LONGEST);
    assert!(watch.generation() > before);
    let mut workload = ktrace_bundle::workload::Workload::of_cgroup(UID.into());
    assert!(watch.sources(|source| source.has_looked(2)).all(|it| it));
    let named: Vec<_> = watch.shared.slots.iter().map(|slot| lock(&slot.source).name(&mut workload)).collect();
    assert_eq!((named, workload.pod.as_deref()), (vec![true], Some("api-1")));
}
