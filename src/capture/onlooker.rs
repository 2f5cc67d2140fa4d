//! Somebody who reads along in the loose files while the window is open, as anybody else could, and may end it.

use std::path::Path;

/// See the module. It is called on the event path, and must neither block nor compute there.
pub trait Onlooker {
    /// The window is open; lines come to the files in `dir` once a second.
    fn begin(&self, dir: &Path);

    /// Whether it has seen enough; asked in each turn of the event path.
    fn has_enough(&self) -> bool;
}
