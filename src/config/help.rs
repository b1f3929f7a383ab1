//! `--help` and the README's table of settings, both from the one table.
//!
//! It lays out text and knows no setting by name.

use std::fmt::Write as _;

use super::options::{FLAGS, Flag, SETTINGS};

/// Columns of the text, so that it fits a terminal of 80.
const WIDTH: usize = 79;

const INTRODUCTION: &str = "\
castoff launches COMMAND unchanged as PID 1 of a container or below one,
answers its probes, and turns a stop signal into an orderly stop.

Usage: castoff [OPTIONS] [--] COMMAND [ARG...]
       castoff explain [OPTIONS] [--json] [-- COMMAND [ARG...]]
       castoff probe [live|ready|started] [--addr ADDR] [--timeout DURATION]

The first word that is no option is COMMAND; it is found in PATH. The second
form starts nothing and tells what it would do: see castoff explain --help. The
third asks a castoff that runs, for a HEALTHCHECK: see castoff probe --help.

Each setting is a flag (--drain-delay), a variable (CASTOFF_DRAIN_DELAY) and a
key of the TOML file (drain_delay). The flag wins, then the variable, then the
file. CASTOFF_X_FILE gives CASTOFF_X from a file. Empty means unset. Durations:
500ms, 5s, 1m30s, units us, ms, s, m, h; a bare integer is seconds. Lists are
separated by commas, in TOML also arrays. A HOOK is a command, split as a shell
does but run by none, in TOML also an array.

A CHECK is tcp://HOST:PORT, http://HOST:PORT/PATH, grpc://HOST:PORT/SERVICE,
unix:///PATH, exec:COMMAND, file:///PATH, file:///PATH?max_age=30s,
listen:PORT (the child's processes listen there), notify (sd_notify) or fd:3
(s6). [[check]] tables in the TOML file give any number of them, with the keys
name, level (live, ready, startup), target, period, timeout, failures,
successes and headers.
";

const END: &str = "
Examples:
  castoff -- nginx -g 'daemon off;'
  castoff --stop-signal SIGQUIT --drain-delay 5s -- php-fpm -F
  CASTOFF_GRACE_PERIOD=60s castoff -- java -jar app.jar
  castoff --config /etc/castoff.toml --print-config

Exit codes:
  the child's own; 128+n when signal n ended the child
  125  castoff itself failed: usage, configuration, an address it cannot bind
  126  COMMAND cannot be executed
  127  COMMAND was not found
";

/// What `castoff explain --help` prints.
pub(super) const EXPLAIN: &str = "\
castoff explain tells what castoff would do here with these settings, and why:
the limits that it finds and the files they are from, the variables that
COMMAND would get, the checks, the timeline of a stop, and the settings with
their origin. It starts nothing, opens no socket and writes to stdout only.

Usage: castoff explain [OPTIONS] [--json] [-- COMMAND [ARG...]]

  OPTIONS     Those of castoff --help; variables and the file count as well.
  COMMAND     What would be started. It is not looked for and may be left out.
  --json      One line of JSON: limits, exports, withheld, checks, timeline,
              settings, warnings. What there is not is null.
  -h, --help  Print this text and exit.

No argument of a command, no query of a URL and no header is shown, so that the
text can be given to somebody; castoff --print-config shows them.

Exit codes:
  0    told, also when there are no limits or they cannot be read
  125  usage or configuration: stderr has all that is wrong
";

/// What `castoff probe --help` prints.
pub(super) const PROBE: &str = "\
castoff probe asks the endpoints of a castoff that runs, as a HEALTHCHECK or an
exec probe does in an image without a shell.

Usage: castoff probe [live|ready|started] [--addr ADDR] [--timeout DURATION]

  live, ready, started  What is asked: /livez, /readyz or /startupz.
                        default: ready
  --addr ADDR           Where: 127.0.0.1:9911, [::1]:9911, :9911 or 9911; names
                        are not resolved. default: the port, on loopback, of
                        CASTOFF_HEALTH_LISTEN or of health_listen in the file
                        that CASTOFF_CONFIG names
  --timeout DURATION    For connecting, asking and the answer. default: 1s
  -h, --help            Print this text and exit.

Exit codes:
  0  yes; nothing is printed
  1  no, no answer, or a mistake in the command line; stderr has one line
";

/// What `--help` prints.
pub(super) fn text() -> String {
    let mut text = String::from(INTRODUCTION);
    for setting in &SETTINGS {
        let flag = format!("{} {}", setting.flag_name(), setting.takes);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n  {flag:<34} {}", setting.variable_name());
        wrap(&mut text, "", 8, &format!("default: {}", setting.default));
        wrap(&mut text, "", 8, setting.help);
    }
    text.push_str("\nFlags without variable and key:\n");
    for flag in &FLAGS {
        wrap(&mut text, &format!("  {}", names(flag)), 20, flag.help);
    }
    text.push_str(END);
    text
}

/// `-h, --help`
fn names(flag: &Flag) -> String {
    let short = flag.short.map(|letter| format!("-{letter}"));
    let long = flag.long.map(|name| format!("--{name}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    format!("{} {}", names.join(", "), flag.takes).trim_end().to_owned()
}

/// Adds a paragraph from column `indent` on, with `label` before its first line.
fn wrap(text: &mut String, label: &str, indent: usize, paragraph: &str) {
    let mut line = format!("{label:<indent$}");
    let mut is_empty = true;
    for word in paragraph.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = " ".repeat(indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: &str = "<!-- settings -->\n";

    /// The table of the README, between its markers.
    fn markdown() -> String {
        let mut text =
            String::from("| variable, flag, key | default | meaning |\n| --- | --- | --- |\n");
        for setting in &SETTINGS {
            let variable = setting.variable_name();
            let (flag, key) = (setting.flag_name(), setting.word);
            let key = if setting.key == super::super::options::Key::Config {
                String::new()
            } else {
                format!("<br>`{key}`")
            };
            let _ = writeln!(
                text,
                "| `{variable}`<br>`{flag} {}`{key} | {} | {} |",
                setting.takes, setting.default, setting.help
            );
        }
        text
    }

    #[test]
    fn the_readme_has_the_table_of_settings() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let Ok(readme) = std::fs::read_to_string(path) else { return };
        let found = readme.split(MARKER).nth(1).unwrap_or_default();
        let rendered = markdown();
        assert!(
            found.trim() == rendered.trim(),
            "README.md must hold this between two lines {MARKER}\n{rendered}"
        );
    }

    #[test]
    fn help_names_every_setting_and_flag() {
        let text = text();
        for setting in &SETTINGS {
            for name in [setting.flag_name(), setting.variable_name()] {
                assert!(text.contains(&name), "{name}");
            }
        }
        for flag in &FLAGS {
            assert!(text.contains(&format!("\n  {} ", names(flag))), "{flag:?}");
        }
    }

    #[test]
    fn help_fits_a_terminal() {
        for line in text().lines().chain(PROBE.lines()).chain(EXPLAIN.lines()) {
            assert!(line.len() <= WIDTH && line.trim_end() == line, "{line:?}");
        }
    }
}
