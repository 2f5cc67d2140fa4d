//! Asks the sources of names, in the background: on threads of its own, so that one that is slow, stopped or gone never
//! keeps an event waiting. They are asked at the start, when a container is seen whose name is not known or begins as its
//! runtime tells, and at the end.

mod notices;

use std::cell::OnceCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ktrace_bundle::workload::Via;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::cri::{self, Runtime};
use super::names::{Names, Span};
use super::peers::Addresses;
use super::source::{Failure, Source};

/// Between two looks at a source: longer where a look takes long, but never so long that the events of a new container, which
/// wait for its name, would wait in vain.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];
/// The same after one that failed, and where nobody is.
const PAUSE_OF_FAILED: Duration = Duration::from_millis(500);
const PAUSE_OF_ABSENT: Duration = Duration::from_secs(1);

/// So long a look asks for addresses: names of new containers wait meanwhile, and their events for these.
const LOCATING: Duration = Duration::from_millis(200);

/// A directory whose files tell names, and how they do.
#[derive(Debug, Clone)]
pub struct Directory {
    /// What it is.
    pub via: Via,
    /// Where it is; in it is one named `pods`.
    pub root: PathBuf,
    /// Looks at all that is there now.
    pub read: fn(&Path) -> io::Result<Names>,
}

/// An answer: names, and the source's version if it has one.
type Answer = Result<(Names, Option<String>), Failure>;

/// The sources and the thread that asks them, which begins when there is anybody to ask. Dropped, it is not waited for, as
/// nobody knows what they do: it ends by itself, or with the process.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    directories: Vec<Directory>,
    /// Whether the thread could be started.
    is_asking: OnceCell<bool>,
}

#[derive(Debug)]
struct Shared {
    slots: Vec<Slot>,
    /// Looks that are over, of all sources.
    looks: Mutex<u64>,
    looked: Condvar,
    /// Grows when a name is learnt.
    generation: AtomicU64,
    /// Whether there is anybody to ask, as far as is known.
    anybody: AtomicBool,
    over: Notify,
}

#[derive(Debug)]
struct Slot {
    source: Mutex<Source>,
    asked: Notify,
}

impl Watch {
    /// Begins to ask the runtimes at these sockets, and to read these directories. What an earlier one knows is not
    /// asked of a later one. Where none is there, nothing begins before a name is missing.
    pub fn start(sockets: &[String], directories: Vec<Directory>) -> Self {
        let runtimes = sockets.iter().map(|socket| Source::new(Via::Cri, socket.clone()));
        let read = directories.iter().map(|it| Source::new(it.via, it.root.to_string_lossy().into_owned()));
        let slot = |source| Slot { source: Mutex::new(source), asked: Notify::new() };
        let shared = Arc::new(Shared {
            slots: runtimes.chain(read).map(slot).collect(),
            looks: Mutex::new(0),
            looked: Condvar::new(),
            generation: AtomicU64::new(0),
            anybody: AtomicBool::new(true),
            over: Notify::new(),
        });
        let is_there = sockets.iter().any(|path| Path::new(path).exists())
            || directories.iter().any(|directory| directory.root.join("pods").exists());
        let watch = Self { shared, directories, is_asking: OnceCell::new() };
        if is_there {
            watch.ask();
        } else {
            watch.shared.fail(&Failure::io(&io::ErrorKind::NotFound.into()));
        }
        watch
    }

    /// Asks all sources again; returns at once.
    pub fn ask(&self) {
        self.is_asking.get_or_init(|| self.begin());
        self.shared.slots.iter().for_each(|slot| slot.asked.notify_one());
    }

    /// The same of those that did not answer the last time.
    pub fn ask_those_that_failed(&self) {
        let failed = self.shared.slots.iter().filter(|slot| lock(&slot.source).has_failed());
        failed.for_each(|slot| slot.asked.notify_one());
    }

    fn begin(&self) -> bool {
        let (shared, directories) = (Arc::clone(&self.shared), self.directories.clone());
        let thread = std::thread::Builder::new().name("names".into()).spawn(move || tend(shared, directories));
        thread.map_err(|e| self.shared.fail(&Failure::io(&e))).is_ok()
    }

    /// Asks all sources again, and waits until each has answered or failed to, but not longer than this.
    pub fn ask_and_wait(&self, longest: Duration) {
        let wanted: Vec<u64> = self.sources(|source| source.next_look()).collect();
        self.ask();
        self.wait(&wanted, longest);
    }

    /// Waits until each source has been asked once, but not longer than this.
    pub fn wait_for_first(&self, longest: Duration) {
        self.wait(&vec![1; self.shared.slots.len()], longest);
    }

    fn wait(&self, wanted: &[u64], longest: Duration) {
        let begin = Instant::now();
        let has_looked = |(slot, number): (&Slot, &u64)| lock(&slot.source).has_looked(*number);
        let mut looks = lock(&self.shared.looks);
        while self.is_asking() && !self.shared.slots.iter().zip(wanted).all(has_looked) {
            let Some(left) = longest.checked_sub(begin.elapsed()) else { return };
            looks = self.shared.looked.wait_timeout(looks, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_asking(&self) -> bool {
        self.is_asking.get() == Some(&true)
    }

    /// Grows when a name is learnt.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Whether there is anybody to ask.
    pub fn has_anybody(&self) -> bool {
        self.shared.anybody.load(Ordering::Relaxed)
    }

    /// When this container was made and ended, as far as anybody has told.
    pub fn span(&self, id: &str) -> Span {
        self.sources(|source| source.span(id)).fold(Span::default(), |known, it| Span {
            created_at: known.created_at.or(it.created_at),
            ended_at: known.ended_at.or(it.ended_at),
        })
    }

    /// Each source, one after the other.
    pub fn sources<T>(&self, f: impl Fn(&Source) -> T) -> impl Iterator<Item = T> {
        self.shared.slots.iter().map(move |slot| f(&lock(&slot.source)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.over.notify_one();
    }
}

impl Shared {
    fn take(&self, slot: &Slot, answer: Answer, took: Duration) -> Duration {
        let mut source = lock(&slot.source);
        let is_new = source.take(answer, took);
        let pause = match (source.is_absent(), source.has_failed()) {
            (true, _) => PAUSE_OF_ABSENT,
            (_, true) => PAUSE_OF_FAILED,
            _ => took.clamp(PAUSES[0], PAUSES[1]),
        };
        drop(source);
        if is_new {
            self.generation.fetch_add(1, Ordering::Release);
        }
        let anybody = self.slots.iter().any(|slot| !lock(&slot.source).is_absent());
        self.anybody.store(anybody, Ordering::Relaxed);
        *lock(&self.looks) += 1;
        self.looked.notify_all();
        pause
    }

    fn locate(&self, slot: &Slot, addresses: Addresses) {
        if lock(&slot.source).locate(addresses) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Nobody can be asked.
    fn fail(&self, failure: &Failure) {
        for slot in &self.slots {
            lock(&slot.source).begin();
            self.take(slot, Err(failure.clone()), Duration::ZERO);
        }
    }
}

fn tend(shared: Arc<Shared>, directories: Vec<Directory>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(e) => return shared.fail(&Failure::io(&e)),
    };
    runtime.block_on(async {
        let runtimes = shared.slots.len().saturating_sub(directories.len());
        for at in 0..runtimes {
            tokio::spawn(tend_runtime(Arc::clone(&shared), at));
        }
        for (directory, at) in directories.into_iter().zip(runtimes..) {
            tokio::spawn(tend_directory(Arc::clone(&shared), at, directory));
        }
        shared.over.notified().await;
    });
    // directories that are still being read are left to themselves
    runtime.shutdown_background();
}

async fn tend_runtime(shared: Arc<Shared>, at: usize) {
    let Some(slot) = shared.slots.get(at) else { return };
    let socket = lock(&slot.source).address().to_owned();
    let (mut runtime, mut listener) = (None, None::<JoinHandle<()>>);
    loop {
        let began = slot.begin().await;
        let was_known = runtime.is_some();
        let answer = timeout(cri::LONGEST, ask(&mut runtime, &socket)).await;
        let answer = answer.unwrap_or_else(|_| Err(Failure::timeout(cri::LONGEST)));
        if answer.is_err() {
            // whoever answers next may be another one
            runtime = None;
        }
        if let Some(found) = runtime.as_ref().filter(|_| !was_known) {
            lock(&slot.source).speaks(found.via);
            let listen = |channel| tokio::spawn(notices::listen(Arc::clone(&shared), at, channel));
            if let Some(before) = std::mem::replace(&mut listener, found.events().map(listen)) {
                before.abort();
            }
        }
        // at the start whoever waits for names waits for addresses, too; later names come first
        let located = if was_known { None } else { locate(&shared, slot, runtime.as_mut()).await };
        let pause = shared.take(slot, answer, began.elapsed());
        let is_all = match located {
            Some(is_all) => is_all,
            None => locate(&shared, slot, runtime.as_mut()).await.unwrap_or(true),
        };
        if !is_all {
            slot.asked.notify_one();
        }
        sleep(pause).await;
    }
}

/// Learns what can be learnt in a moment of who has which address; returns whether that is all. What is missing the next
/// look asks for.
async fn locate(shared: &Shared, slot: &Slot, runtime: Option<&mut Runtime>) -> Option<bool> {
    let runtime = runtime?;
    // what was answered until then stays known
    let is_all = timeout(LOCATING, runtime.ask_for_addresses()).await.unwrap_or(false);
    shared.locate(slot, runtime.addresses());
    Some(is_all)
}

async fn ask(runtime: &mut Option<Runtime>, socket: &str) -> Answer {
    let runtime = match runtime {
        Some(runtime) => runtime,
        None => runtime.insert(Runtime::connect(socket).await?),
    };
    Ok((runtime.names().await?, Some(runtime.version.clone())))
}

async fn tend_directory(shared: Arc<Shared>, at: usize, Directory { root, read, .. }: Directory) {
    let Some(slot) = shared.slots.get(at) else { return };
    // a disk can hang: one look at a time, on a thread that nobody waits for longer than for an answer
    let mut reading: Option<JoinHandle<io::Result<Names>>> = None;
    loop {
        let began = slot.begin().await;
        let root = root.clone();
        let look = reading.get_or_insert_with(|| spawn_blocking(move || read(&root)));
        let answer = match timeout(cri::LONGEST, look).await {
            Err(_) => Err(Failure::timeout(cri::LONGEST)),
            Ok(looked) => {
                reading = None;
                // that it panicked has been said on stderr
                let names = looked.unwrap_or_else(|e| Err(io::Error::other(e)));
                names.map(|names| (names, None)).map_err(|e| Failure::io(&e))
            }
        };
        let pause = shared.take(slot, answer, began.elapsed());
        sleep(pause).await;
    }
}

impl Slot {
    /// Waits until it is asked for.
    async fn begin(&self) -> Instant {
        self.asked.notified().await;
        lock(&self.source).begin();
        Instant::now()
    }
}

/// What a panic left behind is still whole: names are replaced one by one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "watch/watch_tests.rs"]
mod tests;
