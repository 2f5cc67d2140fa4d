//! A child process whose stdout is read line by line while it runs. It is killed on drop, and dies with this
//! process in any case.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use ktrace_traffic::{Ready, Truth};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{DEADLINE, until};

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    ended: bool,
}

/// A running program.
#[derive(Debug)]
pub struct Program {
    what: String,
    child: Child,
    stdout: Arc<Mutex<Lines>>,
    stderr: Arc<Mutex<Lines>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Lines of stdout.
    pub stdout: Vec<String>,
    /// Lines of stderr.
    pub stderr: Vec<String>,
}

impl Ended {
    /// The lines of a traffic program, after it has succeeded.
    pub fn truths(&self) -> Vec<Truth> {
        assert!(self.status.success(), "{self:?}");
        self.stdout.iter().map(|line| Truth::parse(line).unwrap()).collect()
    }
}

/// `program` as a command that dies with the thread that starts it.
pub fn mortal(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

impl Program {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect(&what);
        let stdout = follow(child.stdout.take().unwrap());
        let stderr = follow(child.stderr.take().unwrap());
        Self { what, child, stdout, stderr }
    }

    /// Starts it and waits until it ends by itself.
    pub fn run(command: Command) -> Ended {
        Self::start(command).wait()
    }

    /// Process id; the wrappers that put the program into a namespace `exec` it, so that it is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The lines of stderr so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().all.clone()
    }

    /// Waits until stdout has `count` lines.
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        until(&format!("{count} lines of {}", self.what), DEADLINE, || {
            let lines = self.stdout.lock().unwrap();
            let enough = lines.all.len() >= count;
            assert!(enough || !lines.ended, "{} ended early: {:?}", self.what, self.stderr.lock().unwrap().all);
            enough.then(|| lines.all.clone())
        })
    }

    /// Waits until a traffic program is ready.
    pub fn ready(&self) -> Ready {
        match Truth::parse(&self.wait_for_lines(1)[0]).unwrap() {
            Truth::Ready(ready) => ready,
            other => panic!("{} began with {other:?}", self.what),
        }
    }

    /// Waits until a traffic program has printed `count` lines after its first, and returns those.
    pub fn truths(&self, count: usize) -> Vec<Truth> {
        let lines = self.wait_for_lines(count + 1);
        lines[1..=count].iter().map(|line| Truth::parse(line).unwrap()).collect()
    }

    /// Panics if it has ended, with what it said.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended early: {status}, {:?}", self.what, self.stderr.lock().unwrap().all);
        }
    }

    /// Waits until it has ended and its output is complete.
    pub fn wait(mut self) -> Ended {
        let status = until(&format!("the end of {}", self.what), 2 * DEADLINE, || self.child.try_wait().unwrap());
        let lines = |of: &Arc<Mutex<Lines>>| {
            until("the end of its output", DEADLINE, || {
                let mut lines = of.lock().unwrap();
                lines.ended.then(|| std::mem::take(&mut lines.all))
            })
        };
        let (stdout, stderr) = (lines(&self.stdout), lines(&self.stderr));
        Ended { status, stdout, stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // both fail only when it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn follow(pipe: impl std::io::Read + Send + 'static) -> Arc<Mutex<Lines>> {
    let lines = Arc::new(Mutex::new(Lines::default()));
    let shared = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            shared.lock().unwrap().all.push(String::from_utf8_lossy(&line).into_owned());
        }
        shared.lock().unwrap().ended = true;
    });
    lines
}
