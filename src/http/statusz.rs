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
//!  "exports":["GOMAXPROCS"],
//!  "timeline":[{"at_ms":5000,"phase":"stopping","what":"SIGTERM to the child"}]}
//! ```
//!
//! `stop`, `pid`, the child's `uptime_ms`, `exit`, `signal`, `status`,
//! `changed_ms_ago`, each limit and its source are null when there is none.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::policy::checks::CheckReport;
use crate::policy::exit::ExitReason;
use crate::policy::limits::{Limit, Limits};
use crate::policy::status::Status;
use crate::policy::statusz::About;
use crate::policy::timeline::Step;

/// The page, with a newline at its end.
pub(super) fn json(status: &Status, about: &About, now: Instant) -> String {
    let since = |at: Instant| now.saturating_duration_since(at);
    let stop =
        status.stop_requested_at.map(|at| object(&[("requested_ms_ago", millis(since(at)))]));
    let began_at = status.child_began_at.filter(|_| status.child_is_up);
    let child = object(&[
        ("up", boolean(status.child_is_up)),
        ("pid", or_null(status.child_pid.map(|pid| pid.to_string()))),
        ("uptime_ms", or_null(began_at.map(|at| millis(since(at))))),
        ("restarts", status.restarts.to_string()),
        ("exit", or_null(status.child_exit.map(exit))),
        ("status", or_null(status.notify_status.as_deref().map(text))),
    ]);
    let check = |check: &CheckReport| {
        object(&[
            ("check", text(&check.name)),
            ("level", text(check.level.as_str())),
            ("ok", boolean(check.is_up)),
            ("changed_ms_ago", or_null(check.changed_at.map(|at| millis(since(at))))),
        ])
    };
    let mut page = object(&[
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("phase", text(status.phase.as_str())),
        ("uptime_ms", millis(since(about.started_at))),
        ("live", boolean(status.is_live())),
        ("ready", boolean(status.is_ready())),
        ("started", boolean(status.was_ready)),
        ("stop", or_null(stop)),
        ("child", child),
        ("checks", array(status.checks.iter().map(check).collect())),
        ("limits", limits(&status.limits)),
        ("exports", array(about.exports.iter().map(|name| text(name)).collect())),
        ("timeline", array(about.timeline(status).iter().map(step).collect())),
    ]);
    page.push('\n');
    page
}

fn exit(reason: ExitReason) -> String {
    let signal = match reason {
        ExitReason::Code(_) => None,
        ExitReason::Signal(signal) => Some(text(&signal.to_string())),
    };
    object(&[("exit_code", reason.code().to_string()), ("signal", or_null(signal))])
}

fn limits(limits: &Limits) -> String {
    let Limits { cgroup, cpus, memory_bytes, pids, .. } = limits;
    let finite = cpus.as_ref().filter(|limit| limit.value.is_finite());
    object(&[
        ("cgroup", text(cgroup.as_str())),
        ("cpus", or_null(finite.map(|limit| limit.value.to_string()))),
        ("memory_bytes", or_null(memory_bytes.as_ref().map(|limit| limit.value.to_string()))),
        ("pids", or_null(pids.as_ref().map(|limit| limit.value.to_string()))),
        (
            "sources",
            object(&[
                ("cpus", source(cpus)),
                ("memory_bytes", source(memory_bytes)),
                ("pids", source(pids)),
            ]),
        ),
    ])
}

fn source<T>(limit: &Option<Limit<T>>) -> String {
    or_null(limit.as_ref().map(|limit| text(&limit.source)))
}

fn step(step: &Step) -> String {
    object(&[
        ("at_ms", millis(step.at)),
        ("phase", text(step.phase.as_str())),
        ("what", text(&step.what)),
    ])
}

/// An object of values that are JSON already; the names need no escape. One of
/// serde_json would cost ten times the code, and lose the order.
fn object(members: &[(&str, String)]) -> String {
    let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn array(values: Vec<String>) -> String {
    format!("[{}]", values.join(","))
}

fn text(text: &str) -> String {
    Value::from(text).to_string()
}

fn boolean(fact: bool) -> String {
    fact.to_string()
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json as value;

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
        let expected = value!({
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
