//! How programs name the parts of their own JSON lines.
//!
//! Owns the names and words of the usual loggers, and no decision: which part
//! is kept, copied or added is `merge`'s. A name that is not here is a field
//! like any other.

use crate::policy::log_style::Severity;

/// What a member of the program's object is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Time,
    /// A word, or a number of Bunyan's.
    Level,
    /// OpenTelemetry's number of a level.
    SeverityNumber,
    /// A message, the smaller the number the more surely.
    Message(u8),
}

impl Part {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        // By the first letter, for most names have another.
        Some(match name.first()? {
            b't' | b'T' => match name {
                b"time" | b"Time" | b"ts" | b"timestamp" | b"Timestamp" | b"timeMillis"
                | b"timestampSeconds" => Self::Time,
                b"text" => Self::Message(5),
                _ => return None,
            },
            b'l' | b'L' => match name {
                b"level" | b"Level" | b"lvl" | b"levelname" | b"level_name" | b"loglevel"
                | b"logLevel" | b"LogLevel" | b"log_level" | b"log.level" => Self::Level,
                _ => return None,
            },
            b's' | b'S' => match name {
                b"severity" | b"Severity" | b"SeverityText" | b"severityText"
                | b"severity_text" => Self::Level,
                b"SeverityNumber" | b"severityNumber" | b"severity_number" => Self::SeverityNumber,
                _ => return None,
            },
            _ => match name {
                b"msg" => Self::Message(0),
                b"message" => Self::Message(1),
                b"Message" => Self::Message(2),
                b"Body" => Self::Message(3),
                // structlog's; elsewhere it is rather a name for what happened.
                b"event" => Self::Message(6),
                b"datetime" | b"asctime" | b"instant" | b"@timestamp" | b"@t" => Self::Time,
                b"@l" => Self::Level,
                b"@m" => Self::Message(4),
                _ => return None,
            },
        })
    }
}

/// The level that a value of JSON means: a word in any case, or one of Bunyan's
/// and pino's numbers, 10 to 69.
pub(super) fn severity(value: &[u8]) -> Option<Severity> {
    let Some(word) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        let [tens @ b'1'..=b'6', b'0'..=b'9'] = value else { return None };
        return Severity::ALL.get(usize::from(tens - b'1')).copied();
    };
    let word = word.trim_ascii();
    let mut lower = [0; 13]; // the longest of them
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"trace" | b"trc" | b"finest" | b"finer" | b"silly" | b"t" => Severity::Trace,
        b"debug" | b"dbg" | b"fine" | b"verbose" | b"d" => Severity::Debug,
        b"info" | b"inf" | b"information" | b"informational" | b"notice" | b"i" => Severity::Info,
        b"warn" | b"warning" | b"wrn" | b"w" => Severity::Warn,
        b"error" | b"err" | b"eror" | b"severe" | b"e" => Severity::Error,
        b"fatal" | b"ftl" | b"critical" | b"crit" | b"panic" | b"dpanic" | b"alert"
        | b"emergency" | b"emerg" | b"f" | b"c" => Severity::Fatal,
        _ => return None,
    })
}

/// The level of a `SeverityNumber`: four to each, from 1 (logs data model).
pub(super) fn severity_of_number(value: &[u8]) -> Option<Severity> {
    let number: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
    Severity::ALL.get(number.checked_sub(1)? / 4).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_in_any_case_and_as_numbers() {
        let cases = [
            (r#""TRACE""#, Severity::Trace),
            (r#""Dbg""#, Severity::Debug),
            (r#""Informational""#, Severity::Info),
            (r#""notice""#, Severity::Info),
            (r#""WARNING ""#, Severity::Warn),
            (r#""err""#, Severity::Error),
            (r#""DPANIC""#, Severity::Fatal),
            (r#""EMERG""#, Severity::Fatal),
            ("10", Severity::Trace),
            ("35", Severity::Info),
            ("60", Severity::Fatal),
        ];
        for (value, expected) in cases {
            assert_eq!(severity(value.as_bytes()), Some(expected), "{value}");
        }
        for value in ["null", "0", "9", "70", "100", "200", "-10", "1e1", r#""""#, r#""loud""#] {
            assert_eq!(severity(value.as_bytes()), None, "{value}");
        }
        assert_eq!(severity(br#""informationally""#), None);
        for known in Severity::ALL {
            for number in known.number()..known.number() + 4 {
                assert_eq!(severity_of_number(number.to_string().as_bytes()), Some(known));
            }
        }
        for value in ["0", "25", "null", "9.5", "\"9\""] {
            assert_eq!(severity_of_number(value.as_bytes()), None, "{value}");
        }
    }
}
