//! What the `lifetimes` hook tells beside the events: cgroups that were made and removed, processes that began and ended.

use std::collections::HashMap;

use crate::cgroup::{self, Hierarchy};
use crate::hooks::wire::{self, DecodeError};
use crate::kernel::skel::types::{kt_cgroup_notice, kt_notice, kt_process_notice, kt_task};

/// One notice.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A cgroup was made at this path below the root of its hierarchy.
    Made {
        /// Its id, and where it is one.
        cgroup: (Hierarchy, u64),
        /// Where it is.
        path: String,
    },
    /// A cgroup was removed.
    Removed {
        /// Its id, and where it is one.
        cgroup: (Hierarchy, u64),
        /// Boot time, ns.
        boot_ns: u64,
    },
    /// A process has begun to run this.
    Exec {
        /// As it is now.
        task: Box<kt_task>,
        /// As execve(2) was called; without it the path was too long.
        exe: Option<String>,
    },
    /// The last thread of a process exits.
    Exit {
        /// As it was.
        task: Box<kt_task>,
        /// Boot time, ns.
        boot_ns: u64,
    },
}

/// Reads notices.
pub struct Notices {
    hierarchies: HashMap<u32, Hierarchy>,
    /// Bytes that were no notice.
    pub undecodable: u64,
}

impl Notices {
    /// With the numbers that hierarchies have now.
    pub fn new() -> Self {
        Self { hierarchies: cgroup::numbers(), undecodable: 0 }
    }

    /// One record of the ring; `None`: of a hierarchy that ktrace does not read, with a path that is too long, or no notice.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Notice> {
        self.decode(bytes).unwrap_or_else(|_| {
            self.undecodable += 1;
            None
        })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Option<Notice>, DecodeError> {
        let number = bytes.get(8..12).and_then(|it| it.try_into().ok()).map(u32::from_ne_bytes).unwrap_or(u32::MAX);
        let unknown = DecodeError::Unknown { what: "notice", number };
        Ok(match kt_notice(number) {
            kt_notice::KT_NOTICE_CGROUP_MADE => {
                let kt_cgroup_notice { boot_ns: _, kind: _, hierarchy, id, path } = wire::read(bytes)?;
                let hierarchy = self.hierarchies.get(&hierarchy).copied();
                hierarchy.zip(whole(&path)).map(|(hierarchy, path)| Notice::Made { cgroup: (hierarchy, id), path })
            }
            kt_notice::KT_NOTICE_CGROUP_REMOVED => {
                let kt_cgroup_notice { boot_ns, kind: _, hierarchy, id, path: _ } = wire::read(bytes)?;
                let hierarchy = self.hierarchies.get(&hierarchy).copied();
                hierarchy.map(|hierarchy| Notice::Removed { cgroup: (hierarchy, id), boot_ns })
            }
            kt_notice::KT_NOTICE_EXEC => {
                let kt_process_notice { boot_ns: _, kind: _, reserved: _, task, exe } = wire::read(bytes)?;
                Some(Notice::Exec { task: task.into(), exe: whole(&exe) })
            }
            kt_notice::KT_NOTICE_EXIT => {
                let kt_process_notice { boot_ns, kind: _, reserved: _, task, exe: _ } = wire::read(bytes)?;
                Some(Notice::Exit { task: task.into(), boot_ns })
            }
            _ => return Err(unknown),
        })
    }
}

/// Text up to the first NUL. Of what fills its place nobody knows whether it was cut.
fn whole(bytes: &[i8]) -> Option<String> {
    let text: Vec<u8> = bytes.iter().map(|b| b.cast_unsigned()).take_while(|b| *b != 0).collect();
    (!text.is_empty() && text.len() + 1 < bytes.len()).then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices() -> Notices {
        Notices { hierarchies: HashMap::from([(0, Hierarchy::V2), (4, Hierarchy::V1Memory)]), undecodable: 0 }
    }

    fn chars<const N: usize>(text: &str) -> [i8; N] {
        let mut chars = [0; N];
        chars.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from.cast_signed());
        chars
    }

    fn bytes<T>(record: &T) -> Vec<u8> {
        // SAFETY: a struct of wire.h is integers without padding, and lives as long as this copy takes.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    fn cgroup(kind: kt_notice, hierarchy: u32, path: &str) -> Vec<u8> {
        bytes(&kt_cgroup_notice { boot_ns: 5, kind: kind.0, hierarchy, id: 7, path: chars(path) })
    }

    #[test]
    fn a_cgroup_is_told_with_its_hierarchy_and_its_path() {
        let made = kt_notice::KT_NOTICE_CGROUP_MADE;
        for (number, hierarchy) in [(0, Hierarchy::V2), (4, Hierarchy::V1Memory)] {
            let notice = notices().read(&cgroup(made, number, "/kubepods/a"));
            let Some(Notice::Made { cgroup, path }) = notice else { panic!("{notice:?}") };
            assert_eq!((cgroup, &*path), ((hierarchy, 7), "/kubepods/a"));
        }
        let removed = notices().read(&cgroup(kt_notice::KT_NOTICE_CGROUP_REMOVED, 0, ""));
        assert!(matches!(removed, Some(Notice::Removed { cgroup: (Hierarchy::V2, 7), boot_ns: 5 })), "{removed:?}");
    }

    #[test]
    fn what_is_in_another_hierarchy_or_may_have_been_cut_tells_nothing() {
        let (mut notices, made) = (notices(), kt_notice::KT_NOTICE_CGROUP_MADE);
        assert!(notices.read(&cgroup(made, 3, "/a")).is_none());
        assert!(notices.read(&cgroup(made, 0, &"x".repeat(511))).is_none());
        assert!(notices.read(&cgroup(made, 0, &"x".repeat(510))).is_some());
        assert_eq!(notices.undecodable, 0);
    }

    #[test]
    fn a_process_is_told_with_what_it_was_called_with() {
        let task = kt_task { pid: 9, ..kt_task::default() };
        let of = |kind: kt_notice, exe: &str| {
            bytes(&kt_process_notice { boot_ns: 5, kind: kind.0, reserved: 0, task, exe: chars(exe) })
        };
        let called = |bytes: &[u8]| match notices().read(bytes) {
            Some(Notice::Exec { task, exe }) => (task.pid, exe),
            other => panic!("{other:?}"),
        };
        assert_eq!(called(&of(kt_notice::KT_NOTICE_EXEC, "/bin/sh")), (9, Some("/bin/sh".into())));
        assert_eq!(called(&of(kt_notice::KT_NOTICE_EXEC, &"x".repeat(255))), (9, None), "it may have been cut");
        let exit = notices().read(&of(kt_notice::KT_NOTICE_EXIT, ""));
        assert!(matches!(exit, Some(Notice::Exit { ref task, boot_ns: 5 }) if task.pid == 9), "{exit:?}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_a_notice_or_counted(bytes: Vec<u8>) {
            let mut notices = notices();
            let told = notices.read(&bytes).is_some();
            proptest::prop_assert!(!told && notices.undecodable == 1, "no such length");
        }
    }
}
