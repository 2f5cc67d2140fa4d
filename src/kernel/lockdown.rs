//! Whether the kernel keeps its memory, its tracing and more from root (kernel_lockdown(7)).

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};

/// Where the kernel says it, once securityfs is mounted there.
pub const FILE: &str = "/sys/kernel/security/lockdown";

/// Its line, with the mode in force in brackets, such as `none integrity [confidentiality]`.
pub fn line() -> Option<String> {
    fs::read_to_string(FILE).ok().map(|line| line.trim().to_owned())
}

/// Whether tracefs is kept from everybody. Mounts securityfs if nobody has: to be called in a mount namespace of our own.
pub fn hides_tracefs() -> bool {
    if let Some(parent) = Path::new(FILE).parent()
        && line().is_none()
    {
        // where that is refused, the kernel's command line is what is left to go by
        let _ = mount(Some("securityfs"), parent, Some("securityfs"), MsFlags::MS_RDONLY, None::<&str>);
    }
    let text = line().or_else(|| fs::read_to_string("/proc/cmdline").ok()).unwrap_or_default();
    is_confidential(&text)
}

/// Of the file's line, or of a command line.
fn is_confidential(text: &str) -> bool {
    text.split_whitespace().any(|word| matches!(word, "[confidentiality]" | "lockdown=confidentiality"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_confidentiality_hides_tracefs() {
        for text in ["none integrity [confidentiality]", "quiet lockdown=confidentiality root=/dev/vda"] {
            assert!(is_confidential(text), "{text}");
        }
        for text in ["[none] integrity confidentiality", "none [integrity] confidentiality", "lockdown=integrity", ""] {
            assert!(!is_confidential(text), "{text}");
        }
    }
}
