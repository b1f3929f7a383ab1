//! castoff's log as a short story, a few words a line, to be compared whole:
//! what happened, in which order, and nothing besides.

use serde_json::Value;

use super::Running;

/// Everything from the child's start to castoff's end, once castoff has ended.
/// Times and process ids are left out; orphans are not in the log by default.
#[track_caller]
pub(crate) fn story(castoff: &Running) -> Vec<String> {
    let story = whole_story(castoff);
    let begin = story.iter().position(|told| told == "child started");
    story[begin.expect("a child was started") + 1..].to_vec()
}

/// The same from the first process that castoff starts, be it a hook.
#[track_caller]
pub(crate) fn whole_story(castoff: &Running) -> Vec<String> {
    let events = castoff.log().events();
    let is_beginning = |event: &&Value| {
        let event = event["event"].as_str().unwrap_or_default();
        ["castoff_started", "limits_detected", "limits_warning", "env_exported"].contains(&event)
    };
    events.iter().filter(|event| !is_beginning(event)).map(told).collect()
}

fn told(event: &Value) -> String {
    let field = |name: &str| match &event[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match event["event"].as_str().unwrap_or_default() {
        "phase_changed" => format!("{} -> {}: {}", field("from"), field("to"), field("cause")),
        "signal_received" => format!("received {}", field("signal")),
        "signal_forwarded" => format!("told the child {}", field("signal")),
        "drain_finished" => format!("drained: {}", field("reason")),
        "child_exited" => {
            let by = if event["signal"].is_null() { "exit_code" } else { "signal" };
            format!("child {}: {}", field("reason"), field(by))
        }
        "survivors" => {
            let listed = event["list"].as_array().expect("an array");
            let names: Vec<_> =
                listed.iter().filter_map(|entry| entry["command"].as_str()).collect();
            assert_eq!(field("count"), names.len().to_string());
            format!("left: {}", names.join(" "))
        }
        "child_started" => "child started".to_owned(),
        "start_failed" => "child not started".to_owned(),
        "restart_scheduled" => format!("restart {} to come", field("restarts")),
        "hook_started" => format!("{} started", field("hook")),
        "hook_failed" => format!("{} not started", field("hook")),
        "hook_output" => format!("{} says {}", field("hook"), field("line")),
        "hook_finished" => {
            let by = if event["signal"].is_null() { "exit_code" } else { "signal" };
            let timed_out = if event["timed_out"] == true { ", too late" } else { "" };
            format!("{} finished: {}{timed_out}", field("hook"), field(by))
        }
        "exiting" => format!("exiting {}", field("exit_code")),
        // What a story does not expect is shown as it came.
        _ => event.to_string(),
    }
}
