//! Whom the child runs as: the words of `CASTOFF_USER`, and what they mean by the
//! text of `/etc/passwd` and `/etc/group`.

use std::fmt;

/// `1000`, `1000:1000`, `app` or `app:app`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserSpec {
    pub(crate) user: Identity,
    /// `None`: the user's own, and those that list it as a member.
    pub(crate) group: Option<Identity>,
}

/// A user or a group, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Id(u32),
    Name(String),
}

impl UserSpec {
    /// `None`: a part is empty, too much, a number that is no id, or holds what
    /// no name may.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let group = group.map(|group| Identity::parse(group).ok_or(())).transpose().ok()?;
        Some(Self { user: Identity::parse(user)?, group })
    }
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The last one means "no change" to the kernel (man 2 setresuid).
            return text.parse().ok().filter(|id| *id != u32::MAX).map(Self::Id);
        }
        let is_odd =
            |c: char| c == ':' || c == ',' || c == '/' || c.is_control() || c.is_whitespace();
        (!text.is_empty() && !text.contains(is_odd)).then(|| Self::Name(text.to_owned()))
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => write!(f, "{}", self.user),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}
