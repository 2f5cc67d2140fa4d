//! What cannot be looked up anywhere, tried: programs that record nothing are loaded, attached for a moment, or run once
//! in this process. Changes nothing on the node.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, ProgramInput, ProgramType, libbpf_sys};

use super::features::Answer;
use super::preflight_skel::{OpenPreflightSkel, PreflightSkel, PreflightSkelBuilder};
use super::types::{Known, Types, wrong};
use super::{log, remedy};

/// Of one value of `trial_storage`.
const STORAGE_BYTES: usize = 256;

/// Whether the kernel takes bpf(2) from this process at all: makes a map of one number and gives it back.
///
/// # Errors
/// What it says.
pub fn bpf() -> io::Result<()> {
    // SAFETY: no name and no options; the call reads nothing else.
    let fd = unsafe {
        libbpf_sys::bpf_map_create(libbpf_sys::BPF_MAP_TYPE_ARRAY, std::ptr::null(), 4, 4, 1, std::ptr::null())
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a descriptor that was just made, and that nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Whether a socket can carry what programs remember of it, tried on one of this process. Since Linux 7 the kernel makes
/// it with an allocator (`kmalloc_nolock`) that x86-64 does not have on a processor without `cmpxchg16b`.
pub fn socket_storage(types: &Types) -> Answer {
    let mut slot = MaybeUninit::uninit();
    let loaded = open(types, "", &mut slot).and_then(|mut open| {
        open.maps.trial_storage.set_autocreate(true)?;
        open.load()
    });
    match (loaded, UnixDatagram::unbound()) {
        (Err(e), _) => Answer::Unknown(log::chain(&e)),
        (_, Err(e)) => Answer::Unknown(e.to_string()),
        (Ok(loaded), Ok(socket)) => {
            let key = socket.as_raw_fd().to_ne_bytes();
            match loaded.maps.trial_storage.update(&key, &[0; STORAGE_BYTES], MapFlags::ANY) {
                Ok(()) => Answer::Yes,
                Err(e) => Answer::No(format!("the kernel cannot tie data to a socket: {}", log::chain(&e))),
            }
        }
    }
}

/// Whether a program can be put before all others at a cgroup: asked for a cgroup that is none, so that nothing comes of it
/// but the kernel's word on what it looks at first.
pub fn first_at_cgroup(types: &Types) -> Answer {
    const NAME: &str = "trial_cgroup";
    let mut slot = MaybeUninit::uninit();
    let loaded = match open(types, NAME, &mut slot).and_then(|open| open.load()) {
        Ok(loaded) => loaded,
        Err(e) => return Answer::No(refusal("load", &e)),
    };
    let Some(program) = loaded.object().progs().find(|p| p.name() == NAME) else {
        return Answer::Unknown("the trial program is not in its object".into());
    };
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: libbpf_sys::BPF_F_PREORDER,
        ..Default::default()
    };
    let (fd, place) = (program.as_fd().as_raw_fd(), libbpf_sys::BPF_CGROUP_UDP4_SENDMSG);
    // SAFETY: `options` is of the size that it says, and outlives the call.
    let answer = unsafe { libbpf_sys::bpf_link_create(fd, -1, place, &raw const options) };
    match -answer {
        libc::EBADF => Answer::Yes,
        other => Answer::No(format!("the kernel refuses to: {}", io::Error::from_raw_os_error(other))),
    }
}

/// Whether one program loads and attaches.
pub fn program(types: &Types, name: &str) -> Answer {
    let mut slot = MaybeUninit::uninit();
    let loaded = match open(types, name, &mut slot) {
        Ok(open) => open.load(),
        Err(e) => return Answer::Unknown(format!("the trial object cannot be opened: {}", log::chain(&e))),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(e) => return Answer::No(refusal("load", &e)),
    };
    let result = loaded.object().progs_mut().find(|p| p.name() == name).map(|p| p.attach());
    match result {
        Some(Ok(_link)) => Answer::Yes,
        Some(Err(e)) => {
            let remedy = remedy::of_attach(ProgramType::Kprobe, &e).map(|it| format!(": {it}")).unwrap_or_default();
            Answer::No(refusal("attach", &e) + &remedy)
        }
        None => Answer::Unknown("the trial program is not in its object".into()),
    }
}

/// What reading kernel memory through the types in use came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// What was read is what is there; of a file of types this much was tried.
    Right,
    /// The types are not those of this kernel: this one is not where they say.
    Wrong(&'static str),
    /// The kernel does not let programs read its memory.
    Refused(String),
    /// The program could not be loaded with these types: fields that it reads are not there.
    Unfit(String),
    /// It could not be tried.
    Unknown(String),
}

/// Reads a socket of this process through the types in use. The kernel's own are right by their nature: with these
/// the program is only loaded.
pub fn reading(types: &Types) -> Reading {
    const NAME: &str = "trial_types";
    let known = types.file().and_then(|_| Known::new());
    let mut slot = MaybeUninit::uninit();
    let mut open = match open(types, NAME, &mut slot) {
        Ok(open) => open,
        Err(e) => return Reading::Unknown(log::chain(&e)),
    };
    if let (Some(known), Some(rodata)) = (&known, open.maps.rodata_data.as_deref_mut()) {
        (rodata.trial_fd, rodata.trial_port, rodata.trial_netns) = (known.fd(), known.port, known.netns);
    }
    let loaded = match open.load() {
        Ok(loaded) => loaded,
        Err(e) => {
            let lines = log::take();
            if let Some(line) = lines.iter().flat_map(|it| it.lines()).find(|line| is_withheld(line)) {
                return Reading::Refused(line.trim().to_owned());
            }
            let why = log::culprit(&lines, std::iter::once(NAME)).map_or_else(|| log::chain(&e), |(_, why)| why);
            return Reading::Unfit(why);
        }
    };
    match known {
        Some(_) => run(&loaded, NAME),
        None if types.file().is_some() => Reading::Unknown("there is no loopback to listen on".into()),
        None => Reading::Right,
    }
}

/// Whether the verifier says here that it withholds the helper that reads memory, as it does under lockdown; libbpf then
/// tries its older name.
fn is_withheld(line: &str) -> bool {
    line.contains("bpf_probe_read") && ["unknown func", "cannot use helper"].iter().any(|it| line.contains(it))
}

fn run(loaded: &PreflightSkel<'_>, name: &str) -> Reading {
    let Some(program) = loaded.object().progs_mut().find(|p| p.name() == name) else {
        return Reading::Unknown("the trial program is not in its object".into());
    };
    match program.test_run(ProgramInput::default()) {
        Ok(output) => wrong(output.return_value).map_or(Reading::Right, Reading::Wrong),
        Err(e) => Reading::Unknown(log::chain(&e)),
    }
}

fn open<'a>(
    types: &Types,
    name: &str,
    slot: &'a mut MaybeUninit<OpenObject>,
) -> libbpf_rs::Result<OpenPreflightSkel<'a>> {
    let _ = log::take();
    let mut builder = PreflightSkelBuilder::default();
    types.apply(&mut builder.obj_builder)?;
    let mut open = builder.open(slot)?;
    open.maps.trial_storage.set_autocreate(false)?;
    for mut candidate in open.open_object_mut().progs_mut() {
        let chosen = candidate.name() == name;
        candidate.set_autoload(chosen);
    }
    Ok(open)
}

fn refusal(step: &str, error: &libbpf_rs::Error) -> String {
    format!("the kernel refuses to {step} it: {}", log::chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_verifiers_own_words_say_that_reading_is_withheld() {
        for line in
            ["unknown func bpf_probe_read_kernel#113", "program of this type cannot use helper bpf_probe_read#4"]
        {
            assert!(is_withheld(line), "{line}");
        }
        for line in ["12: (85) call bpf_probe_read_kernel#113", "unknown func bpf_get_socket_cookie#46", ""] {
            assert!(!is_withheld(line), "{line}");
        }
    }
}
