//! `/statusz` as JSON, for programs.
//!
//! What is told is decided in `policy::statusz`; here it gets its form, in which
//! whatever the child said of itself is escaped. All names are those of the log.
//!
//! ```json
//! {"version":"0.1.0","phase":"serving","uptime_ms":61000,
//!  "live":true,"ready":false,"started":true,
//!  "stop":{"requested_ms_ago":1200},
//!  "child":{"up":true,"pid":7,"uptime_ms":2500,"restarts":1,
//!           "exit":{"exit_code":143,"signal":"SIGTERM"},"status":"warm"},
//!  "checks":[{"check":"page","level":"ready","ok":true,"changed_ms_ago":1500}],
//!  "limits":{"cgroup":"v2","cpus":1.5,"memory_bytes":null,"pids":null,
//!            "sources":{"cpus":"/sys/fs/cgroup/cpu.max","memory_bytes":null,"pids":null}},
//!  "used":{"cpu_seconds":2.5,"throttled_periods":3,"throttled_seconds":0.25,"memory_bytes":7340032,
//!          "working_set_bytes":5242880,"pids":12,
//!          "pressure":{"cpu":{"waiting_seconds":1.5,"stalled_seconds":0},"memory":{..},"io":{..}}},
//!  "processes":{"processes":3,"threads":11,"zombies":1,"cpu_seconds":2.25,"resident_bytes":4194304,
//!               "virtual_bytes":9437184,"open_fds":20,"unreaped":[{"pid":12,"command":"sh",
//!               "parent_pid":7,"parent_command":"serve"}]},
//!  "exports":["GOMAXPROCS"],
//!  "timeline":[{"at_ms":5000,"phase":"stopping","what":"SIGTERM to the child"}]}
//! ```
//!
//! `stop`, `pid`, the child's `uptime_ms`, `exit`, `signal`, `status`,
//! `changed_ms_ago`, each limit and its source, each figure of `used` and all of
//! `processes` are null when there is none.

use std::fmt::{self, Display, Write as _};
use std::time::Instant;

use serde_json::Value;

use crate::policy::exit::ExitReason;
use crate::policy::limits::{Limit, Limits};
use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::usage::{RESOURCES, Tree, Usage};

/// The page, with a newline at its end.
pub(super) fn json(status: &Status, usage: &Usage, about: &About, now: Instant) -> String {
    let ago = |at: Instant| now.saturating_duration_since(at).as_millis();
    let mut page = Json { text: String::with_capacity(2048) };
    page.open("", '{');
    page.text("version", Some(env!("CARGO_PKG_VERSION")));
    page.text("phase", Some(status.phase.as_str()));
    page.value("uptime_ms", &ago(about.started_at));
    page.value("live", &status.is_live());
    page.value("ready", &status.is_ready());
    page.value("started", &status.was_ready);
    match status.stop_requested_at {
        Some(at) => {
            page.open("stop", '{');
            page.value("requested_ms_ago", &ago(at));
            page.close('}');
        }
        None => page.value("stop", &NULL),
    }
    page.open("child", '{');
    page.value("up", &status.child_is_up);
    page.value("pid", &OrNull(status.child_pid));
    let began_at = status.child_began_at.filter(|_| status.child_is_up);
    page.value("uptime_ms", &OrNull(began_at.map(ago)));
    page.value("restarts", &status.restarts);
    page.exit(status.child_exit);
    page.text("status", status.notify_status.as_deref());
    page.close('}');
    page.open("checks", '[');
    for check in &status.checks {
        page.open("", '{');
        page.text("check", Some(&check.name));
        page.text("level", Some(check.level.as_str()));
        page.value("ok", &check.is_up);
        page.value("changed_ms_ago", &OrNull(check.changed_at.map(ago)));
        page.close('}');
    }
    page.close(']');
    page.limits(&status.limits);
    page.used(usage);
    page.processes(usage.tree.as_ref());
    page.open("exports", '[');
    for name in &status.exports {
        page.text("", Some(name));
    }
    page.close(']');
    page.open("timeline", '[');
    for step in about.timeline(status) {
        page.open("", '{');
        page.value("at_ms", &step.at.as_millis());
        page.text("phase", Some(step.phase.as_str()));
        page.text("what", Some(&step.what));
        page.close('}');
    }
    page.close(']');
    page.close('}');
    page.text.push('\n');
    page.text
}

const NULL: &str = "null";

/// JSON so far. A tree of serde_json's values would cost more code than all the
/// rest of the page, and lose the order.
struct Json {
    text: String,
}

impl Json {
    /// Begins an object or an array; elements of an array have no name.
    fn open(&mut self, name: &str, bracket: char) {
        self.name(name);
        self.text.push(bracket);
    }

    fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// A number, a boolean or null.
    fn value(&mut self, name: &str, value: &dyn Display) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// A string, whatever it holds, or null.
    fn text(&mut self, name: &str, text: Option<&str>) {
        self.value(name, &Value::from(text));
    }

    /// Names are castoff's own and need no escape.
    fn name(&mut self, name: &str) {
        if !self.text.is_empty() && !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        if !name.is_empty() {
            self.text.extend(["\"", name, "\":"]);
        }
    }

    fn exit(&mut self, exit: Option<ExitReason>) {
        let Some(reason) = exit else { return self.value("exit", &NULL) };
        let signal = match reason {
            ExitReason::Code(_) => None,
            ExitReason::Signal(signal) => Some(signal.to_string()),
        };
        self.open("exit", '{');
        self.value("exit_code", &reason.code());
        self.text("signal", signal.as_deref());
        self.close('}');
    }

    fn limits(&mut self, limits: &Limits) {
        let Limits { cgroup, cpus, memory_bytes, pids, .. } = limits;
        let finite = value(cpus).filter(|cpus| cpus.is_finite());
        self.open("limits", '{');
        self.text("cgroup", Some(cgroup.as_str()));
        self.value("cpus", &OrNull(finite));
        self.value("memory_bytes", &OrNull(value(memory_bytes)));
        self.value("pids", &OrNull(value(pids)));
        self.open("sources", '{');
        self.text("cpus", source(cpus));
        self.text("memory_bytes", source(memory_bytes));
        self.text("pids", source(pids));
        self.close('}');
        self.close('}');
    }

    fn used(&mut self, usage: &Usage) {
        self.open("used", '{');
        self.seconds("cpu_seconds", usage.cpu_seconds);
        self.value("throttled_periods", &OrNull(usage.throttled_periods));
        self.seconds("throttled_seconds", usage.throttled_seconds);
        self.value("memory_bytes", &OrNull(usage.memory_bytes));
        self.value("working_set_bytes", &OrNull(usage.working_set_bytes));
        self.value("pids", &OrNull(usage.pids));
        self.open("pressure", '{');
        for (resource, pressure) in RESOURCES.into_iter().zip(usage.pressure) {
            self.open(resource, '{');
            self.seconds("waiting_seconds", pressure.waiting_seconds);
            self.seconds("stalled_seconds", pressure.stalled_seconds);
            self.close('}');
        }
        self.close('}');
        self.close('}');
    }

    fn processes(&mut self, tree: Option<&Tree>) {
        let Some(tree) = tree else { return self.value("processes", &NULL) };
        self.open("processes", '{');
        self.value("processes", &tree.processes);
        self.value("threads", &tree.threads);
        self.value("zombies", &tree.zombies);
        self.seconds("cpu_seconds", Some(tree.cpu_seconds));
        self.value("resident_bytes", &tree.resident_bytes);
        self.value("virtual_bytes", &tree.virtual_bytes);
        self.value("open_fds", &OrNull(tree.open_fds));
        self.open("unreaped", '[');
        for zombie in &tree.unreaped {
            self.open("", '{');
            self.value("pid", &zombie.pid);
            self.text("command", Some(&zombie.command));
            self.value("parent_pid", &zombie.parent_pid);
            self.text("parent_command", Some(&zombie.parent_command));
            self.close('}');
        }
        self.close(']');
        self.close('}');
    }

    fn seconds(&mut self, name: &str, seconds: Option<f64>) {
        self.value(name, &OrNull(seconds.filter(|seconds| seconds.is_finite())));
    }
}

struct OrNull<T>(Option<T>);

impl<T: Display> Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NULL),
        }
    }
}

fn value<T: Copy>(limit: &Option<Limit<T>>) -> Option<T> {
    limit.as_ref().map(|limit| limit.value)
}

fn source<T>(limit: &Option<Limit<T>>) -> Option<&str> {
    limit.as_ref().map(|limit| limit.source.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json as tree;

    use super::*;
    use crate::policy::checks::{CheckReport, Level};
    use crate::policy::health::serving;
    use crate::policy::signal::Signal;
    use crate::policy::statusz::{about, used};

    #[test]
    fn the_page_has_the_shape_of_its_description() {
        let now = Instant::now() + Duration::from_secs(3600);
        let ago = |ms| Some(now - Duration::from_millis(ms));
        let mut status = serving();
        status.child_began_at = ago(2500);
        status.stop_requested_at = ago(1200);
        status.exports = vec!["CASTOFF_CPUS", "GOMAXPROCS"];
        status.child_exit = Some(ExitReason::Signal(Signal::TERM));
        status.notify_status = Some("\"\u{7f}\\".to_owned());
        let source = "/sys/fs/cgroup/cpu.max".to_owned();
        status.limits.cpus = Some(Limit { value: 1.5, source });
        status.checks.push(CheckReport {
            name: "page".to_owned(),
            level: Level::Dependency,
            is_up: false,
            changed_at: ago(1500),
            durations: None,
        });
        let text = json(&status, &used(), &about(now - Duration::from_secs(61)), now);
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        let expected = tree!({
            "version": env!("CARGO_PKG_VERSION"), "phase": "serving", "uptime_ms": 61000,
            "live": true, "ready": false, "started": true, "stop": { "requested_ms_ago": 1200 },
            "child": {
                "up": true, "pid": 7, "uptime_ms": 2500, "restarts": 0,
                "exit": { "exit_code": 143, "signal": "SIGTERM" }, "status": "\"\u{7f}\\",
            },
            "checks": [
                { "check": "page", "level": "ready", "ok": false, "changed_ms_ago": 1500 },
            ],
            "limits": {
                "cgroup": "none", "cpus": 1.5, "memory_bytes": null, "pids": null,
                "sources": {
                    "cpus": "/sys/fs/cgroup/cpu.max", "memory_bytes": null, "pids": null,
                },
            },
            "used": {
                "cpu_seconds": 2.5, "throttled_periods": 3, "throttled_seconds": 0.25,
                "memory_bytes": 7_340_032, "working_set_bytes": 5_242_880, "pids": 12,
                "pressure": {
                    "cpu": { "waiting_seconds": 1.5, "stalled_seconds": 0 },
                    "memory": { "waiting_seconds": 0, "stalled_seconds": null },
                    "io": { "waiting_seconds": null, "stalled_seconds": null },
                },
            },
            "processes": {
                "processes": 3, "threads": 11, "zombies": 1, "cpu_seconds": 2.25,
                "resident_bytes": 4_194_304, "virtual_bytes": 9_437_184, "open_fds": 20,
                "unreaped": [
                    { "pid": 12, "command": "a\nb", "parent_pid": 7, "parent_command": "serve" },
                ],
            },
            "exports": ["CASTOFF_CPUS", "GOMAXPROCS"],
            "timeline": [
                { "at_ms": 0, "phase": "draining", "what": "readiness off" },
                { "at_ms": 5000, "phase": "stopping", "what": "SIGTERM to the child" },
            ],
        });
        assert_eq!(page, expected);
    }

    #[test]
    fn what_is_not_there_is_null() {
        let status = Status::new(Limits::default());
        let text = json(&status, &Usage::default(), &about(Instant::now()), Instant::now());
        let page: Value = serde_json::from_str(&text).expect("JSON");
        for pointer in [
            "/stop",
            "/child/pid",
            "/child/uptime_ms",
            "/child/exit",
            "/child/status",
            "/limits/pids",
            "/used/pids",
            "/used/pressure/io/waiting_seconds",
            "/processes",
        ] {
            assert_eq!(page.pointer(pointer), Some(&Value::Null), "{pointer}");
        }
    }
}
