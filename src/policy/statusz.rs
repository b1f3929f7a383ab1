//! `/statusz`: everything that castoff knows of itself, for whoever wants to
//! know why.
//!
//! Owns what is told, and how the text is laid out; `http` writes the same as
//! JSON. Nothing secret is told: names of checks and variables, never a target,
//! a value or an argument.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::checks::CheckReport;
use super::exit::ExitReason;
use super::limits::Limit;
use super::status::{PhaseName, Status};
use super::timeline::Step;

/// What does not change between castoff's start and its end.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) started_at: Instant,
    /// Names of the variables that the child gets from castoff.
    pub(crate) exports: Vec<&'static str>,
    /// The timeline of a stop that is asked for while the child serves.
    pub(crate) timeline: Vec<Step>,
    /// The same before the child has been ready.
    pub(crate) early_timeline: Vec<Step>,
}

impl About {
    /// The timeline of a stop that is asked for now, or was.
    pub(crate) fn timeline(&self, status: &Status) -> &[Step] {
        let is_early = match status.phase {
            PhaseName::Starting => true,
            PhaseName::Serving => false,
            _ => !status.was_ready,
        };
        if is_early { &self.early_timeline } else { &self.timeline }
    }
}

/// The page as aligned text.
pub(crate) fn text(status: &Status, about: &About, now: Instant) -> String {
    let since = |at: Instant| now.saturating_duration_since(at);
    let mut page = Page { text: String::with_capacity(2048) };
    page.line("version", &env!("CARGO_PKG_VERSION"));
    page.line("phase", &status.phase.as_str());
    page.line("uptime", &seconds(since(about.started_at)));
    page.line("live", &yes_or_no(status.is_live()));
    page.line("ready", &yes_or_no(status.is_ready()));
    page.line("started", &yes_or_no(status.was_ready));
    let stop = status.stop_requested_at.map(|at| format!("requested {} ago", seconds(since(at))));
    page.line("stop", &stop.as_deref().unwrap_or("not requested"));

    page.head("child");
    page.line("up", &yes_or_no(status.child_is_up));
    page.optional("pid", status.child_pid);
    let began_at = status.child_began_at.filter(|_| status.child_is_up);
    page.optional("uptime", began_at.map(|at| seconds(since(at))));
    page.optional("last exit", status.child_exit.map(exit));
    page.line("restarts", &status.restarts);
    page.optional("status", status.notify_status.as_deref().map(printable));

    page.head("checks");
    page.checks(&status.checks, now);

    page.head("limits");
    let limits = &status.limits;
    page.line("cgroup", &limits.cgroup.as_str());
    page.line("cpus", &limit(&limits.cpus));
    page.line("memory_bytes", &limit(&limits.memory_bytes));
    page.line("pids", &limit(&limits.pids));

    page.head("exported variables");
    page.list(&about.exports);

    page.head("timeline of a stop");
    page.timeline(about.timeline(status));
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, value: &dyn Display) {
        self.text.push_str(&format!("{name:<14}{value}\n"));
    }

    fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.line(name, &value);
        }
    }

    fn head(&mut self, name: &str) {
        self.text.push_str(&format!("\n[{name}]\n"));
    }

    fn checks(&mut self, checks: &[CheckReport], now: Instant) {
        let widest = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
        for check in checks {
            let (name, level) = (&check.name, check.level.as_str());
            let changed = match check.changed_at {
                Some(at) => format!("{} ago", seconds(now.saturating_duration_since(at))),
                None => "never".to_owned(),
            };
            let verdict = if check.is_up { "ok" } else { "failed" };
            self.text.push_str(&format!(
                "{name:<widest$}  {level:<8}  {verdict:<6}  changed {changed}\n"
            ));
        }
        self.none_if(checks.is_empty());
    }

    fn list(&mut self, names: &[&str]) {
        for name in names {
            self.text.push_str(&format!("{name}\n"));
        }
        self.none_if(names.is_empty());
    }

    fn timeline(&mut self, steps: &[Step]) {
        for Step { at, phase, what } in steps {
            let (at, phase) = (at.as_millis(), phase.as_str());
            self.text.push_str(&format!("{at:>8} ms  {phase:<8}  {what}\n"));
        }
    }

    fn none_if(&mut self, is_empty: bool) {
        if is_empty {
            self.text.push_str("none\n");
        }
    }
}

/// `12.345 s`
fn seconds(duration: Duration) -> String {
    format!("{}.{:03} s", duration.as_secs(), duration.subsec_millis())
}

fn yes_or_no(fact: bool) -> &'static str {
    if fact { "yes" } else { "no" }
}

fn exit(reason: ExitReason) -> String {
    match reason {
        ExitReason::Code(code) => format!("exit_code {code}"),
        ExitReason::Signal(signal) => format!("signal {signal}"),
    }
}

fn limit<T: Display>(limit: &Option<Limit<T>>) -> String {
    limit.as_ref().map_or_else(
        || "none".to_owned(),
        |limit| format!("{} ({})", limit.value, printable(&limit.source)),
    )
}

/// One line, whatever it was made of.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What is known of a castoff that serves, for the tests here and of `http`.
#[cfg(test)]
pub(crate) fn about(started_at: Instant) -> About {
    let step = |ms, phase, what: &str| Step {
        at: Duration::from_millis(ms),
        phase,
        what: what.to_owned(),
    };
    About {
        started_at,
        exports: vec!["CASTOFF_CPUS", "GOMAXPROCS"],
        timeline: vec![
            step(0, PhaseName::Draining, "readiness off"),
            step(5000, PhaseName::Stopping, "SIGTERM to the child"),
        ],
        early_timeline: vec![step(0, PhaseName::Stopping, "SIGTERM to the child")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::checks::Level;
    use crate::policy::health::serving;
    use crate::policy::limits::{CgroupKind, Limits};
    use crate::policy::signal::Signal;

    fn ago(now: Instant, ms: u64) -> Option<Instant> {
        Some(now - Duration::from_millis(ms))
    }

    #[test]
    fn the_page_tells_everything_in_aligned_columns() {
        let now = Instant::now() + Duration::from_secs(3600);
        let report = |name: &str, level, is_up, changed_at| CheckReport {
            name: name.to_owned(),
            level,
            is_up,
            changed_at,
            durations: None,
        };
        let status = Status {
            child_began_at: ago(now, 2500),
            child_exit: Some(ExitReason::Signal(Signal::TERM)),
            restarts: 1,
            notify_status: Some("warm\u{1b}[31m".to_owned()),
            checks: vec![
                report("page", Level::Ready, true, ago(now, 1500)),
                report("depends-on-1", Level::Dependency, false, None),
            ],
            limits: Limits {
                cgroup: CgroupKind::V2,
                cpus: Some(Limit { value: 1.5, source: "/sys/fs/cgroup/cpu.max".to_owned() }),
                ..Limits::default()
            },
            ..serving()
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text(&status, &about(now - Duration::from_secs(61)), now),
            format!(
                "version       {version}\n\
                 phase         serving\n\
                 uptime        61.000 s\n\
                 live          yes\n\
                 ready         no\n\
                 started       yes\n\
                 stop          not requested\n\
                 \n[child]\n\
                 up            yes\n\
                 pid           7\n\
                 uptime        2.500 s\n\
                 last exit     signal SIGTERM\n\
                 restarts      1\n\
                 status        warm?[31m\n\
                 \n[checks]\n\
                 page          ready     ok      changed 1.500 s ago\n\
                 depends-on-1  ready     failed  changed never\n\
                 \n[limits]\n\
                 cgroup        v2\n\
                 cpus          1.5 (/sys/fs/cgroup/cpu.max)\n\
                 memory_bytes  none\n\
                 pids          none\n\
                 \n[exported variables]\n\
                 CASTOFF_CPUS\n\
                 GOMAXPROCS\n\
                 \n[timeline of a stop]\n       \
                 0 ms  draining  readiness off\n    \
                 5000 ms  stopping  SIGTERM to the child\n"
            )
        );
    }

    #[test]
    fn a_child_that_never_served_has_a_shorter_timeline() {
        let now = Instant::now();
        let about = About { exports: vec![], ..about(now) };
        let starting = Status { was_ready: false, ..Status::new(Default::default()) };
        let page = text(&starting, &about, now);
        assert!(
            page.ends_with("[timeline of a stop]\n       0 ms  stopping  SIGTERM to the child\n")
        );
        assert!(page.contains("\n[exported variables]\nnone\n"), "{page}");
        assert!(page.contains("\n[checks]\nnone\n"), "{page}");
        let (phase, stop_requested_at) = (PhaseName::Stopping, Some(now));
        let stopping = Status { phase, stop_requested_at, ..serving() };
        assert_eq!(about.timeline(&stopping).len(), 2);
        assert_eq!(about.timeline(&Status { was_ready: false, ..stopping }).len(), 1);
        let page = text(&Status { stop_requested_at, ..serving() }, &about, now);
        assert!(page.contains("\nstop          requested 0.000 s ago\n"), "{page}");
    }
}
