//! How a line of the log looks: the words of every format, and what stands on
//! every line.
//!
//! Only nouns and names; who writes lines is `log`. The names are those of the
//! readers: Google Cloud's structured logging, the Elastic Common Schema with
//! ecs-logging, the data model of OpenTelemetry's logs.

/// The form of every line: castoff's own, and those of the child that are wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// castoff's own names.
    #[default]
    Json,
    /// For people.
    Text,
    /// Google Cloud.
    Gcp,
    /// Elastic.
    Ecs,
    /// OpenTelemetry.
    Otel,
}

/// What becomes of the child's standard output and error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChildLogs {
    /// Its descriptors are those that castoff was given.
    #[default]
    Inherit,
    /// Each of its lines becomes one of castoff's format.
    Json,
}

/// One of the two that are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// How grave a line is that does not say so itself.
    pub(crate) fn severity(self) -> Severity {
        match self {
            Self::Stdout => Severity::Info,
            Self::Stderr => Severity::Error,
        }
    }
}

/// How grave a line is. castoff's own are never fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Severity {
    pub(crate) const ALL: [Self; 6] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// `SeverityNumber`, the first of each range (OpenTelemetry, logs data model).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Trace => 1,
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }
}

/// Who the Pod is, from the downward API: POD_NAME, POD_NAMESPACE, NODE_NAME.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) pod: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) node: Option<String>,
}

/// Everything that is the same on every line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogStyle {
    pub(crate) format: LogFormat,
    /// Of CASTOFF_LOG_FIELDS: no name is one of `RESERVED`.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) identity: Identity,
}

/// Names of LOG_FIELDS that some format has for something else.
pub(crate) const RESERVED: [&str; 33] = [
    "time",
    "level",
    "msg",
    "message",
    "event",
    "stream",
    "severity",
    "@timestamp",
    "log.level",
    "ecs.version",
    "event.action",
    "Timestamp",
    "SeverityText",
    "SeverityNumber",
    "Body",
    "EventName",
    "Attributes",
    "Resource",
    "pod",
    "namespace",
    "node",
    "kubernetes.pod.name",
    "kubernetes.namespace",
    "kubernetes.node.name",
    "k8s.pod.name",
    "k8s.namespace.name",
    "k8s.node.name",
    "log.iostream",
    "partial",
    "partial_message",
    "partial_id",
    "partial_ordinal",
    "partial_last",
];

impl LogFormat {
    /// The word for a level.
    pub(crate) fn level(self, severity: Severity) -> &'static str {
        match (self, severity) {
            // LogSeverity knows nothing below DEBUG.
            (Self::Gcp, Severity::Trace) => "DEBUG",
            (Self::Gcp, Severity::Warn) => "WARNING",
            (Self::Gcp, Severity::Fatal) => "CRITICAL",
            (_, Severity::Trace) => "TRACE",
            (_, Severity::Debug) => "DEBUG",
            (_, Severity::Info) => "INFO",
            (_, Severity::Warn) => "WARN",
            (_, Severity::Error) => "ERROR",
            (_, Severity::Fatal) => "FATAL",
        }
    }

    /// The name of the time: RFC 3339 with microseconds, but in `Otel`
    /// nanoseconds since the epoch, as a string, for JSON's numbers are too short.
    pub(crate) fn time_key(self) -> &'static str {
        match self {
            Self::Json | Self::Text | Self::Gcp => "time",
            Self::Ecs => "@timestamp",
            Self::Otel => "Timestamp",
        }
    }

    pub(crate) fn level_key(self) -> &'static str {
        match self {
            Self::Json | Self::Text => "level",
            Self::Gcp => "severity",
            Self::Ecs => "log.level",
            Self::Otel => "SeverityText",
        }
    }

    pub(crate) fn message_key(self) -> &'static str {
        match self {
            Self::Json | Self::Text => "msg",
            Self::Gcp | Self::Ecs => "message",
            Self::Otel => "Body",
        }
    }

    pub(crate) fn event_key(self) -> &'static str {
        match self {
            Self::Json | Self::Text | Self::Gcp => "event",
            Self::Ecs => "event.action",
            Self::Otel => "EventName",
        }
    }

    /// The name of `stream` on a wrapped line; an attribute in `Otel`
    /// (semantic conventions, general logs attributes).
    pub(crate) fn stream_key(self) -> &'static str {
        match self {
            Self::Json | Self::Text | Self::Gcp => "stream",
            Self::Ecs | Self::Otel => "log.iostream",
        }
    }

    /// The version of the schema that `ecs.version` names.
    pub(crate) const ECS_VERSION: &str = "8.11.0";
}

impl LogStyle {
    /// What stands on every line, by the format's names and in order, each name
    /// once. In `Otel` these are the fields of `Resource`.
    pub(crate) fn common(&self) -> impl Iterator<Item = (&str, &str)> {
        let [pod, namespace, node] = match self.format {
            LogFormat::Json | LogFormat::Text | LogFormat::Gcp => ["pod", "namespace", "node"],
            LogFormat::Ecs => {
                ["kubernetes.pod.name", "kubernetes.namespace", "kubernetes.node.name"]
            }
            LogFormat::Otel => ["k8s.pod.name", "k8s.namespace.name", "k8s.node.name"],
        };
        let who = &self.identity;
        let identity = [(pod, &who.pod), (namespace, &who.namespace), (node, &who.node)];
        let known =
            identity.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        // Some formats have longer names, which a field may have as well.
        let is_taken =
            move |name| identity.iter().any(|(taken, value)| *taken == name && value.is_some());
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        known.chain(fields.filter(move |(name, _)| !is_taken(*name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_on_every_line_has_the_names_of_the_format() {
        let mut style = LogStyle {
            format: LogFormat::Json,
            fields: vec![("team".into(), "a".into())],
            identity: Identity {
                pod: Some("web-0".into()),
                namespace: None,
                node: Some("n1".into()),
            },
        };
        let common = |style: &LogStyle| -> Vec<_> {
            style.common().map(|(name, value)| format!("{name}={value}")).collect()
        };
        assert_eq!(common(&style), ["pod=web-0", "node=n1", "team=a"]);
        style.format = LogFormat::Otel;
        assert_eq!(common(&style), ["k8s.pod.name=web-0", "k8s.node.name=n1", "team=a"]);
        style.format = LogFormat::Ecs;
        let ecs = ["kubernetes.pod.name=web-0", "kubernetes.node.name=n1", "team=a"];
        assert_eq!(common(&style), ecs);
    }

    #[test]
    fn a_name_of_the_pod_is_not_that_of_a_field_as_well() {
        let field = |name: &str| (name.to_owned(), "mine".to_owned());
        let mut style = LogStyle {
            format: LogFormat::Otel,
            fields: vec![field("k8s.pod.name"), field("k8s.node.name")],
            identity: Identity { pod: Some("web-0".into()), ..Identity::default() },
        };
        let common: Vec<_> = style.common().collect();
        assert_eq!(common, [("k8s.pod.name", "web-0"), ("k8s.node.name", "mine")]);
        style.format = LogFormat::Json;
        assert_eq!(style.common().count(), 3);
    }

    #[test]
    fn each_format_has_a_word_for_each_level() {
        let words = |format: LogFormat| Severity::ALL.map(|severity| format.level(severity));
        let own = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
        assert_eq!(words(LogFormat::Json), own);
        assert_eq!(words(LogFormat::Otel), own);
        let gcp = ["DEBUG", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
        assert_eq!(words(LogFormat::Gcp), gcp);
        assert_eq!(Severity::ALL.map(Severity::number), [1, 5, 9, 13, 17, 21]);
    }
}
