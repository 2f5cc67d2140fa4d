//! A kernel that refuses one program of ktrace: a seccomp filter hands each system call that loads or attaches a program
//! over to the test, which lets it go on, or answers it with an error where the program has the wrong name. ktrace
//! cannot tell it from a kernel or a security module that says no; nothing in it knows about this.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{seccomp_notif, seccomp_notif_resp, sock_filter, sock_fprog};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::kernel::{is_name_of, name_of_program};

/// Commands of `bpf(2)`, and how kernels before 5.15 attach a program to a perf event.
const PROG_LOAD: u32 = 5;
const RAW_TRACEPOINT_OPEN: u32 = 17;
const LINK_CREATE: u32 = 28;
const PERF_EVENT_IOC_SET_BPF: u32 = 0x4004_2408;

/// Place of `prog_name` in the attributes of `PROG_LOAD`, and of `prog_fd` in those of `RAW_TRACEPOINT_OPEN`.
const PROG_NAME: u64 = 48;
const PROG_FD: u64 = 8;

/// When a program is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// When it is handed to the verifier.
    Load,
    /// When it is attached to what it watches.
    Attach,
}

/// What is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// When.
    pub step: Step,
    /// Name of the program. At load only 15 letters of it are known, and all programs that share them are refused.
    pub program: &'static str,
    /// The answer.
    pub errno: i32,
    /// How often; from then on the kernel is willing.
    pub times: usize,
}

/// How often something was refused so far.
#[derive(Debug, Clone, Default)]
pub struct Refused(Arc<AtomicUsize>);

impl Refused {
    /// The number.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Refusal {
    /// From its first moment the command, and what it becomes, lives under a kernel that refuses this.
    pub fn impose(self, command: &mut Command) -> Refused {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let filter = self.filter();
        // SAFETY: what runs between fork and exec makes system calls, and allocates, which glibc allows there.
        unsafe { command.pre_exec(move || hand_over(&theirs, &filter)) };
        let refused = Refused::default();
        let counter = refused.clone();
        std::thread::spawn(move || {
            let listener = take_over(&ours);
            drop(ours);
            self.supervise(&listener, &counter);
        });
        refused
    }

    fn filter(self) -> Vec<sock_filter> {
        let (bpf, ioctl) = (libc::SYS_bpf as u32, libc::SYS_ioctl as u32);
        let commands: &[u32] = match self.step {
            Step::Load => &[PROG_LOAD],
            Step::Attach => &[RAW_TRACEPOINT_OPEN, LINK_CREATE],
        };
        let ours = commands.iter().flat_map(|command| [load(16), unless(*command, 1), answer(NOTIFY)]);
        let bound = [load(0), unless(ioctl, 3), load(24), unless(PERF_EVENT_IOC_SET_BPF, 1), answer(NOTIFY)];
        let mut filter = vec![load(0), unless(bpf, 3 * commands.len() as u8)];
        filter.extend(ours);
        if self.step == Step::Attach {
            filter.extend(bound);
        }
        filter.push(answer(libc::SECCOMP_RET_ALLOW));
        filter
    }

    fn supervise(self, listener: &OwnedFd, refused: &Refused) {
        loop {
            let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::NONE).unwrap();
            if !ready[0].revents().unwrap().contains(PollFlags::POLLIN) {
                return; // nobody lives under the filter any more
            }
            // SAFETY: plain integers, for which zero is a valid value, and what the kernel asks for.
            let mut call: seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: `call` is of the type that this request writes.
            if unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) } != 0 {
                continue; // the caller was killed in between
            }
            let is_refused = refused.count() < self.times && self.concerns(&call) == Some(true);
            let (error, flags) = if is_refused { (-self.errno, 0) } else { (0, 1) };
            refused.0.fetch_add(usize::from(is_refused), Ordering::SeqCst);
            let answer = seccomp_notif_resp { id: call.id, val: 0, error, flags };
            // SAFETY: `answer` is of the type that this request reads. It fails only when the caller was killed.
            unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        }
    }

    /// Whether this system call is about our program; `None` if its caller is gone.
    fn concerns(self, call: &seccomp_notif) -> Option<bool> {
        let memory = File::open(format!("/proc/{}/mem", call.pid)).ok()?;
        let [command, attributes, argument, ..] = call.data.args;
        let word = |at| {
            let mut bytes = [0; 4];
            memory.read_exact_at(&mut bytes, at).ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let name = if call.data.nr == libc::SYS_ioctl as i32 {
            name_of_descriptor(call.pid, argument as u32)?
        } else {
            match command as u32 {
                PROG_LOAD => {
                    let mut name = [0; 16];
                    memory.read_exact_at(&mut name, attributes + PROG_NAME).ok()?;
                    String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
                }
                RAW_TRACEPOINT_OPEN => name_of_descriptor(call.pid, word(attributes + PROG_FD)?)?,
                _ => name_of_descriptor(call.pid, word(attributes)?)?,
            }
        };
        Some(is_name_of(self.program, &name))
    }
}

/// Name of the program behind a descriptor of another process.
fn name_of_descriptor(pid: u32, descriptor: u32) -> Option<String> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}")).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
    name_of_program(id.trim())
}

const NOTIFY: u32 = libc::SECCOMP_RET_USER_NOTIF;

/// Loads a word of `seccomp_data`: 0 is the call's number, 16 and 24 are its first two arguments.
const fn load(offset: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

/// Skips `skipped` instructions unless the word is this one.
const fn unless(word: u32, skipped: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: skipped, k: word }
}

const fn answer(with: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: with }
}

/// In the child: puts itself under the filter and sends the descriptor that its calls are asked for at.
fn hand_over(to: &UnixStream, filter: &[sock_filter]) -> io::Result<()> {
    let program = sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `filter`, which outlives the call.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    let sent = [listener as RawFd];
    let message = [ControlMessage::ScmRights(&sent)];
    sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(b"!")], &message, MsgFlags::empty(), None)?;
    Ok(())
}

fn take_over(from: &UnixStream) -> OwnedFd {
    let mut byte = [0];
    let mut space = nix::cmsg_space!(RawFd);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    match message.cmsgs().unwrap().next() {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        Some(ControlMessageOwned::ScmRights(sent)) => unsafe { OwnedFd::from_raw_fd(sent[0]) },
        other => panic!("no descriptor of the filter: {other:?}"),
    }
}
