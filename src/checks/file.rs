//! Files: that they exist, and when they were modified.
//!
//! A file may be on a server that does not answer, and then the kernel returns
//! when it likes. So a thread looks, one per path at most: whoever wants to
//! look while it has not returned waits for the same look.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::io_reason;
use crate::system::aside;

/// When it was modified, or why that cannot be told; `None`: not known yet.
pub(super) type Look = Option<Result<SystemTime, String>>;

/// The looks that have not returned, by path.
#[derive(Default)]
pub(super) struct Looks(RefCell<HashMap<PathBuf, watch::Receiver<Look>>>);

impl Looks {
    pub(super) async fn check(&self, path: &Path, max_age: Option<Duration>) -> Result<(), String> {
        let mut look = self.begin(path, |path| fs::metadata(path)?.modified())?;
        let look = look.wait_for(Option::is_some).await;
        let modified = match look.as_deref() {
            Ok(Some(Ok(modified))) => *modified,
            Ok(Some(Err(reason))) => return Err(reason.clone()),
            Ok(None) | Err(_) => return Err("internal error: no look".to_owned()),
        };
        match max_age {
            Some(max_age) => judge(modified, SystemTime::now(), max_age),
            None => Ok(()),
        }
    }

    /// The look at that path that is under way, or a new one.
    pub(super) fn begin(
        &self,
        path: &Path,
        look: impl FnOnce(&Path) -> std::io::Result<SystemTime> + Send + 'static,
    ) -> Result<watch::Receiver<Look>, String> {
        let mut looks = self.0.borrow_mut();
        looks.retain(|_, look| matches!(look.has_changed(), Ok(false)));
        if let Some(look) = looks.get(path) {
            return Ok(look.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let at = path.to_owned();
        let act = move || {
            let result = look(&at).map_err(|error| io_reason(&error));
            sender.send_replace(Some(result));
        };
        aside::start(act)
            .map_err(|error| format!("cannot make a thread: {}", io_reason(&error)))?;
        looks.insert(path.to_owned(), receiver.clone());
        Ok(receiver)
    }
}

/// By wall clock, as the file's own time is; that of a file from the future is
/// as fresh as can be.
pub(super) fn judge(
    modified: SystemTime,
    now: SystemTime,
    max_age: Duration,
) -> Result<(), String> {
    let age = now.duration_since(modified).unwrap_or_default();
    if age <= max_age {
        return Ok(());
    }
    let whole = |duration: Duration| match duration.subsec_millis() {
        0 => humantime::format_duration(duration).to_string(),
        _ => format!("{}ms", duration.as_millis()),
    };
    let seconds = Duration::from_secs(age.as_secs());
    let shown = if seconds > max_age { whole(seconds) } else { format!("{}ms", age.as_millis()) };
    Err(format!("modified {shown} ago, more than {}", whole(max_age)))
}
