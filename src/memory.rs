//! Memory that is free and that the allocator keeps is given back to the machine at the few moments when it is much: the bound on
//! the resident set is one that users rely on.

use nix::unistd::{SysconfVar, sysconf};

/// What is as large as this is returned as soon as it is free, bytes: the tables that grow with sockets, mostly.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 << 10;

/// To be called before there are threads. Each would get a pool of memory of its own otherwise, of which it keeps most; those
/// beside the event path need little, and that rarely at the same time. And the allocator would learn to keep what is large.
pub fn be_thrifty() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

/// To be called when something large is over. Loading takes several MiB for the kernel's types, and tables leave as much behind
/// while they grow with the sockets of a busy node; threads that look at the node leave what their lines took. All of it would
/// come on top of the rings, which are mapped as a whole.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// To be called before the rings are mapped. Of the program's file starting used much that nobody looks at again: the command line,
/// the kernel's types, the BPF object.
pub fn give_back_code() {
    // SAFETY: the function keeps nothing of what it is given.
    unsafe { libc::dl_iterate_phdr(Some(give_back_segments), std::ptr::null_mut()) };
}

/// Gives back what of the first object, which is the program itself, nobody can write to, and stops.
unsafe extern "C" fn give_back_segments(
    object: *mut libc::dl_phdr_info,
    _: libc::size_t,
    _: *mut libc::c_void,
) -> libc::c_int {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(1 << 16);
    // SAFETY: the C library gives a valid object, with as many headers as it says (dl_iterate_phdr(3)).
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let Ok(page) = page.try_into() else { return 1 };
    for segment in headers.iter().filter(|it| it.p_type == libc::PT_LOAD && it.p_flags & libc::PF_W == 0) {
        let begin = (base + segment.p_vaddr).next_multiple_of(page);
        let end = (base + segment.p_vaddr + segment.p_memsz) / page * page;
        if let (Ok(begin), Ok(len)) = (usize::try_from(begin), usize::try_from(end.saturating_sub(begin))) {
            // SAFETY: whole pages of a segment that is never written to, relocations included, which the kernel reads from the
            // file again if anybody looks at them (madvise(2)).
            unsafe { libc::madvise(std::ptr::without_provenance_mut(begin), len, libc::MADV_DONTNEED) };
        }
    }
    1
}
