//! From tracing's events to log lines.
//!
//! Owns which part of an event goes where: the message and the field `event`
//! lead, the other fields keep their order. It knows no event by name, no format,
//! and never writes to a descriptor.

use std::fmt;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line::Line;
use super::style::Style;

/// Lines of one style: numbers and booleans are JSON's own, and bytes are JSON
/// already, for tracing has no lists; all else is text.
pub(super) struct Formatter {
    pub(super) style: &'static Style,
}

impl<S, N> FormatEvent<S, N> for Formatter
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        let line = Line::new(self.style, SystemTime::now(), level, &|line| {
            for part in [Part::Message, Part::Event, Part::Others] {
                event.record(&mut PartOfEvent { line, part });
            }
        });
        out.write_str(std::str::from_utf8(line.as_bytes()).map_err(|_| fmt::Error)?)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Message,
    Event,
    Others,
}

/// Takes one part of an event into the line and passes over the rest.
struct PartOfEvent<'a> {
    line: &'a mut Line,
    part: Part,
}

impl PartOfEvent<'_> {
    fn is_here(&self, field: &Field) -> bool {
        self.part
            == match field.name() {
                "message" => Part::Message,
                "event" => Part::Event,
                _ => Part::Others,
            }
    }

    fn text(&mut self, field: &Field, value: &dyn fmt::Display) {
        if self.is_here(field) {
            match self.part {
                Part::Message => self.line.message(value),
                Part::Event => self.line.event(value),
                Part::Others => self.line.text(field.name(), value),
            }
        }
    }
}

impl Visit for PartOfEvent<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, &value);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        if self.is_here(field) {
            self.line.json(field.name(), value);
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if self.is_here(field) {
            self.line.value(field.name(), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if self.is_here(field) {
            self.line.value(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if self.is_here(field) {
            self.line.value(field.name(), value);
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if self.is_here(field) {
            self.line.value(field.name(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::log::capture::lines_of;

    #[test]
    fn types_keep_their_form_and_fields_their_order() {
        let lines = lines_of(|| {
            tracing::info!(
                zulu = 1.5,
                event = "tested",
                alpha = true,
                none = None::<u64>,
                some = Some(-3),
                whole = 2.0,
                nan = f64::NAN,
                debug = ?"q\"",
                display = %'c',
                bytes = br#"[{"a":1}]"#.as_slice(),
                "a fixed phrase"
            );
        });
        assert_eq!(
            lines,
            [concat!(
                r#""level":"INFO","msg":"a fixed phrase","event":"tested","zulu":1.5,"alpha":true,"#,
                r#""some":-3,"whole":2.0,"nan":null,"debug":"\"q\\\"\"","display":"c","#,
                r#""bytes":[{"a":1}]}"#
            )]
        );
    }

    #[test]
    fn a_value_with_line_feeds_stays_on_its_line() {
        let lines = lines_of(|| tracing::warn!(event = "tested", value = "a\nb\r\n", "x"));
        assert_eq!(lines, [r#""level":"WARN","msg":"x","event":"tested","value":"a\nb\r\n"}"#]);
    }
}
