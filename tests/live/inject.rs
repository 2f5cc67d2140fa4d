//! Makes another process give up one of its descriptors: a hook is taken away behind ktrace's back, as a faulty tool
//! or kernel would. Tracing links cannot be detached by id, so the process itself replaces the link's descriptor, by
//! a system call that it is made to do (x86-64).

use std::io;

use libc::{c_void, pid_t, user_regs_struct};

use crate::kernel::{is_name_of, name_of_program};

/// Descriptor of the link of this program, if it is attached.
fn link_of(pid: u32, program: &str) -> Option<i32> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let field = |key: &str| info.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().to_owned());
        let (Some(_), Some(prog_id)) = (field("link_id:"), field("prog_id:")) else { continue };
        if name_of_program(&prog_id).is_some_and(|name| is_name_of(program, &name)) {
            return Some(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    None
}

/// Ends the attachment of these programs, as far as there are any: their links' descriptors become ones of stdin. When this
/// returns no run of them begins any more. Returns how many there were.
pub fn take_away(pid: u32, programs: &[&str]) -> usize {
    programs.iter().filter_map(|program| link_of(pid, program).map(|link| replace(pid, link))).count()
}

fn replace(pid: u32, link: i32) {
    let result = system_call(pid.try_into().unwrap(), libc::SYS_dup3, [0, link.into(), libc::O_CLOEXEC.into()]);
    assert_eq!(result, i64::from(link), "dup3: {}", io::Error::from_raw_os_error(-result as i32));
}

/// Lets the process do this system call in place of its next one, which it then does.
fn system_call(pid: pid_t, number: i64, args: [i64; 3]) -> i64 {
    ask(libc::PTRACE_ATTACH, pid, 0);
    wait_until_stopped(pid);
    go_on(pid);
    let saved = registers(pid);
    let mut regs = saved;
    regs.orig_rax = number as u64;
    [regs.rdi, regs.rsi, regs.rdx] = args.map(|arg| arg as u64);
    set_registers(pid, regs);
    go_on(pid);
    let result = registers(pid).rax as i64;
    // back onto the two bytes of its `syscall` instruction
    set_registers(pid, user_regs_struct { rip: saved.rip - 2, rax: saved.orig_rax, ..saved });
    ask(libc::PTRACE_DETACH, pid, 0);
    result
}

/// To the next entry into, or return from, a system call.
fn go_on(pid: pid_t) {
    ask(libc::PTRACE_SYSCALL, pid, 0);
    wait_until_stopped(pid);
}

fn wait_until_stopped(pid: pid_t) {
    let mut status = 0;
    // SAFETY: `status` is written by the call and outlives it.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(waited == pid && libc::WIFSTOPPED(status), "{waited} {status:#x} {}", io::Error::last_os_error());
}

fn registers(pid: pid_t) -> user_regs_struct {
    // SAFETY: plain integers, for which zero is a valid value.
    let mut regs: user_regs_struct = unsafe { std::mem::zeroed() };
    ask(libc::PTRACE_GETREGS, pid, &raw mut regs as usize);
    regs
}

fn set_registers(pid: pid_t, mut regs: user_regs_struct) {
    ask(libc::PTRACE_SETREGS, pid, &raw mut regs as usize);
}

/// `data` is 0, or the address of registers that outlive the call.
fn ask(request: libc::c_uint, pid: pid_t, data: usize) {
    // SAFETY: the callers pass what `ptrace(2)` expects with each request.
    let result = unsafe { libc::ptrace(request, pid, std::ptr::null_mut::<c_void>(), data as *mut c_void) };
    assert_ne!(result, -1, "ptrace {request}: {}", io::Error::last_os_error());
}
