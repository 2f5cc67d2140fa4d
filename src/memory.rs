//! Memory that is free and that the allocator keeps is given back to the machine at the few moments when it is much: the bound on
//! the resident set is one that users rely on.

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
