//! Memory that is free and that the allocator keeps is given back to the machine at the few moments when it is much: the bound on
//! the resident set is one that users rely on.

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
