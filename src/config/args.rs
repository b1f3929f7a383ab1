//! The command line: castoff's own flags, then COMMAND and its arguments.
//!
//! Owns what is a flag and where COMMAND begins. Whatever stands after COMMAND
//! is passed on byte by byte.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};

use lexopt::{Arg, Parser};

use super::error::ConfigError;
use super::options::{FLAGS, SETTINGS, Setting, nearest};
use super::settings::{Given, Origin};
use super::value::exit_code;
use crate::policy::signal::Signal;

/// Words that name sub-commands when they stand first: this one, which has the
/// arguments of a start, and one that is not there.
const EXPLAIN: &str = "explain";
const RESERVED: &str = "check";

const SIGNAL: &str = "a signal such as SIGTERM, TERM or 15";
const EXIT_CODE: &str = "an exit code from 0 to 255";

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wanted {
    #[default]
    Supervise,
    Explain,
    PrintConfig,
    Help,
    Version,
}

/// The command line, taken apart.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    pub(super) wanted: Wanted,
    /// The first word was `explain`.
    pub(super) is_explain: bool,
    /// `--json` of `explain`.
    pub(super) is_json: bool,
    pub(super) given: Vec<Given<'static>>,
    pub(super) signal_group: bool,
    pub(super) parent_death_signal: Option<Signal>,
    pub(super) warn_on_orphans: bool,
    /// How often `-v` was given.
    pub(super) verbosity: usize,
    /// The codes of `-e`.
    pub(super) exit_zero_for: Vec<u8>,
    /// COMMAND and its arguments; empty when there is none.
    pub(super) command: Vec<OsString>,
}

/// Takes the command line apart; `args` begin after castoff's own name.
/// `--help` and `--version` count before anything that is wrong.
pub(super) fn read(
    args: impl IntoIterator<Item = OsString>,
    errors: &mut Vec<ConfigError>,
) -> CommandLine {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut line = CommandLine::default();
    let first = args.first().map(OsString::as_os_str);
    if first == Some(OsStr::new(RESERVED)) {
        errors.push(ConfigError::SubCommand { name: RESERVED.to_owned() });
        line.command = args;
        return line;
    }
    line.is_explain = first == Some(OsStr::new(EXPLAIN));
    if line.is_explain {
        line.wanted = Wanted::Explain;
    }
    let mut parser = Parser::from_args(args.into_iter().skip(usize::from(line.is_explain)));
    loop {
        match parser.next() {
            Ok(None) => break,
            Ok(Some(Arg::Value(command))) => {
                line.command.push(command);
                // Only a flag's unused value could be an error, and none is open.
                line.command.extend(parser.raw_args().into_iter().flatten());
                break;
            }
            Ok(Some(Arg::Short('h') | Arg::Long("help"))) => {
                line.wanted = Wanted::Help;
                break;
            }
            Ok(Some(Arg::Short('V') | Arg::Long("version"))) => {
                line.wanted = Wanted::Version;
                break;
            }
            Ok(Some(Arg::Long("print-config"))) => line.wanted = Wanted::PrintConfig,
            Ok(Some(Arg::Long("json"))) if line.is_explain => line.is_json = true,
            Ok(Some(Arg::Long(name))) => match Setting::by_flag(name) {
                Some(setting) => line.read_setting(setting, &mut parser, errors),
                None => {
                    errors.push(unknown(format!("--{name}"), name));
                    parser.optional_value();
                }
            },
            Ok(Some(Arg::Short(letter))) => line.read_short(letter, &mut parser, errors),
            Err(lexopt::Error::UnexpectedValue { option, value }) => {
                errors.push(ConfigError::UnexpectedValue { flag: option, value });
            }
            // The parser's other errors come from methods that are not called here.
            Err(_) => {}
        }
    }
    line
}

impl CommandLine {
    fn read_setting(
        &mut self,
        setting: &'static Setting,
        parser: &mut Parser,
        errors: &mut Vec<ConfigError>,
    ) {
        let flag = || setting.flag_name();
        let Some(value) = required(parser, flag, setting.expected, errors) else { return };
        let text = Some(Cow::Owned(value));
        self.given.push(Given { setting, text, origin: Origin::Flag, source: None });
    }

    /// tini's flags.
    fn read_short(&mut self, letter: char, parser: &mut Parser, errors: &mut Vec<ConfigError>) {
        let flag = || format!("-{letter}");
        let expected = if letter == 'e' { EXIT_CODE } else { SIGNAL };
        match letter {
            's' => {}
            'g' => self.signal_group = true,
            'v' => self.verbosity += 1,
            'w' => self.warn_on_orphans = true,
            'e' | 'p' => {
                let Some(value) = required(parser, flag, expected, errors) else { return };
                let is_good = if letter == 'e' {
                    let code = value.to_str().and_then(exit_code);
                    self.exit_zero_for.extend(code);
                    code.is_some()
                } else {
                    self.parent_death_signal = value.to_str().and_then(|text| text.parse().ok());
                    self.parent_death_signal.is_some()
                };
                if !is_good {
                    errors.push(ConfigError::Value {
                        given: format!("-{letter} {value:?}"),
                        expected,
                    });
                }
            }
            _ => {
                errors.push(unknown(flag(), ""));
                // The rest of the word means nothing either.
                parser.optional_value();
            }
        }
    }
}

fn required(
    parser: &mut Parser,
    flag: impl Fn() -> String,
    expected: &'static str,
    errors: &mut Vec<ConfigError>,
) -> Option<OsString> {
    let value = parser.value().ok();
    if value.is_none() {
        errors.push(ConfigError::MissingValue { flag: flag(), expected });
    }
    value
}

fn unknown(flag: String, name: &str) -> ConfigError {
    let words = SETTINGS.iter().map(|setting| setting.word);
    let nearest =
        nearest(&name.replace('-', "_"), words.chain(FLAGS.iter().filter_map(|f| f.long)))
            .map(|word| format!("--{}", word.replace('_', "-")));
    ConfigError::Unknown { name: flag, what: "flag", nearest }
}
