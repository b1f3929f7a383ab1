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
//!            "sources":{"cpus":"/sys/fs/cgroup/cpu.max","memory_bytes":null,"pids":null},
//!            "levels":{"cpus":0,"memory_bytes":null,"pids":null}},
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

use std::time::Instant;

use crate::json::{Json, NULL, OrNull};
use crate::policy::exit::ExitReason;
use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::usage::{RESOURCES, Tree, Usage};

/// The page, with a newline at its end.
pub(super) fn json(status: &Status, usage: &Usage, about: &About, now: Instant) -> String {
    let ago = |at: Instant| now.saturating_duration_since(at).as_millis();
    let mut page = Json::new();
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
    exit(&mut page, status.child_exit);
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
    page.open("limits", '{');
    page.limits(&status.limits);
    page.close('}');
    used(&mut page, usage);
    processes(&mut page, usage.tree.as_ref());
    page.open("exports", '[');
    for name in &status.exports {
        page.text("", Some(name));
    }
    page.close(']');
    page.timeline(about.timeline(status));
    page.end()
}

fn exit(page: &mut Json, exit: Option<ExitReason>) {
    let Some(reason) = exit else { return page.value("exit", &NULL) };
    let signal = match reason {
        ExitReason::Code(_) => None,
        ExitReason::Signal(signal) => Some(signal.to_string()),
    };
    page.open("exit", '{');
    page.value("exit_code", &reason.code());
    page.text("signal", signal.as_deref());
    page.close('}');
}

fn used(page: &mut Json, usage: &Usage) {
    page.open("used", '{');
    seconds(page, "cpu_seconds", usage.cpu_seconds);
    page.value("throttled_periods", &OrNull(usage.throttled_periods));
    seconds(page, "throttled_seconds", usage.throttled_seconds);
    page.value("memory_bytes", &OrNull(usage.memory_bytes));
    page.value("working_set_bytes", &OrNull(usage.working_set_bytes));
    page.value("pids", &OrNull(usage.pids));
    page.open("pressure", '{');
    for (resource, pressure) in RESOURCES.into_iter().zip(usage.pressure) {
        page.open(resource, '{');
        seconds(page, "waiting_seconds", pressure.waiting_seconds);
        seconds(page, "stalled_seconds", pressure.stalled_seconds);
        page.close('}');
    }
    page.close('}');
    page.close('}');
}

fn processes(page: &mut Json, tree: Option<&Tree>) {
    let Some(tree) = tree else { return page.value("processes", &NULL) };
    page.open("processes", '{');
    page.value("processes", &tree.processes);
    page.value("threads", &tree.threads);
    page.value("zombies", &tree.zombies);
    seconds(page, "cpu_seconds", Some(tree.cpu_seconds));
    page.value("resident_bytes", &tree.resident_bytes);
    page.value("virtual_bytes", &tree.virtual_bytes);
    page.value("open_fds", &OrNull(tree.open_fds));
    page.open("unreaped", '[');
    for zombie in &tree.unreaped {
        page.open("", '{');
        page.value("pid", &zombie.pid);
        page.text("command", Some(&zombie.command));
        page.value("parent_pid", &zombie.parent_pid);
        page.text("parent_command", Some(&zombie.parent_command));
        page.close('}');
    }
    page.close(']');
    page.close('}');
}

fn seconds(page: &mut Json, name: &str, seconds: Option<f64>) {
    page.value(name, &OrNull(seconds.filter(|seconds| seconds.is_finite())));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json as tree};

    use super::*;
    use crate::policy::checks::{CheckReport, Level};
    use crate::policy::health::serving;
    use crate::policy::limits::{Limit, Limits};
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
        status.limits.levels.cpus = Some(0);
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
                "levels": { "cpus": 0, "memory_bytes": null, "pids": null },
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
