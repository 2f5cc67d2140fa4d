//! Runs a tool of the system and hands on what it prints, as it comes: for so long and so many bytes at most, then it is
//! killed and reaped. No shell, no environment, no search in directories that others choose.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Where tools are looked for.
const PATH: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// Bytes of what a tool prints.
const MOST_OUTPUT: usize = 32 << 20;
/// Bytes of what it says about a failure.
const MOST_WORDS: usize = 256;
/// A line that is longer is skipped. iptables prints 3 KiB at most.
const LONGEST_LINE: usize = 64 << 10;
/// How often it is asked whether it has ended, once its output has.
const STEP: Duration = Duration::from_millis(1);

/// The first tool of these names that only root can have put there.
///
/// # Errors
/// Why there is none, in words.
pub fn locate(names: &[&str]) -> Result<PathBuf, String> {
    let mut why = None;
    for path in names.iter().flat_map(|name| PATH.iter().map(move |dir| Path::new(dir).join(name))) {
        let Ok(meta) = path.metadata() else { continue };
        let mode = meta.permissions().mode();
        if meta.is_file() && meta.uid() == 0 && mode & 0o022 == 0 && mode & 0o111 != 0 {
            return Ok(path);
        }
        why.get_or_insert_with(|| format!("`{}` is not run: others than root may change it", path.display()));
    }
    Err(why.unwrap_or_else(|| format!("`{}` is not installed", names.join("` or `"))))
}

/// Runs `path` and returns what `parse` makes of its output.
///
/// # Errors
/// Why there is no answer, in words. It is not running any more.
pub fn run<T>(
    path: &Path,
    args: &[&str],
    longest: Duration,
    parse: impl FnOnce(&mut dyn BufRead) -> io::Result<T>,
) -> Result<T, String> {
    let end = Instant::now() + longest;
    if longest.is_zero() {
        return Err(format!("no time was left for `{}`", path.display()));
    }
    let mut command = Command::new(path);
    command.args(args).env_clear().env("LC_ALL", "C").current_dir("/");
    // a group of its own: it is not interrupted with ktrace, and what it starts is killed with it
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let name = path.display();
    let mut child = command.spawn().map_err(|e| format!("`{name}` cannot be started: {e}"))?;
    let parsed = match child.stdout.take() {
        Some(pipe) => parse(&mut BufReader::with_capacity(64 << 10, Output { pipe, end, left: MOST_OUTPUT })),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let ended = ended(&mut child, end, parsed.is_ok());
    let words = child.stderr.take().map_or_else(String::new, words);
    match (parsed, ended) {
        (Ok(answer), Some(status)) if status.success() => Ok(answer),
        (Err(e), _) if e.kind() == io::ErrorKind::TimedOut => Err(late(path)),
        (Err(e), _) if e.kind() == io::ErrorKind::FileTooLarge => Err(format!("`{name}` prints more than 32 MiB")),
        (_, Some(status)) if status.code().is_some_and(|code| code != 0) => Err(format!("`{name}`: {status}{words}")),
        (Err(e), _) => Err(format!("what `{name}` prints cannot be read: {e}{words}")),
        (Ok(_), Some(status)) => Err(format!("`{name}`: {status}{words}")),
        (Ok(_), None) => Err(late(path)),
    }
}

fn late(path: &Path) -> String {
    format!("`{}` has not ended in time", path.display())
}

/// How it ended by itself; one that has not is killed. Its output is over, or nobody reads it.
fn ended(child: &mut Child, end: Instant, is_read: bool) -> Option<ExitStatus> {
    // one that was cut off, or prints what it should not, mostly ends at once; its exit code says more than the cut
    let end = if is_read { end } else { end.min(Instant::now() + 10 * STEP) };
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(STEP),
            _ => break,
        }
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // what is left of the group; it may be gone by now
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
    None
}

/// The beginning of what it said, if anything, after it has ended: `: …`.
fn words(mut pipe: ChildStderr) -> String {
    // what it started may still hold the other end
    if fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_err() {
        return String::new();
    }
    let mut bytes = [0; MOST_WORDS];
    let held = pipe.read(&mut bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(..held).unwrap_or_default());
    match text.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!(": {}", line.chars().filter(|c| !c.is_control()).collect::<String>()),
        None => String::new(),
    }
}

/// What a tool prints, until it is too late or too much.
struct Output {
    pipe: std::process::ChildStdout,
    end: Instant,
    left: usize,
}

impl Read for Output {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        loop {
            let left = self.end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut pipes = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
            match poll(&mut pipes, timeout) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        let most = into.len().min(self.left);
        let held = self.pipe.read(into.get_mut(..most).unwrap_or_default())?;
        self.left -= held;
        Ok(held)
    }
}

/// A file of procfs, as far as a tool may print.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: impl AsRef<Path>) -> io::Result<BufReader<io::Take<File>>> {
    Ok(BufReader::with_capacity(64 << 10, File::open(path)?.take(MOST_OUTPUT as u64)))
}

/// Calls `each` with every line that is not too long, without its end.
///
/// # Errors
/// Reading failed.
pub fn lines(text: &mut dyn BufRead, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    let mut is_rest = false;
    loop {
        line.clear();
        let held = (&mut *text).take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
        if held == 0 {
            return Ok(());
        }
        let is_whole = line.last() == Some(&b'\n');
        if is_whole || held < LONGEST_LINE {
            if !is_rest {
                each(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            }
            is_rest = false;
        } else {
            is_rest = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, ms: u64) -> Result<String, String> {
        run(Path::new("/bin/sh"), &["-c", script], Duration::from_millis(ms), |out| {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        })
    }

    #[test]
    fn a_tool_has_no_input_and_no_environment_but_a_plain_language() {
        assert_eq!(sh("cat; echo $LC_ALL $HOME; pwd", 10_000), Ok("C\n/\n".into()));
    }

    #[test]
    fn a_tool_that_fails_is_told_by_its_exit_code_and_its_words() {
        let refused = sh("echo some; echo 'not \u{1b}[31mpermitted' >&2; echo more >&2; exit 3", 10_000).unwrap_err();
        assert_eq!(refused, "`/bin/sh`: exit status: 3: not [31mpermitted");
        let killed = sh("kill -9 $$", 10_000).unwrap_err();
        assert!(killed.starts_with("`/bin/sh`: signal: 9"), "{killed}");
        let missing = run(Path::new("/nonexistent"), &[], Duration::from_secs(9), |_| Ok(())).unwrap_err();
        assert!(missing.starts_with("`/nonexistent` cannot be started: No such file"), "{missing}");
    }

    #[test]
    fn one_that_hangs_is_killed_with_what_it_started() {
        let begin = Instant::now();
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 60 & echo $$ $! > {}; echo some; wait", pids.display());
        assert_eq!(sh(&script, 300).unwrap_err(), "`/bin/sh` has not ended in time");
        assert_eq!(sh("exec >&-; sleep 60", 100).unwrap_err(), "`/bin/sh` has not ended in time");
        assert!(begin.elapsed() < Duration::from_secs(20));
        for pid in std::fs::read_to_string(pids).unwrap().split_whitespace() {
            // the child of one that was killed may wait for its new parent to notice
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(state.is_empty() || state.contains(") Z") || state.contains(") X"), "{state}");
        }
    }

    #[test]
    fn one_that_prints_without_end_is_cut_off() {
        assert_eq!(sh("yes", 60_000).unwrap_err(), "`/bin/sh` prints more than 32 MiB");
    }

    #[test]
    fn what_is_not_understood_is_put_down_to_the_tool() {
        let odd = run(Path::new("/bin/echo"), &["x"], Duration::from_secs(9), |_| {
            Err::<(), _>(io::Error::new(io::ErrorKind::InvalidData, "no JSON"))
        });
        assert_eq!(odd.unwrap_err(), "what `/bin/echo` prints cannot be read: no JSON");
    }

    #[test]
    fn only_tools_of_root_are_found() {
        assert_eq!(locate(&["sh"]), Ok("/usr/bin/sh".into()));
        assert_eq!(locate(&["no-such-tool", "sh"]), Ok("/usr/bin/sh".into()));
        assert_eq!(locate(&["no-such-tool"]), Err("`no-such-tool` is not installed".into()));
    }

    #[test]
    fn lines_that_are_too_long_are_skipped() {
        let text = format!("a\n{}\nb\r\n{}\n\nc", "x".repeat(LONGEST_LINE), "y".repeat(3 * LONGEST_LINE));
        let mut found = Vec::new();
        lines(&mut text.as_bytes(), |line| found.push(line.to_owned())).unwrap();
        assert_eq!(found, ["a", "b\r", "", "c"]);
    }
}
