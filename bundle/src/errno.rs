//! Kernel error numbers by name (`include/uapi/asm-generic/errno*.h`).

use crate::event::Errno;

macro_rules! errnos {
    ($($num:literal $text:literal)*) => {
        impl Errno {
            /// The kernel's name, or `None` for a number that is not in this table.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($num => Some($text),)* _ => None }
            }

            /// The number that this name stands for.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self($num)),)* _ => None }
            }
        }
    };
}

errnos! {
    1 "EPERM" 2 "ENOENT" 3 "ESRCH" 4 "EINTR" 5 "EIO" 6 "ENXIO" 7 "E2BIG" 9 "EBADF" 11 "EAGAIN" 12 "ENOMEM"
    13 "EACCES" 14 "EFAULT" 16 "EBUSY" 17 "EEXIST" 19 "ENODEV" 22 "EINVAL" 23 "ENFILE" 24 "EMFILE" 27 "EFBIG"
    28 "ENOSPC" 32 "EPIPE" 33 "EDOM" 34 "ERANGE" 61 "ENODATA" 62 "ETIME" 64 "ENONET" 71 "EPROTO" 74 "EBADMSG"
    75 "EOVERFLOW" 88 "ENOTSOCK" 89 "EDESTADDRREQ" 90 "EMSGSIZE" 91 "EPROTOTYPE" 92 "ENOPROTOOPT"
    93 "EPROTONOSUPPORT" 95 "EOPNOTSUPP" 96 "EPFNOSUPPORT" 97 "EAFNOSUPPORT" 98 "EADDRINUSE"
    99 "EADDRNOTAVAIL" 100 "ENETDOWN" 101 "ENETUNREACH" 102 "ENETRESET" 103 "ECONNABORTED" 104 "ECONNRESET"
    105 "ENOBUFS" 106 "EISCONN" 107 "ENOTCONN" 108 "ESHUTDOWN" 109 "ETOOMANYREFS" 110 "ETIMEDOUT"
    111 "ECONNREFUSED" 112 "EHOSTDOWN" 113 "EHOSTUNREACH" 114 "EALREADY" 115 "EINPROGRESS" 125 "ECANCELED"
    512 "ERESTARTSYS" 513 "ERESTARTNOINTR" 514 "ERESTARTNOHAND" 516 "ERESTART_RESTARTBLOCK"
}

/// The name, or `errno_<n>` for a number without one.
impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno_{}", self.0),
        }
    }
}
