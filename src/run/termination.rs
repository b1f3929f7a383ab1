//! The termination message of a castoff that fails before there is a child, and
//! where messages go.
//!
//! What is written later, and why, is the supervisor's.

use std::time::Duration;

use crate::config::TerminationLog as Wanted;
use crate::policy::exit::CASTOFF_FAILED;
use crate::policy::termination::compose_failure;
use crate::system::subreaper;
use crate::system::termination_log::TerminationLog;

/// How long the end waits for the file, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file that was asked for, if any was.
pub(super) fn log(wanted: &Wanted) -> Option<TerminationLog> {
    match wanted {
        Wanted::Default => TerminationLog::usual(),
        Wanted::Path(path) => Some(TerminationLog::named(path.clone())),
        Wanted::Off => None,
    }
}

/// Writes why castoff ends before it has begun. Not from an `exec` into the
/// container: its mistake is not what the container ends of.
pub(super) fn leave_word(wanted: &Wanted, cause: &str) {
    if *wanted == Wanted::Default && !subreaper::is_pid_1() {
        return;
    }
    let Some(log) = log(wanted) else { return };
    log.write(&compose_failure(cause, CASTOFF_FAILED));
    log.finish(PATIENCE);
}
