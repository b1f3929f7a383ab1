//! The command line, the variables and the file, as somebody who reads only
//! castoff's output and exit code sees them. Whatever is refused is refused
//! with its whole text, and before a child was started.

use crate::support::{Castoff, Ended, Place, Running, Scratch};

/// castoff with nothing in its environment but PATH.
fn castoff() -> Castoff {
    Castoff::new(Place::Subreaper).with(|command| {
        command.env_remove("CASTOFF_HEALTH_LISTEN");
    })
}

/// castoff with endpoints where no other test has any.
fn listening() -> Castoff {
    Castoff::new(Place::Subreaper)
}

/// castoff, about to leave a mark if it ever starts a child.
struct Refused {
    scratch: Scratch,
    castoff: Castoff,
}

impl Refused {
    fn new() -> Self {
        Self { scratch: Scratch::new(), castoff: castoff() }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.castoff = self.castoff.env(name, value);
        self
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.castoff = self.castoff.args(args);
        self
    }

    /// Runs it in front of a child and compares all that it writes.
    #[track_caller]
    fn says(self, expected: &[&str]) {
        let marker = self.scratch.path("marker");
        refused(&mut self.castoff.child("touch", [&marker]).run(), expected);
        assert!(!std::fs::exists(marker).expect("readable"), "the child was started");
    }
}

#[track_caller]
fn refused(castoff: &mut Running, expected: &[&str]) {
    assert_eq!(castoff.wait(), Ended::Code(125), "{expected:?}");
    assert_eq!(castoff.log().all(), expected);
    assert_eq!(castoff.stdout().all(), [""; 0], "{expected:?}");
}

/// What castoff prints and ends well with, and nothing on stderr.
#[track_caller]
fn printed(castoff: Castoff) -> Vec<String> {
    let mut castoff = castoff.run();
    assert_eq!(castoff.log().all(), [""; 0]);
    assert_eq!(castoff.wait(), Ended::Code(0));
    castoff.stdout().all()
}

/// The line of `--print-config` for that key, spaces apart.
#[track_caller]
fn setting(castoff: Castoff, key: &str) -> String {
    let lines = printed(castoff.args(["--print-config"]));
    let start = format!("{key} = ");
    let line = lines.iter().find(|line| line.starts_with(&start)).expect(key);
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn all_errors_are_told_at_once_and_nothing_is_started() {
    Refused::new()
        .env("CASTOFF_DRAIN_DELAY", "soon")
        .env("CASTOFF_DRIAN_DELAY", "5s")
        .env("CASTOFF_STOP_ON", "SIGKILL")
        .env("CASTOFF_HEALTH_LISTEN", "localhost:9911")
        .args(["--log-level=loud", "--colour", "-e", "256"].as_slice())
        .says(&[
            "castoff: cannot use --colour: no such flag, see castoff --help",
            "castoff: cannot use -e \"256\": expected an exit code from 0 to 255",
            "castoff: cannot use CASTOFF_DRIAN_DELAY: no such setting, the nearest is \
             CASTOFF_DRAIN_DELAY",
            "castoff: cannot use CASTOFF_DRAIN_DELAY=\"soon\": expected a duration such as 5s, \
             500ms or 1m30s, at most 720h",
            "castoff: cannot use CASTOFF_HEALTH_LISTEN=\"localhost:9911\": expected off or an IP \
             address and a port such as [::]:9911, 127.0.0.1:9911 or :9911",
            "castoff: cannot use CASTOFF_STOP_ON=\"SIGKILL\": expected signals such as \
             SIGTERM,SIGINT, but none of SIGKILL, SIGSTOP, SIGCHLD, SIGILL, SIGBUS, SIGFPE, \
             SIGSEGV, 32 and 33",
            "castoff: cannot use --log-level=\"loud\": expected off, error, warn, info, debug or \
             trace",
        ]);
}

#[test]
fn the_log_level_does_not_silence_a_configuration_error() {
    Refused::new().env("CASTOFF_LOG_LEVEL", "off").env("CASTOFF_SIZING", "ruby").says(&[
        "castoff: cannot use CASTOFF_SIZING=\"ruby\": expected default, off or a list of \
                 default, go, openmp, python, java, node, web, julia and malloc",
    ]);
}

#[test]
fn without_a_command_there_is_nothing_to_start() {
    for args in [&[][..], &["--"], &["-v", "--drain-delay", "1s", "--"]] {
        refused(
            &mut castoff().args(args).run(),
            &[
                "castoff: cannot start: COMMAND is missing",
                "hint: castoff [OPTIONS] [--] COMMAND [ARG...]",
            ],
        );
    }
}

#[test]
fn sub_command_words_are_reserved_where_they_stand_first() {
    refused(
        &mut castoff().args(["check"]).run(),
        &[
            "castoff: cannot run the sub-command check: castoff 0.1.0 has none",
            "hint: castoff -- check runs a program of that name",
        ],
    );
}

#[test]
fn behind_the_dashes_or_an_option_they_are_programs() {
    let scratch = Scratch::new();
    scratch.program("check", "755", "#!/bin/sh\necho check \"$@\"\n");
    let path = format!("{}:/usr/bin:/bin", scratch.path(""));
    for args in [&["--", "check", "--help", "-x"][..], &["-g", "check", "--help", "-x"]] {
        let mut castoff = listening().env("PATH", &path).args(args).run();
        assert_eq!(castoff.wait(), Ended::Code(0));
        assert_eq!(castoff.stdout().all(), ["check --help -x"]);
    }
}

#[test]
fn help_and_version_go_to_stdout_whatever_else_is_wrong() {
    for flag in ["--version", "-V"] {
        let castoff = castoff().env("CASTOFF_SIZING", "ruby").args([flag]);
        assert_eq!(printed(castoff), [concat!("castoff ", env!("CARGO_PKG_VERSION"))]);
    }
    for flag in ["--help", "-h"] {
        let help = printed(castoff().env("CASTOFF_NONSENSE", "1").args(["--nonsense", flag]));
        assert!(help.contains(&"Usage: castoff [OPTIONS] [--] COMMAND [ARG...]".to_owned()));
        for line in ["  --drain-delay DURATION             CASTOFF_DRAIN_DELAY", "Exit codes:"] {
            assert!(help.contains(&line.to_owned()), "{line} in {help:#?}");
        }
    }
    // Behind COMMAND they are the command's own.
    let mut castoff = listening().args(["echo", "--help-me"]).run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.stdout().all(), ["--help-me"]);
}

#[test]
fn what_print_config_prints_is_a_configuration_that_says_the_same() {
    let first = printed(castoff().args(["--drain-delay=3s", "-e", "7", "--print-config"]));
    let scratch = Scratch::new();
    let file = scratch.file("castoff.toml", first.join("\n"));
    let again = printed(castoff().env("CASTOFF_CONFIG", &file).args(["--print-config"]));
    let values = |lines: &[String]| -> Vec<String> {
        let value = |line: &String| line.split("   # ").next().expect("a line").trim().to_owned();
        lines.iter().filter(|line| !line.starts_with('#')).map(value).collect()
    };
    assert_eq!(values(&first), values(&again));
    assert!(values(&first).contains(&"drain_delay = \"3s\"".to_owned()), "{first:#?}");
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let scratch = Scratch::new();
    let file = scratch.file("castoff.toml", "\ndrain_delay = 1\n");
    let by_default = castoff;
    assert_eq!(setting(by_default(), "drain_delay"), "drain_delay = \"0s\" # default");
    let by_file = || by_default().env("CASTOFF_CONFIG", &file);
    assert_eq!(setting(by_file(), "drain_delay"), format!("drain_delay = \"1s\" # {file}:2"));
    let by_variable = || by_file().env("CASTOFF_DRAIN_DELAY", "2s");
    assert_eq!(setting(by_variable(), "drain_delay"), "drain_delay = \"2s\" # CASTOFF_DRAIN_DELAY");
    let by_flag = by_variable().args(["--drain-delay", "3s"]);
    assert_eq!(setting(by_flag, "drain_delay"), "drain_delay = \"3s\" # --drain-delay");
    // And not only in print.
    let mut castoff = listening()
        .env("CASTOFF_CONFIG", &file)
        .env("CASTOFF_DRAIN_DELAY", "2s")
        .args(["--drain-delay", "3s", "true"])
        .run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.log().wait_for_event("castoff_started")["drain_ms"], 3000);
}

#[test]
fn a_value_that_another_one_replaces_must_be_right_as_well() {
    Refused::new().env("CASTOFF_DRAIN_DELAY", "soon").args(&["--drain-delay=1s"]).says(&[
        "castoff: cannot use CASTOFF_DRAIN_DELAY=\"soon\": expected a duration such as 5s, 500ms \
         or 1m30s, at most 720h",
    ]);
}

#[test]
fn a_variable_may_come_from_a_file_but_not_from_both() {
    let scratch = Scratch::new();
    let file = scratch.file("delay", "7s\n");
    let by_file = castoff().env("CASTOFF_DRAIN_DELAY_FILE", &file);
    assert_eq!(
        setting(by_file, "drain_delay"),
        format!("drain_delay = \"7s\" # CASTOFF_DRAIN_DELAY_FILE={file}")
    );
    Refused::new().env("CASTOFF_DRAIN_DELAY_FILE", &file).env("CASTOFF_DRAIN_DELAY", "7s").says(&[
        "castoff: cannot use CASTOFF_DRAIN_DELAY and CASTOFF_DRAIN_DELAY_FILE: only one of them \
         may be set",
    ]);
    Refused::new().env("CASTOFF_DRAIN_DELAY_FILE", "/nonexistent").says(&[
        "castoff: cannot read CASTOFF_DRAIN_DELAY_FILE=\"/nonexistent\": No such file or \
         directory (os error 2)",
    ]);
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_place() {
    let scratch = Scratch::new();
    let file = scratch.file("castoff.toml", "log_level = 'info'\ngrace = 5\nsizing = [1.5]\n");
    Refused::new().args(&["--config", &file]).says(&[
        &format!("castoff: cannot use grace ({file}:2): no such key, the nearest is grace_period"),
        &format!(
            "castoff: cannot use sizing = [1.5] ({file}:3): expected default, off or a list of \
             default, go, openmp, python, java, node, web, julia and malloc"
        ),
    ]);
    Refused::new().env("CASTOFF_CONFIG", "/nonexistent").says(&[
        "castoff: cannot read CASTOFF_CONFIG=\"/nonexistent\": No such file or directory (os \
         error 2)",
    ]);
}

#[test]
fn what_an_unknown_variable_holds_is_not_shown() {
    Refused::new()
        .env("CASTOFF_API_TOKEN", "hunter2")
        .says(&["castoff: cannot use CASTOFF_API_TOKEN: no such setting, see castoff --help"]);
}

#[test]
fn empty_is_unset() {
    let castoff = castoff()
        .env("CASTOFF_DRAIN_DELAY", "")
        .env("CASTOFF_NONSENSE", "")
        .args(["--grace-period="]);
    assert_eq!(setting(castoff, "drain_delay"), "drain_delay = \"0s\" # default");
}

#[test]
fn variables_of_services_and_of_an_outer_castoff_are_not_settings() {
    let mut castoff = listening()
        .env("CASTOFF_SERVICE_HOST", "10.0.0.11")
        .env("CASTOFF_SERVICE_PORT", "80")
        .env("CASTOFF_SERVICE_PORT_HTTP", "80")
        .env("CASTOFF_PORT", "tcp://10.0.0.11:80")
        .env("CASTOFF_PORT_80_TCP", "tcp://10.0.0.11:80")
        .env("CASTOFF_PORT_80_TCP_PROTO", "tcp")
        .env("CASTOFF_PORT_80_TCP_PORT", "80")
        .env("CASTOFF_PORT_80_TCP_ADDR", "10.0.0.11")
        .env("CASTOFF_METRICS_SERVICE_HOST", "10.0.0.12")
        .env("CASTOFF_METRICS_PORT", "tcp://10.0.0.12:80")
        .env("CASTOFF_CPUS", "1.5")
        .env("CASTOFF_MEMORY_BYTES", "1048576")
        .env("CASTOFF_PIDS", "50")
        .script("echo $CASTOFF_CPUS $CASTOFF_MEMORY_BYTES $CASTOFF_PIDS $CASTOFF_PORT")
        .run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    assert_eq!(castoff.stdout().all(), ["1.5 1048576 50 tcp://10.0.0.11:80"]);
}

#[test]
fn a_castoff_below_a_castoff_is_a_child_like_any_other() {
    let castoff = listening();
    let inner = env!("CARGO_BIN_EXE_castoff");
    let mut castoff = castoff.child(inner, ["--", "/bin/sh", "-c", "exit 9"]).run();
    assert_eq!(castoff.wait(), Ended::Code(9));
}

#[test]
fn a_stop_that_does_not_fit_into_the_grace_period_is_refused() {
    let hint = "hint: give more grace, on the platform too, or make the drain delay shorter";
    Refused::new().env("CASTOFF_GRACE_PERIOD", "5s").args(&["--drain-delay=4500ms"]).says(&[
        "castoff: cannot fit the stop into CASTOFF_GRACE_PERIOD=5s: --drain-delay=4s500ms + \
         CASTOFF_KILL_RESERVE=500ms (default) = 5s leave the child no time",
        hint,
    ]);
    Refused::new().env("KUBERNETES_SERVICE_HOST", "10.0.0.1").args(&["--grace-period=5"]).says(&[
        "castoff: cannot fit the stop into --grace-period=5s: CASTOFF_DRAIN_DELAY=5s (default in \
         Kubernetes) + CASTOFF_KILL_RESERVE=500ms (default) = 5s500ms leave the child no time",
        hint,
    ]);
    Refused::new().env("CASTOFF_GRACE_PERIOD", "0").says(&[
        "castoff: cannot fit the stop into CASTOFF_GRACE_PERIOD=0s: CASTOFF_DRAIN_DELAY=0s \
         (default) + CASTOFF_KILL_RESERVE=0s (default) = 0s leave the child no time",
        hint,
    ]);
}

#[test]
fn the_longest_drain_counts_where_one_is_set() {
    Refused::new().env("CASTOFF_DRAIN_DELAY", "3s").args(&["--drain-max=9s"]).says(&[
        "castoff: cannot fit the stop into CASTOFF_GRACE_PERIOD=10s (default): --drain-max=9s + \
         CASTOFF_KILL_RESERVE=1s (default) = 10s leave the child no time",
        "hint: give more grace, on the platform too, or make the longest drain shorter",
    ]);
    let in_kubernetes = || castoff().env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    for (castoff, expected) in [
        (castoff(), "\"0s\" # default"),
        (in_kubernetes(), "\"5s\" # default"),
        (in_kubernetes().args(["--drain-delay=7s"]), "\"7s\" # default"),
        (in_kubernetes().env("CASTOFF_DRAIN_MAX", "20"), "\"20s\" # CASTOFF_DRAIN_MAX"),
    ] {
        assert_eq!(setting(castoff, "drain_max"), format!("drain_max = {expected}"));
    }
}

#[test]
fn a_maximum_below_its_minimum_is_refused_and_both_are_named() {
    let scratch = Scratch::new();
    let file = scratch.file("castoff.toml", "restart_min = '1m'\n");
    Refused::new()
        .env("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        .env("CASTOFF_DRAIN_MAX", "2s")
        .args(&["--config", &file])
        .says(&[
            "castoff: cannot use CASTOFF_DRAIN_MAX=2s with CASTOFF_DRAIN_DELAY=5s (default in \
             Kubernetes): expected a maximum of 5s or more",
            &format!(
                "castoff: cannot use CASTOFF_RESTART_MAX=30s (default) with restart_min = 1m \
                 ({file}:1): expected a maximum of 1m or more"
            ),
        ]);
}

#[test]
fn what_stops_a_child_or_starts_it_again_is_checked_before_it_runs() {
    Refused::new()
        .args(&["--drain-quiet=0", "--drain-ports=0", "--stop-scope=tree"])
        .args(&["--hang-signal=SIGSTOP", "--rewrite=KILL:0", "--stopped-exit-code=256"])
        .args(&["--restart=maybe", "--restart-min=0", "--restart-max=0", "--restart-limit=-1"])
        .says(&[
            "castoff: cannot use --drain-quiet=\"0\": expected a duration above 0 such as 5s, \
             500ms or 1m30s, at most 720h",
            "castoff: cannot use --drain-ports=\"0\": expected auto or a list of ports from 1 to \
             65535 such as 8080,8443",
            "castoff: cannot use --stop-scope=\"tree\": expected child or group",
            "castoff: cannot use --hang-signal=\"SIGSTOP\": expected a signal such as SIGQUIT, \
             QUIT, 3 or SIGRTMIN+3, but not SIGKILL or SIGSTOP",
            "castoff: cannot use --rewrite=\"KILL:0\": expected pairs of signals such as \
             SIGUSR1:SIGHUP, 10:1 or USR1:0, but none from SIGKILL or SIGSTOP",
            "castoff: cannot use --stopped-exit-code=\"256\": expected an exit code from 0 to 255",
            "castoff: cannot use --restart=\"maybe\": expected never, on-failure or always",
            "castoff: cannot use --restart-min=\"0\": expected a duration above 0 such as 5s, \
             500ms or 1m30s, at most 720h",
            "castoff: cannot use --restart-max=\"0\": expected a duration above 0 such as 5s, \
             500ms or 1m30s, at most 720h",
            "castoff: cannot use --restart-limit=\"-1\": expected a number of restarts from 0 to \
             4294967295",
        ]);
}

#[test]
fn a_hook_is_a_whole_command_or_an_error() {
    let scratch = Scratch::new();
    let file = scratch.file("castoff.toml", "pre_start = ['', 'a']\n");
    let expected = "expected a command such as /bin/notify --name 'my app', each quote closed";
    Refused::new()
        .env("CASTOFF_CONFIG", &file)
        .env("CASTOFF_PRE_STOP", "echo \"it")
        .args(&["--post-stop=  ", "--hook-timeout=0"])
        .says(&[
            &format!("castoff: cannot use pre_start = ['', 'a'] ({file}:1): {expected}"),
            &format!("castoff: cannot use CASTOFF_PRE_STOP=\"echo \\\"it\": {expected}"),
            &format!("castoff: cannot use --post-stop=\"  \": {expected}"),
            "castoff: cannot use --hook-timeout=\"0\": expected a duration above 0 such as 5s, \
             500ms or 1m30s, at most 720h",
        ]);
    let castoff = castoff().env("CASTOFF_PRE_STOP", "/bin/a 'b c' $D && e\\ f");
    assert_eq!(
        setting(castoff, "pre_stop"),
        "pre_stop = [\"/bin/a\", \"b c\", \"$D\", \"&&\", \"e f\"] # CASTOFF_PRE_STOP"
    );
}

#[test]
fn the_grace_period_is_the_platforms_unless_somebody_sets_it() {
    let in_kubernetes = || castoff().env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
    for (castoff, key, expected) in [
        (castoff(), "grace_period", "\"10s\" # default"),
        (castoff(), "kill_reserve", "\"1s\" # default"),
        (in_kubernetes(), "grace_period", "\"30s\" # default in Kubernetes"),
        (in_kubernetes(), "drain_delay", "\"5s\" # default in Kubernetes"),
        (in_kubernetes(), "kill_reserve", "\"2s\" # default"),
        (
            in_kubernetes().env("TERMINATION_GRACE_PERIOD_SECONDS", "90"),
            "grace_period",
            "\"1m30s\" # TERMINATION_GRACE_PERIOD_SECONDS",
        ),
        (
            castoff().env("TERMINATION_GRACE_PERIOD_SECONDS", "90").args(["--grace-period=1m"]),
            "grace_period",
            "\"1m\" # --grace-period",
        ),
    ] {
        assert_eq!(setting(castoff, key), format!("{key} = {expected}"));
    }
    Refused::new().env("TERMINATION_GRACE_PERIOD_SECONDS", "soon").says(&[
        "castoff: cannot use TERMINATION_GRACE_PERIOD_SECONDS=\"soon\": expected a duration such \
         as 5s, 500ms or 1m30s, at most 720h",
    ]);
}

#[test]
fn the_flags_of_tini_are_understood_together() {
    let mut castoff = listening().args(["-svvw", "-e7", "-e", "9", "-pSIGTERM", "--"]);
    castoff = castoff.args(["/bin/sh", "-c", "exit 9"]);
    assert_eq!(castoff.run().wait(), Ended::Code(0));
}
