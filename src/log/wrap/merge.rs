//! A line that is a JSON object already: castoff's members before its own.
//!
//! Owns the rule for clashes: the program's member wins, byte for byte. Names
//! are compared as they read and not as they are spelt, so that no object gets
//! one twice. It never changes, drops or moves anything of the program's.

use super::fields::{Fields, quoted};
use super::object::{self, Key};
use super::words::{self, Part};
use crate::policy::log_style::{LogFormat, LogStyle, Severity, Stream};

/// What castoff adds to an object, rendered as far as it is constant.
pub(super) struct Merge {
    format: LogFormat,
    severity: Severity,
    /// `"level":"INFO",`, in the order of `Severity::ALL`.
    levels: [Vec<u8>; 6],
    /// `"msg":`
    message_key: Vec<u8>,
    /// At the top of the line.
    fields: Fields,
    /// In OpenTelemetry's `Attributes`, beside the program's members.
    attributes: Fields,
    /// `"Resource":{..},`, or nothing.
    resource: Vec<u8>,
}

/// What the program's object has.
#[derive(Default)]
struct Found<'a> {
    has_time: bool,
    /// It has the very member in which the format has the time.
    has_format_time: bool,
    /// It has the very member in which the format has the level.
    has_level: bool,
    /// The first level that is understood.
    severity: Option<Severity>,
    has_message: bool,
    /// The best text under another name, as it is spelt, and how good that is.
    message: Option<(u8, &'a [u8])>,
    /// It has a name that only records of OpenTelemetry have.
    is_record: bool,
}

impl Merge {
    /// `common` are the fields of `LogStyle::common` that lines have room for.
    pub(super) fn new(style: &LogStyle, stream: Stream, common: Fields) -> Self {
        let format = style.format;
        let level = |severity: Severity| {
            let mut level = Fields::default();
            level.add_text(format.level_key(), format.level(severity));
            if format == LogFormat::Otel {
                level.add("SeverityNumber", &severity.number().to_string());
            }
            format!("{},", level.joined()).into_bytes()
        };
        let mut fields = Fields::default();
        let mut attributes = Fields::default();
        let mut resource = Vec::new();
        if format == LogFormat::Otel {
            attributes.add_text(format.stream_key(), stream.as_str());
            fields.add("Attributes", &format!("{{{}}}", attributes.joined()));
            let common = common.joined();
            if !common.is_empty() {
                let common = format!("{{{common}}}");
                fields.add("Resource", &common);
                resource = format!("\"Resource\":{common},").into_bytes();
            }
        } else {
            if format == LogFormat::Ecs {
                fields.add_text("ecs.version", LogFormat::ECS_VERSION);
            }
            fields.add_text(format.stream_key(), stream.as_str());
            fields.append(common);
        }
        Self {
            format,
            severity: stream.severity(),
            levels: Severity::ALL.map(level),
            message_key: format!("{}:", quoted(format.message_key())).into_bytes(),
            fields,
            attributes,
            resource,
        }
    }

    /// Appends the object of a line, which has no newline, with what is added.
    /// `time` is `"time":"..",`. False when the line is no object, and then
    /// nothing is appended.
    pub(super) fn push(&mut self, line: &[u8], time: &[u8], out: &mut Vec<u8>) -> bool {
        self.fields.release();
        self.attributes.release();
        let mut found = Found::default();
        let inside = object::members(line, |key, value| self.see(key, value, &mut found));
        let Some(inside) = inside else { return false };

        out.push(b'{');
        let is_apart = self.format == LogFormat::Otel && !found.is_record;
        let has_time = match self.format {
            // Its readers ask for this very member, and find no other.
            LogFormat::Ecs => found.has_format_time,
            LogFormat::Otel => found.has_time && !is_apart,
            LogFormat::Json | LogFormat::Text | LogFormat::Gcp => found.has_time,
        };
        if !has_time {
            out.extend_from_slice(time);
        }
        if is_apart || !found.has_level {
            let severity = found.severity.unwrap_or(self.severity);
            out.extend_from_slice(self.levels.get(severity as usize).map_or(b"", Vec::as_slice));
        }
        if let Some((_, text)) = found.message.filter(|_| is_apart || !found.has_message) {
            out.extend_from_slice(&self.message_key);
            out.extend_from_slice(text);
            out.push(b',');
        }
        if is_apart {
            out.extend_from_slice(b"\"Attributes\":{");
            self.attributes.push(out);
            push_members(inside, out);
            out.extend_from_slice(b"},");
            out.extend_from_slice(&self.resource);
            end(out);
        } else {
            self.fields.push(out);
            push_members(inside, out);
        }
        out.extend_from_slice(b"}\n");
        true
    }

    fn see<'a>(&mut self, key: Key<'a>, value: &'a [u8], found: &mut Found<'a>) {
        if !key.has_escapes {
            return self.see_name(key.raw, value, found);
        }
        self.see_name(&key.name(), value, found);
    }

    fn see_name<'a>(&mut self, name: &[u8], value: &'a [u8], found: &mut Found<'a>) {
        self.fields.take(name);
        self.attributes.take(name);
        let format = self.format;
        match Part::of(name) {
            None => {}
            Some(Part::Time) => {
                found.has_time = true;
                found.has_format_time |= name == format.time_key().as_bytes();
            }
            Some(Part::Level) => {
                found.has_level |= name == format.level_key().as_bytes();
                found.is_record |= name == LogFormat::Otel.level_key().as_bytes();
                found.severity = found.severity.or_else(|| words::severity(value));
            }
            Some(Part::SeverityNumber) => {
                found.has_level |= format == LogFormat::Otel;
                found.severity = found.severity.or_else(|| words::severity_of_number(value));
            }
            Some(Part::Message(rank)) => {
                found.has_message |= name == format.message_key().as_bytes();
                found.is_record |= name == LogFormat::Otel.message_key().as_bytes();
                let is_better = found.message.is_none_or(|(best, _)| rank < best);
                if is_better && value.first() == Some(&b'"') {
                    found.message = Some((rank, value));
                }
            }
        }
    }
}

/// Appends the program's members. What is before them ends with a comma or with
/// the bracket.
fn push_members(inside: &[u8], out: &mut Vec<u8>) {
    if inside.trim_ascii().is_empty() {
        end(out);
    }
    out.extend_from_slice(inside);
}

/// Takes back the comma that nothing follows.
fn end(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
}
