//! What the container has used up to now, and who lives in it: the figures that
//! a scrape reads afresh, and the text of the files they come from.
//!
//! A figure whose source is missing, or which would not be whole, is `None` and
//! never 0. A text that makes no sense gives no figure and no error.

use super::limits::{figure, number};
use super::log_style::Stream;

/// What is read on a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Bytes of memory in use (v2 `memory.current`, v1 `memory.usage_in_bytes`).
    pub(crate) memory_bytes: Option<u64>,
    /// The same without the page cache that can be dropped at once.
    pub(crate) working_set_bytes: Option<u64>,
    /// CPU time used by the group (v2 `usage_usec`, v1 `cpuacct.usage`).
    pub(crate) cpu_seconds: Option<f64>,
    /// Periods in which the quota held the group back (`nr_throttled`).
    pub(crate) throttled_periods: Option<u64>,
    /// Seconds for which it was held back (`throttled_usec`, `throttled_time`).
    pub(crate) throttled_seconds: Option<f64>,
    /// Processes of the group that the OOM killer has ended, as the kernel counts
    /// them: since the group was made.
    pub(crate) oom_kills: Option<u64>,
    /// Processes and threads in the group (`pids.current`).
    pub(crate) pids: Option<u64>,
    /// How the group has waited for CPU, memory and I/O, in this order.
    pub(crate) pressure: [Pressure; 3],
    /// The processes of the container; `None`: they cannot be seen, or could not
    /// all be looked at in time.
    pub(crate) tree: Option<Tree>,
    /// Log lines that could not be written.
    pub(crate) log_lines_dropped: u64,
    /// Lines of the child's standard output and error; `None`: castoff does not
    /// see them.
    pub(crate) log_lines: Option<[(Stream, u64); 2]>,
}

/// The names of `Usage::pressure`, which are those of the files too.
pub(crate) const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Pressure stall information of a group, in seconds so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    /// At least one task waited (`some`).
    pub(crate) waiting_seconds: Option<f64>,
    /// All tasks did (`full`).
    pub(crate) stalled_seconds: Option<f64>,
}

/// Who is there besides castoff. Processes and zombies are those that castoff
/// answers for: as PID 1 the whole namespace, else its descendants. The rest are
/// sums over its descendants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    pub(crate) processes: u64,
    pub(crate) threads: u64,
    /// Ended and not reaped yet, by whomever; not among `processes`.
    pub(crate) zombies: u64,
    /// Some of those that castoff cannot reap, since their parent lives.
    pub(crate) unreaped: Vec<Unreaped>,
    /// CPU time of those that live, and of those that were reaped.
    pub(crate) cpu_seconds: f64,
    /// Memory shared by several counts for each of them.
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    /// `None`: castoff may not look at those of some process.
    pub(crate) open_fds: Option<u64>,
}

/// A zombie that waits for its parent. Names are the kernel's, without
/// arguments, which may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreaped {
    pub(crate) pid: i32,
    pub(crate) command: String,
    pub(crate) parent_pid: i32,
    pub(crate) parent_command: String,
}

/// The text of `cpu.pressure` and its like (kernel document `accounting/psi`):
/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`, then `full`.
pub(crate) fn pressure(text: &str) -> Pressure {
    let seconds = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?;
        Some(number(total)? as f64 / 1e6)
    };
    Pressure { waiting_seconds: seconds("some"), stalled_seconds: seconds("full") }
}

/// v2 `cpu.stat`.
pub(crate) fn cpu_seconds_v2(text: &str) -> Option<f64> {
    figure(text, "usage_usec").map(|usec| usec as f64 / 1e6)
}

/// v1 `cpuacct.usage`: nanoseconds.
pub(crate) fn cpu_seconds_v1(text: &str) -> Option<f64> {
    number(text.trim()).map(|nanos| nanos as f64 / 1e9)
}

/// What of `bytes` is left without the page cache that nobody has used lately:
/// cAdvisor's working set. The text is that of `memory.stat`, in which v1 has a
/// sum over the groups below.
pub(crate) fn working_set(bytes: u64, text: &str) -> Option<u64> {
    let inactive = figure(text, "total_inactive_file").or_else(|| figure(text, "inactive_file"))?;
    Some(bytes.saturating_sub(inactive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pressure_is_the_total_in_seconds() {
        let text = "some avg10=0.00 avg60=1.50 avg300=0.00 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=20\n";
        let both = Pressure { waiting_seconds: Some(1.5), stalled_seconds: Some(0.000_02) };
        assert_eq!(pressure(text), both);
        let some = Pressure { stalled_seconds: None, ..both };
        // The CPU's of a kernel before 5.13 has one line.
        assert_eq!(pressure(text.lines().next().expect("a line")), some);
        for text in ["", "some", "some total=", "some total=-1", "something total=1", "full\n"] {
            assert_eq!(pressure(text), Pressure::default(), "{text:?}");
        }
    }

    #[test]
    fn both_versions_count_time_in_a_unit_of_their_own() {
        let v2 = "usage_usec 2500000\nuser_usec 1\nsystem_usec 2\n";
        assert_eq!(cpu_seconds_v2(v2), Some(2.5));
        assert_eq!(cpu_seconds_v1("2500000000\n"), Some(2.5));
        assert_eq!((cpu_seconds_v2("user_usec 1\n"), cpu_seconds_v1("max\n")), (None, None));
    }

    #[test]
    fn the_working_set_has_no_idle_cache() {
        let v1 = "inactive_file 1\ntotal_inactive_file 30\n";
        assert_eq!(working_set(100, v1), Some(70));
        assert_eq!(working_set(100, "anon 5\ninactive_file 40\n"), Some(60));
        // The two are not read at the same moment.
        assert_eq!(working_set(10, "inactive_file 40\n"), Some(0));
        assert_eq!(working_set(10, "anon 5\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_gives_a_figure_that_is_none(text in any::<String>(), like in "(some|full| |total=|[0-9]|\n){0,9}") {
            for text in [text.as_str(), like.as_str()] {
                let Pressure { waiting_seconds, stalled_seconds } = pressure(text);
                let seconds = [
                    waiting_seconds, stalled_seconds, cpu_seconds_v1(text), cpu_seconds_v2(text),
                ];
                for seconds in seconds.into_iter().flatten() {
                    prop_assert!(seconds.is_finite() && seconds >= 0.0);
                }
                prop_assert!(working_set(7, text).is_none_or(|bytes| bytes <= 7));
            }
        }
    }
}
