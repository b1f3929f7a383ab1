//! `/metrics`: a `Status` and a `Usage` in, text out.
//!
//! Two formats share one list: the Prometheus text format 0.0.4 and
//! OpenMetrics 1.0, which names a counter's family without `_total` and ends
//! with `# EOF`. A metric whose source is missing is left out: a limit of 0
//! and no limit are not the same.

use super::accept::{Range, ranges};
use super::checks::{BOUNDS, CheckReport, Durations};
use super::death::ExitCounts;
use super::exit::ExitReason;
use super::status::{PhaseName, SignalCounts, Status};
use super::usage::{Pressure, RESOURCES, Tree, Usage};
use std::fmt::Display;

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text format 0.0.4, for whoever does not ask for the other.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that `accept`, the value of a request's Accept header,
    /// prefers. OpenMetrics must be named: a wildcard gets the text format.
    pub(crate) fn from_accept(accept: &str) -> Self {
        let mut open_metrics = 0.0_f32;
        let mut text = 0.0_f32;
        for Range { media_type, version, quality } in ranges(accept) {
            match (media_type.as_str(), version) {
                ("application/openmetrics-text", "" | "1.0.0") => {
                    open_metrics = open_metrics.max(quality);
                }
                ("text/plain", "" | "0.0.4") | ("text/*" | "*/*", _) => text = text.max(quality),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Every metric whose source exists, each with its HELP and TYPE.
pub(crate) fn render(status: &Status, usage: &Usage, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(8192), format };
    page.info("castoff", "The version of castoff.", "version", env!("CARGO_PKG_VERSION"));
    page.family("castoff_phase", Kind::Gauge, "1 for the phase that castoff is in, 0 for others.");
    for phase in PhaseName::ALL {
        let is_in = u8::from(phase == status.phase);
        page.labelled("castoff_phase", Kind::Gauge, "phase", phase.as_str(), is_in);
    }
    page.gauge("castoff_ready", "1 while /readyz passes.", Some(u8::from(status.is_ready())));
    page.gauge("castoff_live", "1 while /livez passes.", Some(u8::from(status.is_live())));
    page.gauge("castoff_child_up", "1 while the child runs.", Some(u8::from(status.child_is_up)));
    page.gauge(
        "castoff_child_start_time_seconds",
        "When the child was started, in seconds since the epoch.",
        status.child_started_at.filter(|seconds| seconds.is_finite()),
    );
    page.gauge(
        "castoff_child_exit_code",
        "The child's last exit code, or 128 + n when signal n ended it.",
        status.child_exit.map(ExitReason::code),
    );
    page.exits(&status.child_exits);
    page.signals(
        "castoff_signals_received",
        "Signals that castoff has received.",
        &status.signals_received,
    );
    page.signals(
        "castoff_signals_forwarded",
        "Signals that castoff has passed on to the child.",
        &status.signals_forwarded,
    );
    page.counter(
        "castoff_orphans_reaped",
        "Processes reaped that castoff did not start itself.",
        Some(status.orphans_reaped),
    );
    page.counter(
        "castoff_child_restarts",
        "How often the child was started again.",
        Some(status.restarts),
    );
    page.gauge(
        "castoff_drain_connections",
        "Connections to the child that are open during the stop.",
        status.drain_connections,
    );
    page.counter(
        "castoff_late_connections",
        "Connections that came although the child had been told to stop.",
        Some(status.late_connections),
    );
    page.counter(
        "castoff_watch_changes",
        "How often watched files have changed.",
        status.config_changes,
    );
    page.checks(&status.checks);
    page.gauge(
        "castoff_cpu_limit_cores",
        "CPUs that the container may use.",
        status.limits.cpus.as_ref().map(|limit| limit.value).filter(|cores| cores.is_finite()),
    );
    page.gauge(
        "castoff_memory_limit_bytes",
        "Memory that the container may use.",
        status.limits.memory_bytes.as_ref().map(|limit| limit.value),
    );
    page.gauge(
        "castoff_pids_limit",
        "Processes and threads that the container may have.",
        status.limits.pids.as_ref().map(|limit| limit.value),
    );
    page.usage(usage);
    page.pressure(&usage.pressure);
    if let Some(tree) = &usage.tree {
        page.tree(tree);
    }
    page.counter(
        "castoff_oom_kills",
        "Processes of the container that the OOM killer has killed.",
        usage.oom_kills,
    );
    if let Some(lines) = usage.log_lines {
        let name = "castoff_child_log_lines";
        page.family(name, Kind::Counter, "Lines that the child's tree has written.");
        for (stream, count) in lines {
            page.labelled(name, Kind::Counter, "stream", stream.as_str(), count);
        }
    }
    page.counter(
        "castoff_log_dropped",
        "Log lines that could not be written.",
        Some(usage.log_lines_dropped),
    );
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

/// The type of a family. The name of a counter is given without `_total`,
/// that of an info without `_info`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Histogram,
    Info,
}

impl Kind {
    /// What a sample's name has that the family's name in OpenMetrics has not.
    fn suffix(self) -> &'static str {
        match self {
            // A histogram's samples have one each.
            Self::Gauge | Self::Histogram => "",
            Self::Counter => "_total",
            Self::Info => "_info",
        }
    }

    fn as_str(self, format: Format) -> &'static str {
        match (self, format) {
            (Self::Counter, _) => "counter",
            (Self::Histogram, _) => "histogram",
            (Self::Info, Format::OpenMetrics) => "info",
            (Self::Gauge, _) | (Self::Info, Format::Text) => "gauge",
        }
    }
}

/// The text so far. Help texts and label values are castoff's own and hold
/// nothing that either format would want escaped.
struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let suffix = match self.format {
            Format::Text => kind.suffix(),
            Format::OpenMetrics => "",
        };
        let type_name = kind.as_str(self.format);
        self.text.push_str(&format!(
            "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {type_name}\n"
        ));
    }

    fn sample(&mut self, name: &str, kind: Kind, value: impl Display) {
        self.text.push_str(&format!("{name}{} {value}\n", kind.suffix()));
    }

    fn labelled(
        &mut self,
        name: &str,
        kind: Kind,
        label: &str,
        text: impl Display,
        value: impl Display,
    ) {
        let suffix = kind.suffix();
        self.text.push_str(&format!("{name}{suffix}{{{label}=\"{text}\"}} {value}\n"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        self.single(name, Kind::Gauge, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        self.single(name, Kind::Counter, help, value);
    }

    fn usage(&mut self, usage: &Usage) {
        self.gauge(
            "castoff_memory_usage_bytes",
            "Memory that the container uses, page cache included.",
            usage.memory_bytes,
        );
        self.gauge(
            "castoff_memory_working_set_bytes",
            "The same without the page cache that can be dropped at once.",
            usage.working_set_bytes,
        );
        self.gauge(
            "castoff_pids",
            "Processes and threads that the container has, as its limit counts them.",
            usage.pids,
        );
        self.seconds(
            "castoff_cpu_usage_seconds",
            "CPU time that the container has used.",
            usage.cpu_seconds,
        );
        self.counter(
            "castoff_cpu_throttled_periods",
            "Periods in which the CPU limit held the container back.",
            usage.throttled_periods,
        );
        self.seconds(
            "castoff_cpu_throttled_seconds",
            "Time for which the CPU limit held the container back.",
            usage.throttled_seconds,
        );
    }

    fn pressure(&mut self, pressure: &[Pressure; 3]) {
        for (resource, pressure) in RESOURCES.into_iter().zip(pressure) {
            self.seconds(
                &format!("castoff_pressure_{resource}_waiting_seconds"),
                "Time in which a task of the container or more waited for it.",
                pressure.waiting_seconds,
            );
            self.seconds(
                &format!("castoff_pressure_{resource}_stalled_seconds"),
                "Time in which all tasks of the container waited for it.",
                pressure.stalled_seconds,
            );
        }
    }

    fn tree(&mut self, tree: &Tree) {
        self.gauge(
            "castoff_processes",
            "Processes that castoff answers for, without itself and zombies.",
            Some(tree.processes),
        );
        self.gauge(
            "castoff_zombies",
            "Processes that have ended and that nobody has reaped yet.",
            Some(tree.zombies),
        );
        self.seconds(
            "castoff_child_cpu_seconds",
            "CPU time of castoff's descendants, of those that have ended too.",
            Some(tree.cpu_seconds),
        );
        self.gauge(
            "castoff_child_resident_memory_bytes",
            "Resident memory of castoff's descendants, shared memory once for each.",
            Some(tree.resident_bytes),
        );
        self.gauge(
            "castoff_child_virtual_memory_bytes",
            "Virtual memory of castoff's descendants.",
            Some(tree.virtual_bytes),
        );
        self.gauge(
            "castoff_child_threads",
            "Threads of castoff's descendants.",
            Some(tree.threads),
        );
        self.gauge(
            "castoff_child_open_fds",
            "Descriptors that castoff's descendants have open.",
            tree.open_fds,
        );
    }

    fn seconds(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.counter(name, help, value.filter(|seconds| seconds.is_finite()));
    }

    fn single(&mut self, name: &str, kind: Kind, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(name, kind, value);
        }
    }

    fn info(&mut self, name: &str, help: &str, label: &str, text: &str) {
        self.family(name, Kind::Info, help);
        self.labelled(name, Kind::Info, label, text, 1);
    }

    fn signals(&mut self, name: &str, help: &str, counts: &SignalCounts) {
        let mut seen = counts.seen().peekable();
        if seen.peek().is_some() {
            self.family(name, Kind::Counter, help);
        }
        for (signal, count) in seen {
            self.labelled(name, Kind::Counter, "signal", signal, count);
        }
    }

    /// All of them from the start, so that the first one is a rise.
    fn exits(&mut self, counts: &ExitCounts) {
        const NAME: &str = "castoff_child_exits";
        self.family(NAME, Kind::Counter, "How often a child has ended, by reason.");
        for (reason, count) in counts.all() {
            self.labelled(NAME, Kind::Counter, "reason", reason.as_str(), count);
        }
    }

    fn checks(&mut self, checks: &[CheckReport]) {
        const UP: &str = "castoff_check_up";
        const DURATION: &str = "castoff_check_duration_seconds";
        if !checks.is_empty() {
            self.family(UP, Kind::Gauge, "1 while the check passes.");
        }
        for check in checks {
            let (labels, is_up) = (labels_of(check), u8::from(check.is_up));
            self.text.push_str(&format!("{UP}{{{labels}}} {is_up}\n"));
        }
        let timed = || checks.iter().filter_map(|check| Some((check, check.durations?)));
        if timed().next().is_some() {
            self.family(DURATION, Kind::Histogram, "How long each run of the check took.");
        }
        for (check, durations) in timed() {
            self.histogram(DURATION, &labels_of(check), &durations);
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, durations: &Durations) {
        let cumulative = durations.cumulative();
        for (nth, count) in cumulative.iter().enumerate() {
            let le = match (BOUNDS.get(nth), self.format) {
                (None, _) => "+Inf".to_owned(),
                (Some(bound), Format::Text) => bound.to_string(),
                // Its canonical numbers have a point: 1.0.
                (Some(bound), Format::OpenMetrics) => format!("{bound:?}"),
            };
            self.text.push_str(&format!("{name}_bucket{{{labels},le=\"{le}\"}} {count}\n"));
        }
        let (sum, count) = (durations.sum().as_secs_f64(), cumulative.last().copied());
        self.text.push_str(&format!("{name}_sum{{{labels}}} {sum}\n"));
        self.text.push_str(&format!("{name}_count{{{labels}}} {}\n", count.unwrap_or_default()));
    }
}

fn labels_of(check: &CheckReport) -> String {
    format!("check=\"{}\",level=\"{}\"", check.name, check.level.as_str())
}

#[cfg(test)]
mod tests;
