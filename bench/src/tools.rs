//! The watchers: how each is started, known to be watching, and stopped.
//!
//! `ktrace` says itself when its window is open. The others are given traffic until their output grows.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ktrace_bundle::manifest::Manifest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::BenchError;
use crate::load::{Kind, cpu_time_of};

/// Start and stop each have this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Output of a tool that is watching: more than its banner, and than one flush of its buffer.
const WATCHING_BYTES: u64 = 32 * 1024;
/// Between two looks at a file or a process.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A tool of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// This project's collector, with all its hooks.
    Ktrace,
    /// bpftrace with the script of this folder.
    Bpftrace,
    /// `tcpstates` of libbpf-tools.
    Tcpstates,
}

impl Tool {
    /// All that have something to say about `kind`.
    pub const fn for_kind(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Tcp => &[Self::Ktrace, Self::Bpftrace, Self::Tcpstates],
            Kind::Udp => &[Self::Ktrace, Self::Bpftrace],
        }
    }

    /// As the table shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ktrace => "ktrace",
            Self::Bpftrace => "bpftrace, printing",
            Self::Tcpstates => "tcpstates (libbpf-tools)",
        }
    }

    fn command(self, kind: Kind, place: &Place) -> Result<Command, BenchError> {
        let mut command = match self {
            Self::Ktrace => {
                let mut command = Command::new(&place.ktrace);
                command.args(["--duration=1h", "--quiet", "--max-events=1000000000", "--max-bytes=64GiB"]);
                command.arg("--out-dir").arg(&place.work).arg("--ready-file").arg(place.ready_file());
                command
            }
            Self::Bpftrace => {
                let script = match kind {
                    Kind::Tcp => include_str!("../tcp.bt"),
                    Kind::Udp => include_str!("../udp.bt"),
                };
                let mut command = Command::new("bpftrace");
                command.args(["-e", script]);
                command
            }
            Self::Tcpstates => Command::new("tcpstates"),
        };
        let out = |path: PathBuf| File::create(path).map_err(BenchError::io("output of a tool"));
        command.stdin(Stdio::null()).stdout(out(place.output())?).stderr(out(place.talk())?);
        Ok(command)
    }
}

/// Where the tools leave their files.
pub struct Place {
    /// Empty folder, best in memory; a tool's files are removed when it has stopped.
    pub work: PathBuf,
    /// The `ktrace` program.
    pub ktrace: PathBuf,
}

impl Place {
    fn ready_file(&self) -> PathBuf {
        self.work.join("ready")
    }

    fn output(&self) -> PathBuf {
        self.work.join("stdout")
    }

    fn talk(&self) -> PathBuf {
        self.work.join("stderr")
    }

    fn empty(&self) -> std::io::Result<()> {
        std::fs::remove_dir_all(&self.work)?;
        std::fs::create_dir(&self.work)
    }
}

/// What a tool says about itself after it has stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Events that it saw.
    pub seen: u64,
    /// Events that it did not write, for whatever reason, and those that its programs missed.
    pub lost: u64,
}

/// A tool that is watching. Dropped without [`Watching::stop`], it is killed.
pub struct Watching<'a> {
    tool: Tool,
    child: Child,
    place: &'a Place,
}

impl<'a> Watching<'a> {
    /// Starts a tool and returns when it watches; `drive` makes a little traffic for those that cannot say so.
    ///
    /// # Errors
    /// [`BenchError::Tool`] with its last words when it ended or did not start to watch in a minute.
    pub fn start(
        tool: Tool,
        kind: Kind,
        place: &'a Place,
        mut drive: impl FnMut() -> Result<(), BenchError>,
    ) -> Result<Self, BenchError> {
        let child = tool.command(kind, place)?.spawn();
        let child = child.map_err(|e| BenchError::Tool { name: tool.name(), why: e.to_string() })?;
        let mut watching = Self { tool, child, place };
        let deadline = Instant::now() + PATIENCE;
        while !watching.is_watching() {
            let ended = watching.child.try_wait().map_err(BenchError::io("state of a tool"))?;
            if let Some(status) = ended {
                return Err(watching.failure(&format!("it ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(watching.failure("it did not begin to watch"));
            }
            match tool {
                Tool::Ktrace => std::thread::sleep(LOOK_EVERY),
                Tool::Bpftrace | Tool::Tcpstates => drive()?,
            }
        }
        Ok(watching)
    }

    fn is_watching(&self) -> bool {
        match self.tool {
            Tool::Ktrace => self.place.ready_file().exists(),
            Tool::Bpftrace | Tool::Tcpstates => {
                self.place.output().metadata().is_ok_and(|file| file.len() > WATCHING_BYTES)
            }
        }
    }

    /// CPU time that the tool itself has used.
    ///
    /// # Errors
    /// [`BenchError::Io`] when it is gone.
    pub fn cpu_time(&self) -> Result<Duration, BenchError> {
        cpu_time_of(&self.child)
    }

    /// Stops the tool, reads its account where it keeps one, and removes its files.
    ///
    /// # Errors
    /// [`BenchError::Tool`] when it does not end in a minute or its account cannot be read.
    pub fn stop(mut self) -> Result<Option<Account>, BenchError> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT).map_err(|e| self.failure(&format!("cannot stop it: {e}")))?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().map_err(BenchError::io("state of a tool"))?.is_none() {
            if Instant::now() > deadline {
                return Err(self.failure("it did not stop"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let account = match self.tool {
            Tool::Ktrace => Some(account(&self.place.output()).map_err(|why| self.failure(&why))?),
            Tool::Bpftrace | Tool::Tcpstates => None,
        };
        self.place.empty().map_err(BenchError::io("remove a tool's files"))?;
        Ok(account)
    }

    fn failure(&self, what: &str) -> BenchError {
        let talk = std::fs::read_to_string(self.place.talk()).unwrap_or_default();
        let last = talk.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        BenchError::Tool { name: self.tool.name(), why: format!("{what}: {last}") }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        // after `stop` both fail, as it is gone
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ledger of the bundle whose path is the only line of `output`.
fn account(output: &Path) -> Result<Account, String> {
    let path = std::fs::read_to_string(output).map_err(|e| e.to_string())?;
    let Some(loose) = path.trim_end().strip_suffix(".bundle.tgz") else {
        return Err("it did not name a bundle".into());
    };
    let manifest = std::fs::read(Path::new(loose).join("manifest.json")).map_err(|e| e.to_string())?;
    let ledger = serde_json::from_slice::<Manifest>(&manifest).map_err(|e| e.to_string())?.ledger;
    Ok(Account { seen: ledger.seen, lost: ledger.dropped_total() + ledger.missed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_without_a_bundle_is_a_failure_not_an_empty_account() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("stdout");
        std::fs::write(&output, "").unwrap();
        assert_eq!(account(&output), Err("it did not name a bundle".into()));
    }
}
