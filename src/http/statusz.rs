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
//!            "sources":{"cpus":"/sys/fs/cgroup/cpu.max"}},
//!  "exports":["GOMAXPROCS"],
//!  "timeline":[{"at_ms":5000,"phase":"stopping","what":"SIGTERM to the child"}]}
//! ```
//!
//! `stop`, `pid`, the child's `uptime_ms`, `exit`, `signal`, `status`,
//! `changed_ms_ago` and each limit are null when there is none. The members of
//! an object are in no particular order.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::policy::checks::CheckReport;
use crate::policy::exit::ExitReason;
use crate::policy::limits::{Limit, Limits};
use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::timeline::Step;

/// The page, with a newline at its end.
pub(super) fn json(status: &Status, about: &About, now: Instant) -> String {
    let ago = |at: Instant| millis(now.saturating_duration_since(at));
    let began_at = status.child_began_at.filter(|_| status.child_is_up);
    let page = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "phase": status.phase.as_str(),
        "uptime_ms": ago(about.started_at),
        "live": status.is_live(),
        "ready": status.is_ready(),
        "started": status.was_ready,
        "stop": status.stop_requested_at.map(|at| json!({ "requested_ms_ago": ago(at) })),
        "child": {
            "up": status.child_is_up,
            "pid": status.child_pid,
            "uptime_ms": began_at.map(ago),
            "restarts": status.restarts,
            "exit": status.child_exit.map(exit),
            "status": status.notify_status.as_deref(),
        },
        "checks": list(&status.checks, |check| self::check(check, ago)),
        "limits": limits(&status.limits),
        "exports": list(&about.exports, |name| Value::from(*name)),
        "timeline": list(about.timeline(status), step),
    });
    format!("{page}\n")
}

fn list<T>(items: &[T], value: impl Fn(&T) -> Value) -> Value {
    items.iter().map(value).collect()
}

fn check(check: &CheckReport, ago: impl Fn(Instant) -> u64) -> Value {
    json!({
        "check": check.name.as_str(),
        "level": check.level.as_str(),
        "ok": check.is_up,
        "changed_ms_ago": check.changed_at.map(ago),
    })
}

fn exit(reason: ExitReason) -> Value {
    let signal = match reason {
        ExitReason::Code(_) => None,
        ExitReason::Signal(signal) => Some(signal.to_string()),
    };
    json!({ "exit_code": reason.code(), "signal": signal })
}

fn limits(limits: &Limits) -> Value {
    let Limits { cgroup, cpus, memory_bytes, pids, .. } = limits;
    json!({
        "cgroup": cgroup.as_str(),
        "cpus": value(cpus),
        "memory_bytes": value(memory_bytes),
        "pids": value(pids),
        "sources": {
            "cpus": source(cpus),
            "memory_bytes": source(memory_bytes),
            "pids": source(pids),
        },
    })
}

fn value<T: Copy>(limit: &Option<Limit<T>>) -> Option<T> {
    limit.as_ref().map(|limit| limit.value)
}

fn source<T>(limit: &Option<Limit<T>>) -> Option<&str> {
    limit.as_ref().map(|limit| limit.source.as_str())
}

fn step(step: &Step) -> Value {
    json!({
        "at_ms": millis(step.at),
        "phase": step.phase.as_str(),
        "what": step.what.as_str(),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::checks::Level;
    use crate::policy::health::serving;
    use crate::policy::signal::Signal;
    use crate::policy::statusz::about;

    #[test]
    fn the_page_has_the_shape_of_its_description() {
        let now = Instant::now() + Duration::from_secs(3600);
        let ago = |ms| Some(now - Duration::from_millis(ms));
        let mut status = serving();
        status.child_began_at = ago(2500);
        status.stop_requested_at = ago(1200);
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
        let text = json(&status, &about(now - Duration::from_secs(61)), now);
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        let page: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
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
        let text = json(&status, &about(Instant::now()), Instant::now());
        let page: Value = serde_json::from_str(&text).expect("JSON");
        for pointer in [
            "/stop",
            "/child/pid",
            "/child/uptime_ms",
            "/child/exit",
            "/child/status",
            "/limits/pids",
        ] {
            assert_eq!(page.pointer(pointer), Some(&Value::Null), "{pointer}");
        }
    }
}
