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
use super::usage::{Pressure, RESOURCES, Tree, Unreaped, Usage};

/// What does not change between castoff's start and its end.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) started_at: Instant,
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
pub(crate) fn text(status: &Status, usage: &Usage, about: &About, now: Instant) -> String {
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
    page.line("cpus", &limit(&limits.cpus, limits.levels.cpus));
    page.line("memory_bytes", &limit(&limits.memory_bytes, limits.levels.memory_bytes));
    page.line("pids", &limit(&limits.pids, limits.levels.pids));

    page.head("used");
    page.usage(usage);
    page.head("processes");
    page.tree(usage.tree.as_ref());

    page.head("exported variables");
    page.list(&status.exports);

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

    fn usage(&mut self, usage: &Usage) {
        let before = self.text.len();
        self.optional("cpu", usage.cpu_seconds.map(of_float));
        self.optional("throttled", usage.throttled_seconds.map(of_float));
        self.optional("memory_bytes", usage.memory_bytes);
        self.optional("working set", usage.working_set_bytes);
        self.optional("pids", usage.pids);
        for (resource, Pressure { waiting_seconds, stalled_seconds }) in
            RESOURCES.into_iter().zip(usage.pressure)
        {
            if let Some(waiting) = waiting_seconds {
                let stalled = stalled_seconds.map(|time| format!(", stalled {}", of_float(time)));
                let (waiting, stalled) = (of_float(waiting), stalled.unwrap_or_default());
                self.line(&format!("{resource} wait"), &format!("{waiting}{stalled}"));
            }
        }
        self.none_if(self.text.len() == before);
    }

    fn tree(&mut self, tree: Option<&Tree>) {
        let Some(tree) = tree else {
            self.text.push_str("not known\n");
            return;
        };
        self.line("processes", &tree.processes);
        self.line("zombies", &tree.zombies);
        self.line("threads", &tree.threads);
        self.line("cpu", &of_float(tree.cpu_seconds));
        self.line("resident", &tree.resident_bytes);
        self.optional("open fds", tree.open_fds);
        for Unreaped { pid, command, parent_pid, parent_command } in &tree.unreaped {
            let (command, parent) = (printable(command), printable(parent_command));
            self.text.push_str(&format!(
                "zombie {pid} ({command}) waits for its parent {parent_pid} ({parent})\n"
            ));
        }
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

/// The same of a number of seconds. Floats in a format of their own would bring
/// code that nothing else here needs.
fn of_float(time: f64) -> String {
    seconds(Duration::try_from_secs_f64(time).unwrap_or_default())
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

fn limit<T: Display>(limit: &Option<Limit<T>>, level: Option<usize>) -> String {
    limit.as_ref().map_or_else(
        || "none".to_owned(),
        |limit| format!("{} ({})", limit.value, printable(&place(&limit.source, level))),
    )
}

/// Where a limit is from: the file, and whose it is.
pub(crate) fn place(source: &str, level: Option<usize>) -> String {
    match level {
        Some(0) => format!("{source}, the own group"),
        Some(1) => format!("{source}, the group above"),
        Some(levels) => format!("{source}, {levels} groups above"),
        None => source.to_owned(),
    }
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
        timeline: vec![
            step(0, PhaseName::Draining, "readiness off"),
            step(5000, PhaseName::Stopping, "SIGTERM to the child"),
        ],
        early_timeline: vec![step(0, PhaseName::Stopping, "SIGTERM to the child")],
    }
}

/// A usage with something to tell, for the same tests.
#[cfg(test)]
pub(crate) fn used() -> Usage {
    let unreaped = Unreaped {
        pid: 12,
        command: "a\nb".to_owned(),
        parent_pid: 7,
        parent_command: "serve".to_owned(),
    };
    use super::log_style::Stream;
    let tree = Tree {
        processes: 3,
        threads: 11,
        zombies: 1,
        unreaped: vec![unreaped],
        cpu_seconds: 2.25,
        resident_bytes: 4 << 20,
        virtual_bytes: 9 << 20,
        open_fds: Some(20),
    };
    let waiting =
        |waiting, stalled_seconds| Pressure { waiting_seconds: Some(waiting), stalled_seconds };
    Usage {
        oom_kills: None,
        memory_bytes: Some(7 << 20),
        working_set_bytes: Some(5 << 20),
        cpu_seconds: Some(2.5),
        throttled_periods: Some(3),
        throttled_seconds: Some(0.25),
        pids: Some(12),
        pressure: [waiting(1.5, Some(0.0)), waiting(0.0, None), Pressure::default()],
        tree: Some(tree),
        log_lines_dropped: 2,
        log_lines: Some([(Stream::Stdout, 40), (Stream::Stderr, 2)]),
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
            exports: vec!["CASTOFF_CPUS", "GOMAXPROCS"],
            limits: Limits {
                cgroup: CgroupKind::V2,
                cpus: Some(Limit { value: 1.5, source: "/sys/fs/cgroup/cpu.max".to_owned() }),
                ..Limits::default()
            },
            ..serving()
        };
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text(&status, &used(), &about(now - Duration::from_secs(61)), now),
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
                 \n[used]\n\
                 cpu           2.500 s\n\
                 throttled     0.250 s\n\
                 memory_bytes  7340032\n\
                 working set   5242880\n\
                 pids          12\n\
                 cpu wait      1.500 s, stalled 0.000 s\n\
                 memory wait   0.000 s\n\
                 \n[processes]\n\
                 processes     3\n\
                 zombies       1\n\
                 threads       11\n\
                 cpu           2.250 s\n\
                 resident      4194304\n\
                 open fds      20\n\
                 zombie 12 (a?b) waits for its parent 7 (serve)\n\
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
        let about = about(now);
        let starting = Status { was_ready: false, ..Status::new(Default::default()) };
        let page = text(&starting, &Usage::default(), &about, now);
        assert!(page.contains("\n[used]\nnone\n\n[processes]\nnot known\n"), "{page}");
        assert!(
            page.ends_with("[timeline of a stop]\n       0 ms  stopping  SIGTERM to the child\n")
        );
        assert!(page.contains("\n[exported variables]\nnone\n"), "{page}");
        assert!(page.contains("\n[checks]\nnone\n"), "{page}");
        let (phase, stop_requested_at) = (PhaseName::Stopping, Some(now));
        let stopping = Status { phase, stop_requested_at, ..serving() };
        assert_eq!(about.timeline(&stopping).len(), 2);
        assert_eq!(about.timeline(&Status { was_ready: false, ..stopping }).len(), 1);
        let page = text(&Status { stop_requested_at, ..serving() }, &used(), &about, now);
        assert!(page.contains("\nstop          requested 0.000 s ago\n"), "{page}");
    }
}
