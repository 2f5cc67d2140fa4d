//! Loose files of one bundle → an [`Intake`]. Only regular files of known names; no link is followed.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use super::intake::Intake;
use super::known::Known;
use super::{ReadError, ReadReport};

/// Reads the members, manifests first.
///
/// # Errors
/// If none of the files that make a bundle is there.
pub(super) fn read(dir: &Path, mut intake: Intake<'_>) -> Result<ReadReport, ReadError> {
    let mut is_sealed = false;
    for member in Known::ALL {
        if member == Known::Partial && is_sealed {
            continue;
        }
        match open(dir, member.name()) {
            Ok(Some((file, len))) => {
                is_sealed |= member == Known::Manifest;
                intake.member(member, &mut BufReader::with_capacity(1 << 16, file), len)?;
            }
            Ok(None) => intake.skip_member(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => intake.cut(member.name(), 0, &e.to_string()),
        }
    }
    if intake.is_empty() {
        return Err(intake.foreign("the directory holds neither `events.jsonl` nor a manifest"));
    }
    intake.finish()
}

/// The file and its length; `None` if it is not a regular file, or below what is not a directory.
fn open(dir: &Path, name: &str) -> io::Result<Option<(File, u64)>> {
    let path = &dir.join(name);
    let folder = path.parent().map(std::fs::symlink_metadata).transpose()?;
    if name.contains('/') && !folder.is_some_and(|it| it.is_dir()) {
        return Ok(None);
    }
    if !std::fs::symlink_metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    Ok(Some((file, len)))
}
