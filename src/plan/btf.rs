//! `--btf PATH` → a file that holds the types of a kernel of this architecture, raw or in an ELF image.
//!
//! Whether it is *this* kernel cannot be read from it: `kernel::types` tries that when it is used. Refuses what no
//! loader should be handed: directories, pipes, files beyond any bound.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libbpf_rs::btf::{Btf, types};

use crate::error::Hint;
use crate::kernel::log;

/// The largest kernel's types have some 10 MiB; this is read into memory.
const MAX_RAW_BYTES: u64 = 64 << 20;
/// An uncompressed image with debugging information has some 1 GiB; it is mapped, not read.
const MAX_ELF_BYTES: u64 = 8 << 30;

const RAW_MAGIC: [u8; 2] = 0xEB9F_u16.to_ne_bytes();
const RAW_SWAPPED: [u8; 2] = 0xEB9F_u16.swap_bytes().to_ne_bytes();
const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// `e_machine` of the images that fit, and a field by which a raw BTF of this architecture is known.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Why a file cannot stand in for the kernel's own types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// It cannot be opened or read.
    #[error("it cannot be read: {0}")]
    Read(String),
    /// A directory, a pipe or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Larger than any BTF is.
    #[error("it has {bytes} bytes, and the types of a kernel have {max} at most")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// Neither raw BTF nor an ELF image with a `.BTF` section, or one that is cut.
    #[error("it holds no BTF that can be read: {0}")]
    NotBtf(String),
    /// Types, but not of a kernel image: those of a module or of a BPF object.
    #[error("it holds types, but not those of a kernel: there is no `struct task_struct`")]
    NotAKernel,
    /// Another machine's.
    #[error("it is of another architecture than this one, {}", std::env::consts::ARCH)]
    OtherArchitecture,
}

impl Hint for BtfError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read(_) => "pass a file that you may read with `--btf`".into(),
            _ => "pass the BTF of exactly this kernel (`uname -r`), raw or as the uncompressed `vmlinux` with its \
                  `.BTF` section; BTFHub keeps those of distributions"
                .into(),
        })
    }
}

/// Checks the file and parses it once.
///
/// # Errors
/// See [`BtfError`].
pub fn parse(text: &str) -> Result<PathBuf, BtfError> {
    let path = PathBuf::from(text);
    let read = |e: std::io::Error| BtfError::Read(e.to_string());
    // without O_NONBLOCK a pipe would wait for its writer
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(BtfError::NotAFile);
    }
    let head = head(&mut file).map_err(read)?;
    let max = if head.starts_with(&ELF_MAGIC) {
        machine(&head)?;
        MAX_ELF_BYTES
    } else if head.starts_with(&RAW_MAGIC) {
        MAX_RAW_BYTES
    } else if head.starts_with(&RAW_SWAPPED) {
        return Err(BtfError::OtherArchitecture);
    } else {
        return Err(BtfError::NotBtf("it begins like neither BTF nor an ELF image".into()));
    };
    if meta.len() > max {
        return Err(BtfError::TooLarge { bytes: meta.len(), max });
    }
    kernel_of_this_architecture(&path)?;
    Ok(path)
}

fn head(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.take(20).read_to_end(&mut head)?;
    Ok(head)
}

/// Class, byte order and machine of an ELF header.
fn machine(head: &[u8]) -> Result<(), BtfError> {
    const CLASS64: u8 = 2;
    const ORDER: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
    match head {
        [_, _, _, _, CLASS64, ORDER, .., low, high] if u16::from_ne_bytes([*low, *high]) == MACHINE => Ok(()),
        _ if head.len() < 20 => Err(BtfError::NotBtf("its ELF header is cut".into())),
        _ => Err(BtfError::OtherArchitecture),
    }
}

fn kernel_of_this_architecture(path: &Path) -> Result<(), BtfError> {
    let _ = log::take();
    let btf = Btf::from_path(path).map_err(|e| {
        let words = log::take().pop().map(|line| format!(": {line}")).unwrap_or_default();
        BtfError::NotBtf(log::chain(&e) + &words)
    })?;
    if btf.type_by_name::<types::Struct<'_>>("task_struct").is_none() {
        return Err(BtfError::NotAKernel);
    }
    // raw BTF does not name its machine; a BTF that was trimmed to what is needed may lack the registers
    let registers = btf.type_by_name::<types::Struct<'_>>("pt_regs");
    let has = |name: &str| registers.as_ref().is_some_and(|it| it.iter().any(|m| m.name.is_some_and(|n| n == name)));
    let fits = match std::env::consts::ARCH {
        "x86_64" => has("ax"),
        _ => btf.type_by_name::<types::Struct<'_>>("user_pt_regs").is_some(),
    };
    if registers.is_some() && !fits { Err(BtfError::OtherArchitecture) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<PathBuf, BtfError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, bytes).unwrap();
        parse(file.path().to_str().unwrap())
    }

    /// A header of an ELF image for this machine.
    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_is_no_file_is_refused() {
        assert!(matches!(parse("/proc/1/none"), Err(BtfError::Read(_))));
        assert_eq!(parse("/"), Err(BtfError::NotAFile));
        assert_eq!(parse("/dev/zero"), Err(BtfError::NotAFile));
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(parse(pipe.to_str().unwrap()), Err(BtfError::NotAFile));
    }

    #[test]
    fn what_holds_no_types_of_a_kernel_is_refused() {
        for bytes in [b"".as_slice(), b"\x9f", b"#!/bin/sh\n", &RAW_MAGIC, &ELF_MAGIC, &elf(MACHINE)] {
            assert!(matches!(of(bytes), Err(BtfError::NotBtf(_))), "{bytes:?}: {:?}", of(bytes));
        }
        // an ELF image without kernel types: this very program
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(of(&own), Err(BtfError::NotBtf(_))));
    }

    #[test]
    fn another_machine_s_image_is_refused() {
        const S390: u16 = 22;
        assert_eq!(of(&elf(S390)), Err(BtfError::OtherArchitecture));
        assert_eq!(of(&RAW_SWAPPED), Err(BtfError::OtherArchitecture));
    }

    #[test]
    fn a_raw_file_beyond_the_bound_is_refused_unread() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, RAW_MAGIC).unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        let refused = parse(file.path().to_str().unwrap());
        assert_eq!(refused, Err(BtfError::TooLarge { bytes: 1 << 40, max: MAX_RAW_BYTES }));
    }

    #[test]
    fn a_kernel_s_types_are_taken_whole_and_refused_when_cut() {
        let own = std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
        if own.is_empty() {
            return;
        }
        assert!(of(&own).is_ok());
        assert!(matches!(of(&own[..own.len() / 2]), Err(BtfError::NotBtf(_))));
        assert!(matches!(of(&own[..own.len() - 1]), Err(BtfError::NotBtf(_))));
    }
}
