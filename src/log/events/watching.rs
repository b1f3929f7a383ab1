//! Files of CASTOFF_WATCH: that they have changed, and what castoff cannot see.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::{list_of, quoted, shortened};
use crate::policy::reaction::Reaction;

/// Files say something else than before, of which those are told that fit into a
/// line. `action` is what follows: `log`, `signal`, `exec` or `restart`.
pub(crate) fn config_changed(paths: &[PathBuf], reaction: &Reaction) {
    let entry = |path: &PathBuf| quoted(&shortened(&path.to_string_lossy()));
    let list = list_of(paths.iter().map(entry));
    let action = match reaction {
        Reaction::Log => "log",
        Reaction::Signal(_) => "signal",
        Reaction::Exec(_) => "exec",
        Reaction::Restart => "restart",
    };
    info!(
        event = "config_changed",
        count = paths.len(),
        list = list.as_bytes(),
        action,
        "watched files changed"
    );
}

/// A watched path leads nowhere any more. Nothing follows until it does, to
/// something else than before.
pub(crate) fn watch_lost(path: &Path) {
    warn!(event = "watch_lost", path = %path.display(), "watched file has gone");
}

/// Changes there will be seen late, in part or never; told once.
pub(crate) fn watch_limited(path: &Path, cause: impl Display) {
    let path = shortened(&path.to_string_lossy());
    warn!(event = "watch_limited", path, %cause, "watched path may not be what was meant");
}

/// Nobody could look at the files; castoff tries again.
pub(crate) fn watch_failed(cause: impl Display) {
    warn!(event = "watch_failed", %cause, "cannot look at watched files");
}
