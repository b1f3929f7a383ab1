//! `castoff explain` as its users see it: what castoff would do with a machine,
//! an environment and a command line, told on stdout and done by nobody.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::Scratch;

/// castoff with nothing in its environment.
pub(crate) fn explain() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castoff"));
    command.env_clear().arg("explain").stdin(Stdio::null());
    command
}

/// The same on the machine of a fixture.
fn explain_on(fixture: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup").join(fixture);
    assert!(root.exists(), "no fixture {fixture}");
    let mut command = explain();
    command
        .env("CASTOFF_CGROUP_ROOT", root.join("sys"))
        .env("CASTOFF_PROC_ROOT", root.join("proc"));
    command
}

/// What it says; nothing may be wrong.
#[track_caller]
pub(crate) fn told(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("castoff runs");
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    assert_eq!(status.code(), Some(0));
    String::from_utf8(stdout).expect("text")
}

#[track_caller]
pub(crate) fn page(command: &mut Command) -> Value {
    let text = told(command.arg("--json"));
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect()
}

#[test]
fn limits_have_their_value_source_and_level() {
    let page = page(&mut explain_on("v2_pod_lower_than_container"));
    let pod = "/sys/fs/cgroup/kubepods.slice/pod7.slice";
    let expected = json!({
        "cgroup": "v2", "cpus": 1.5, "memory_bytes": 536_870_912, "pids": 100,
        "sources": {
            "cpus": format!("{pod}/cpu.max"),
            "memory_bytes": format!("{pod}/memory.max"),
            "pids": format!("{pod}/cri-9f.scope/pids.max"),
        },
        "levels": { "cpus": 1, "memory_bytes": 1, "pids": 0 },
        "usable_cpus": null, "memory_high_bytes": null,
    });
    assert_eq!(page["limits"], expected);
    assert_eq!(page["warnings"], json!([]));
}

#[test]
fn exports_are_those_that_the_child_would_get_and_have_a_reason() {
    let mut command = explain_on("v2_half_cpu");
    let page = page(command.env("GOMAXPROCS", "64").env("OMP_NUM_THREADS", ""));
    let exported =
        ["CASTOFF_CPUS", "CASTOFF_MEMORY_BYTES", "CASTOFF_PIDS", "GOMEMLIMIT", "PYTHON_CPU_COUNT"];
    assert_eq!(names(&page["exports"]), exported);
    assert_eq!(
        page["exports"][0],
        json!({
            "name": "CASTOFF_CPUS", "value": "0.5", "why": "limit from /sys/fs/cgroup/cpu.max",
        })
    );
    assert_eq!(
        page["withheld"],
        json!([
            { "name": "GOMAXPROCS", "why": "is set already" },
            { "name": "OMP_NUM_THREADS", "why": "is set already" },
        ])
    );
}

#[test]
fn a_limit_that_does_not_exist_is_null_and_none() {
    let page = page(&mut explain_on("v2_unlimited"));
    for pointer in ["/cpus", "/memory_bytes", "/pids", "/sources/cpus", "/levels/pids"] {
        assert_eq!(page["limits"].pointer(pointer), Some(&Value::Null), "{pointer}");
    }
    assert_eq!(page["exports"], json!([]));
    let text = told(&mut explain_on("v2_unlimited"));
    for line in ["cpus          none", "pids          none", "none: there is no limit"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let text = told(explain_on("v2_half_cpu").env("CASTOFF_SIZING", "off"));
    assert!(text.contains("\nnone: CASTOFF_SIZING is off\n"), "{text}");
}

#[test]
fn the_timeline_is_that_of_the_lifecycle() {
    let mut command = explain();
    command.args(["--grace-period", "60s", "--drain-delay", "5s", "--stop-on", "INT"]);
    command.args(["--stop-signal", "QUIT", "--", "/nonexistent"]);
    let page = page(&mut explain_with(&command));
    let steps: Vec<_> = page["timeline"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| (step["at_ms"].as_u64().unwrap_or(0), step["phase"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(
        steps,
        [
            (0, "draining"),
            (5000, "stopping"),
            (57_900, "stopping"),
            (58_000, "killing"),
            (59_500, "exited"),
            (60_000, "exited"),
        ]
    );
    assert_eq!(page["timeline"][1]["what"], "SIGQUIT to the child");
}

/// The same arguments with `--json` where options may stand.
fn explain_with(command: &Command) -> Command {
    let mut with = explain();
    with.arg("--json").args(command.get_args().skip(1));
    with
}

#[test]
fn settings_have_their_value_and_origin_and_no_secret_is_told() {
    let scratch = Scratch::new();
    let file = scratch.file(
        "castoff.toml",
        "drain_quiet = \"2s\"\npre_stop = [\"/bin/notify\", \"s3cret\"]\n\
         [[check]]\nname = \"page\"\nlevel = \"live\"\ntarget = \"http://app/live?key=s3cret\"\n\
         period = \"7s\"\nheaders = { Authorization = \"s3cret\" }\n",
    );
    let with_secrets = || {
        let mut command = explain();
        command
            .env("CASTOFF_CONFIG", &file)
            .env("CASTOFF_GRACE_PERIOD", "60s")
            .env("CASTOFF_READY_CHECK", "exec:/bin/check --token s3cret")
            .env("CASTOFF_DEPENDS_ON", "tcp://db:5432,http://api/ready?token=s3cret")
            .env("CASTOFF_RESIZE_ACTION", "exec:/bin/resized s3cret")
            .env("API_TOKEN", "s3cret")
            .args(["-v", "--post-stop", "/bin/gone s3cret"]);
        command
    };
    let page = page(&mut with_secrets());
    let at_line = |line: u32| format!("{file}:{line}");
    for (word, value, origin) in [
        ("grace_period", json!("1m"), "CASTOFF_GRACE_PERIOD".to_owned()),
        ("drain_quiet", json!("2s"), at_line(1)),
        ("pre_stop", json!("/bin/notify ..."), at_line(2)),
        ("post_stop", json!("/bin/gone ..."), "--post-stop".to_owned()),
        ("ready_check", json!("exec:/bin/check"), "CASTOFF_READY_CHECK".to_owned()),
        (
            "depends_on",
            json!(["tcp://db:5432", "http://api:80/ready"]),
            "CASTOFF_DEPENDS_ON".to_owned(),
        ),
        ("resize_action", json!("exec:/bin/resized ..."), "CASTOFF_RESIZE_ACTION".to_owned()),
        ("log_level", json!("debug"), "default, -v".to_owned()),
        ("memory_ratio", json!(0.9), "default".to_owned()),
        ("stop_on", json!(["SIGTERM", "SIGINT"]), "default".to_owned()),
    ] {
        assert_eq!(page["settings"][word], json!({ "value": value, "origin": origin }), "{word}");
    }
    assert_eq!(
        page["checks"][0],
        json!({
            "name": "page", "level": "live", "target": "http://app:80/live", "period": "7s",
            "timeout": "1s", "failures": 3, "successes": 1,
        })
    );
    let checks = ["page", "ready-check", "depends-on-1", "depends-on-2"];
    assert_eq!(names(&page["checks"]), checks);
    let text = told(&mut with_secrets());
    assert!(text.contains("\npre_stop = \"/bin/notify ...\"  "), "{text}");
    assert!(!text.contains("\nmemory_ratio"), "{text}");
    for told in [page.to_string(), text] {
        assert!(!told.contains("s3cret"), "{told}");
    }
}

#[test]
fn nothing_is_started_and_no_command_is_wanted() {
    let scratch = Scratch::new();
    let mark = scratch.path("mark");
    let hook = format!("/usr/bin/touch {mark}");
    let mut command = explain();
    command.args(["--pre-start", &hook, "--ready-check", &format!("exec:{hook}")]);
    told(command.args(["--", "/usr/bin/touch", &mark]));
    assert!(!Path::new(&mark).exists());
    told(&mut explain());
    // An address that is taken is nothing to it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    told(explain().args(["--health-listen", &address]));
}

#[test]
fn what_is_wrong_is_told_together_and_exits_with_125() {
    let output = explain()
        .args(["--drain-delay", "soon", "--jsn"])
        .env("CASTOFF_GRACE", "1")
        .output()
        .expect("castoff runs");
    assert_eq!((output.status.code(), output.stdout), (Some(125), Vec::new()));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{stderr}");
    assert!(lines.iter().all(|line| line.starts_with("castoff: cannot use ")), "{stderr}");
}

#[test]
fn json_is_a_flag_of_explain_only_and_only_the_first_word_explains() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castoff"));
        command.env_clear().env("CASTOFF_HEALTH_LISTEN", "off").args(args).stdin(Stdio::null());
        command.output().expect("castoff runs")
    };
    assert_eq!(run(&["--json", "--", "/bin/true"]).status.code(), Some(125));
    assert_eq!(run(&["--", "explain"]).status.code(), Some(127));
    // The word `check` behind it is a program.
    assert_eq!(run(&["explain", "check"]).status.code(), Some(0));
    let help = run(&["explain", "--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(text.starts_with("castoff explain tells what castoff would do"), "{text}");
    assert_eq!(help.status.code(), Some(0));
}

#[test]
fn without_any_file_it_tells_what_it_can() {
    let mut command = explain();
    command.env("CASTOFF_CGROUP_ROOT", "/nonexistent").env("CASTOFF_PROC_ROOT", "/nonexistent");
    let page = page(&mut command);
    assert_eq!(page["limits"]["cgroup"], "none");
    let warnings = page["warnings"].as_array().expect("a list");
    let warning = warnings[0].as_str().expect("text");
    assert!(warning.starts_with("cannot read /proc/self/cgroup and /proc/self/mountinfo"));
    let text = told(explain().env("CASTOFF_PROC_ROOT", "/nonexistent"));
    assert!(text.contains("\n[warnings]\ncannot read /proc/self/cgroup"), "{text}");
}

#[test]
fn files_that_are_denied_are_warnings() {
    // Root is denied nothing: a group's file that is a directory will do.
    let page = page(&mut explain_on("v2_cpu_max_unreadable"));
    assert_eq!(
        page["warnings"][0],
        "cannot read /sys/fs/cgroup/cpu.max: Is a directory (os error 21)"
    );
    assert_eq!(page["limits"]["pids"], 20);
    let scratch = Scratch::new();
    let denied = scratch.file("denied", "x");
    std::fs::set_permissions(&denied, std::fs::Permissions::from_mode(0o000)).expect("its owner");
    told(explain().env("CASTOFF_CGROUP_ROOT", &denied));
}

/// Every fixture, those that are broken too.
#[test]
fn it_survives_every_fixture() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup");
    let mut seen = 0;
    for fixture in std::fs::read_dir(root).expect("fixtures").flatten() {
        let name = fixture.file_name().into_string().expect("text");
        let (page, text) = (page(&mut explain_on(&name)), told(&mut explain_on(&name)));
        assert_eq!(page["warnings"] != json!([]), text.contains("\n[warnings]\n"), "{name}");
        seen += 1;
    }
    assert!(seen > 60, "{seen}");
}
