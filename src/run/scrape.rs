//! What a scrape reads afresh: the figures of the groups and of the tree, and the
//! limits.
//!
//! Owns their cost: however often somebody asks, they are read once a second,
//! and the tree is left out when it is too large to be looked at in time. The
//! loop stands still meanwhile.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify as Nudge, watch};

use crate::log;
use crate::policy::log_style::Stream;
use crate::policy::status::{PhaseName, Status};
use crate::policy::usage::Usage;
use crate::supervisor::{LineCounts, Scraped};
use crate::system::cgroup::{Groups, LimitFiles};
use crate::system::tree;

/// For so long figures are good enough for the next one who asks.
const FRESH_TIME: Duration = Duration::from_secs(1);

/// How much CPU time a look at the tree may take: some thousands of processes.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// The same while somebody is to be stopped, and the next deadline is near: some
/// hundreds.
const LOOK_TIME_OF_A_STOP: Duration = Duration::from_millis(5);

/// The function that gives them, for `http`. Limits that are not those of
/// `status` go there at once, and the `nudge` is given; `scraped` in any case.
pub(super) fn usage(
    groups: Groups,
    proc_root: PathBuf,
    files: Rc<LimitFiles>,
    status: watch::Sender<Status>,
    nudge: Rc<Nudge>,
    scraped: Scraped,
    lines: Option<Rc<LineCounts>>,
) -> impl Fn() -> Usage + 'static {
    let last: RefCell<Option<(Instant, Usage)>> = RefCell::default();
    let counted = Cell::new(0.0_f64);
    move || {
        let mut last = last.borrow_mut();
        let now = Instant::now();
        let fresh = last.as_ref().filter(|(at, _)| now < *at + FRESH_TIME);
        let mut usage = if let Some((_, usage)) = fresh {
            usage.clone()
        } else {
            read_limits(&files, &status, &nudge);
            scraped.notify_one();
            let mut tree = tree::account(&proc_root, look_time(status.borrow().phase));
            if let Some(tree) = &mut tree {
                // Some CPU time may get lost, but a counter never counts down.
                counted.set(counted.get().max(tree.cpu_seconds));
                tree.cpu_seconds = counted.get();
            }
            let usage = Usage { tree, ..groups.usage() };
            // From its end on: it must not be begun anew at once.
            *last = Some((Instant::now(), usage.clone()));
            usage
        };
        usage.log_lines_dropped = log::dropped();
        usage.log_lines = lines.as_ref().map(|lines| {
            [(Stream::Stdout, lines.stdout.get()), (Stream::Stderr, lines.stderr.get())]
        });
        usage
    }
}

fn look_time(phase: PhaseName) -> Duration {
    match phase {
        PhaseName::Starting | PhaseName::Serving | PhaseName::Draining => LOOK_TIME,
        PhaseName::Stopping | PhaseName::Killing | PhaseName::Sweeping | PhaseName::Exited => {
            LOOK_TIME_OF_A_STOP
        }
    }
}

fn read_limits(files: &LimitFiles, status: &watch::Sender<Status>, nudge: &Nudge) {
    let old = status.borrow().limits.clone();
    let new = files.read_again(&old);
    if new != old {
        status.send_modify(|status| status.limits = new);
        nudge.notify_one();
    }
}
