//! Kernel, system, hardware, boot, and how well the clock is kept.

use std::io;
use std::path::Path;

use ktrace_bundle::node::{Clock, System};
use nix::sys::utsname::uname;

use super::cpu;
use super::memory;
use crate::node::network::text;
use crate::node::rooted;

const MOST_BYTES: u64 = 64 << 10;
/// Characters of a text that others chose.
const MOST_CHARS: usize = 256;

/// How well the clock is kept (`adjtimex(2)`, which changes nothing here).
///
/// # Errors
/// The kernel's.
pub fn clock(sys: &Path) -> io::Result<Clock> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all-zero is a valid `timex`; with `modes` 0 the call only fills it in.
    if unsafe { libc::adjtimex(timex.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero was valid, and so is what the kernel wrote.
    let timex = unsafe { timex.assume_init() };
    Ok(Clock {
        synchronized: timex.status & libc::STA_UNSYNC == 0,
        est_error_us: u64::try_from(timex.esterror).unwrap_or(0),
        max_error_us: u64::try_from(timex.maxerror).unwrap_or(0),
        clocksource: line(&sys.join("devices/system/clocksource/clocksource0/current_clocksource")),
    })
}

/// Kernel, system and hardware. `root`: the host's root directory.
pub fn look(proc: &Path, sys: &Path, root: &Path) -> System {
    let read = |name: &str| text(&proc.join(name), super::MOST_BYTES).unwrap_or_default();
    let memory = memory::meminfo(&read("meminfo")).first().and_then(|it| it.counters.get("MemTotal").copied());
    let cpus = cpu::stat(&read("stat")).iter().filter(|it| it.group.starts_with("cpu.")).count();
    let dmi = ["sys_vendor", "product_name"].map(|name| line(&sys.join("class/dmi/id").join(name)));
    let hardware: Vec<_> = dmi.into_iter().flatten().collect();
    let os = ["etc/os-release", "usr/lib/os-release"].into_iter().find_map(|path| {
        let bytes = rooted::read(root, path, MOST_BYTES).ok()?;
        pretty_name(&String::from_utf8_lossy(&bytes))
    });
    System {
        kernel: uname().map(|it| it.release().to_string_lossy().into_owned()).unwrap_or_default(),
        os,
        hardware: (!hardware.is_empty()).then(|| hardware.join(" ")),
        cpu_count: cpus as u64,
        memory_bytes: memory.unwrap_or(0),
        boot_id: line(&proc.join("sys/kernel/random/boot_id")),
    }
}

/// The first line of a file, if it says anything.
fn line(path: &Path) -> Option<String> {
    let text = text(path, MOST_BYTES).ok()?;
    text.lines().next().map(short).filter(|it| !it.is_empty())
}

fn short(text: &str) -> String {
    text.trim().chars().take(MOST_CHARS).collect()
}

/// `PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"`.
fn pretty_name(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(short(value.trim().trim_matches(['"', '\'']))).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_system_is_read_with_and_without_quotes() {
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"), Some("Debian 12".into()));
        assert_eq!(pretty_name("PRETTY_NAME=Talos\n"), Some("Talos".into()));
        assert_eq!(["", "PRETTY_NAME=\"\"", "NAME=x"].map(pretty_name), [None, None, None]);
    }

    #[test]
    fn this_machine_has_a_kernel_cpus_memory_and_a_boot() {
        let system = look("/proc".as_ref(), "/sys".as_ref(), "/".as_ref());
        assert!(!system.kernel.is_empty() && system.cpu_count > 0 && system.memory_bytes > 0, "{system:?}");
        assert!(system.boot_id.is_some());
        assert!(clock("/sys".as_ref()).is_ok());
    }
}
