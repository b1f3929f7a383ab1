//! Whom the child runs as: the words of `CASTOFF_USER`, and what they mean by the
//! text of `/etc/passwd` and `/etc/group`.

use std::fmt;

/// Where the users of an image are listed (`man 5 passwd`).
pub(crate) const PASSWD: &str = "/etc/passwd";
/// And the groups (`man 5 group`).
pub(crate) const GROUP: &str = "/etc/group";

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

/// A user and everything that goes with it, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, `gid` first and each once.
    pub(crate) groups: Vec<u32>,
    pub(crate) account: Option<Account>,
}

/// What the user's line says besides numbers: bytes, for nobody has ever said
/// what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: Vec<u8>,
    /// Empty where the line has none.
    pub(crate) home: Vec<u8>,
}

/// A name that is in neither file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    #[error("no user {0} in {PASSWD}, expected a name of that file or a number")]
    User(String),
    #[error("no group {0} in {GROUP}, expected a name of that file or a number")]
    Group(String),
}

impl UserSpec {
    /// What runtimes make of an image's USER. A number needs no line; the group of
    /// a user without one is 0. A group that was given is the only one; else there
    /// are the user's own and all that list it. The first of several lines counts,
    /// and lines that are none are passed over.
    ///
    /// # Errors
    /// A name that has no line.
    pub(crate) fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Credentials, Stranger> {
        let is_it = |user: &User<'_>| match &self.user {
            Identity::Id(uid) => user.uid == *uid,
            Identity::Name(name) => user.name == name.as_bytes(),
        };
        let user = lines(passwd).filter_map(User::parse).find(is_it);
        let uid = match (&user, &self.user) {
            (Some(user), _) => user.uid,
            (None, Identity::Id(uid)) => *uid,
            (None, Identity::Name(name)) => return Err(Stranger::User(name.clone())),
        };
        let mut members = lines(group).filter_map(Group::parse);
        let (gid, others) = match &self.group {
            Some(Identity::Id(gid)) => (*gid, Vec::new()),
            Some(Identity::Name(name)) => {
                let found = members.find(|group| group.name == name.as_bytes());
                (found.ok_or_else(|| Stranger::Group(name.clone()))?.gid, Vec::new())
            }
            None => {
                let lists_it =
                    |group: &Group<'_>| user.as_ref().is_some_and(|user| group.lists(user.name));
                let listing = members.filter(lists_it).map(|group| group.gid);
                (user.as_ref().map_or(0, |user| user.gid), listing.collect())
            }
        };
        let mut groups = vec![gid];
        for other in others {
            // The kernel takes no more (NGROUPS_MAX).
            if !groups.contains(&other) && groups.len() < GROUPS_MAX {
                groups.push(other);
            }
        }
        let account = user.map(|user| Account { name: user.name.into(), home: user.home.into() });
        Ok(Credentials { uid, gid, groups, account })
    }
}

/// `NGROUPS_MAX` (`man 2 setgroups`).
const GROUPS_MAX: usize = 65536;

impl Credentials {
    /// HOME for this user: `/` where nobody says, as runtimes have it.
    pub(crate) fn home(&self) -> &[u8] {
        match &self.account {
            Some(account) if !account.home.is_empty() => &account.home,
            _ => b"/",
        }
    }

    /// The user's name, if it has one.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.account.as_ref().map(|account| account.name.as_slice())
    }
}

/// What a user's variables become when the child runs as another one: those that
/// the runtime has set for castoff's own user, and no other. `variable` tells
/// what the child would have. `None` as a value: the variable is taken away.
pub(crate) fn variables<'a>(
    own: &Credentials,
    child: &'a Credentials,
    variable: impl Fn(&str) -> Option<Vec<u8>>,
) -> Vec<(&'static str, Option<&'a [u8]>)> {
    let mut changed = Vec::new();
    let home = variable("HOME");
    let is_own_home = |home: &[u8]| {
        // Some runtimes call it so where there is no file that says it.
        let is_roots = own.uid == 0 && own.account.is_none() && home == b"/root";
        home.is_empty() || home == own.home() || is_roots
    };
    if home.is_none_or(|home| is_own_home(&home)) {
        changed.push(("HOME", Some(child.home())));
    }
    for name in ["USER", "LOGNAME"] {
        if variable(name).is_some_and(|value| own.name() == Some(&value)) {
            changed.push((name, child.name()));
        }
    }
    changed
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_comment = |line: &&[u8]| !line.starts_with(b"#");
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(is_comment)
}

/// `name:password:uid:gid:comment:home:shell`
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> User<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        // A variable cannot hold it.
        let home = if home.contains(&0) { b"" } else { home };
        Some(Self { name, uid, gid, home })
    }
}

/// `name:password:gid:member,member`
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }

    fn lists(&self, name: &[u8]) -> bool {
        self.members.split(|byte| *byte == b',').any(|member| member.trim_ascii() == name)
    }
}

/// `None`: no number, or the one that means "no change" to the kernel.
fn id(field: &[u8]) -> Option<u32> {
    let is_number = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(field).ok().filter(|_| is_number)?;
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests;
