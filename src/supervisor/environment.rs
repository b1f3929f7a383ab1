//! The variables of everything that castoff starts: those it was given, those
//! that stand in files, and those it adds.
//!
//! Owns who wins: what castoff was given, then the files, then what castoff
//! exports. The list is made anew at each start. No value is ever logged.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::log::events;
use crate::policy::env_dir::{Refusal, Variables};
use crate::policy::limits::Limits;
use crate::policy::program::Program;
use crate::policy::runtime_env::{Export, Exports, Withheld};
use crate::policy::user::{self, Credentials};
use crate::system::env_dir::{self, Failure};
use crate::system::environment;

/// Whose variables those of the runtime are, and whose they become.
pub(crate) struct Switch {
    /// castoff's own user.
    pub(crate) own: Credentials,
    pub(crate) child: Credentials,
}

/// What a child is told of those limits, whose other variables are these.
pub(crate) type ExportRule = Box<dyn Fn(&Limits, &[CString]) -> (Program, Exports)>;

/// What the variables come from.
pub(crate) struct Environment {
    inherited: Vec<CString>,
    directories: Vec<PathBuf>,
    files: Variables,
    has_read: bool,
    /// What was left out of each directory, so that it is told once.
    refused: Vec<Vec<(OsString, Refusal)>>,
    rule: ExportRule,
    exports: Exports,
    /// What the exports depend on, where they do.
    program: Program,
    /// They are not those that the log has told of.
    are_exports_news: bool,
    replaced: Vec<(&'static str, Option<String>)>,
    switch: Option<Switch>,
}

impl Environment {
    /// What castoff was given and nothing else, until `read_files`.
    pub(crate) fn new(directories: Vec<PathBuf>, switch: Option<Switch>, rule: ExportRule) -> Self {
        Self {
            inherited: environment::inherited(),
            directories,
            files: Variables::default(),
            has_read: false,
            refused: Vec::new(),
            rule,
            exports: Exports::default(),
            program: Program::default(),
            are_exports_news: false,
            replaced: Vec::new(),
            switch,
        }
    }

    /// Reads the directories: at each start, for Secrets are exchanged while the
    /// child runs.
    ///
    /// # Errors
    /// One cannot be used. What was read before stays.
    pub(crate) fn read_files(&mut self) -> Result<(), Failure> {
        let mut files = Variables::default();
        let mut read = Vec::new();
        for directory in &self.directories {
            read.push(env_dir::read(directory, &mut files)?);
        }
        let is_news = !std::mem::replace(&mut self.has_read, true) || self.files != files;
        self.files = files;
        for (nth, (directory, contents)) in self.directories.iter().zip(&read).enumerate() {
            if is_news {
                events::env_dir_read(directory, contents.count);
            }
            if !contents.refused.is_empty() && self.refused.get(nth) != Some(&contents.refused) {
                events::env_dir_skipped(directory, &contents.refused);
            }
        }
        self.refused = read.into_iter().map(|contents| contents.refused).collect();
        Ok(())
    }

    /// The value that castoff was given, or that stands in a file: what is set,
    /// even to nothing.
    pub(crate) fn value(&self, name: &str) -> Option<&OsStr> {
        let inherited = self.inherited.iter().find_map(|entry| value_of(entry, name.as_bytes()));
        inherited.or_else(|| self.files.get(name.as_bytes())).map(OsStr::from_bytes)
    }

    /// Adds what follows from these limits, in place of what was added before.
    pub(crate) fn export(&mut self, limits: &Limits) {
        let (program, exports) = (self.rule)(limits, &self.base());
        self.are_exports_news |= exports != self.exports || program != self.program;
        self.exports = exports;
        self.program = program;
    }

    /// Logs what the child gets, if the last one has got something else.
    pub(crate) fn tell_exports(&mut self) {
        if !std::mem::take(&mut self.are_exports_news) {
            return;
        }
        events::program_recognised(&self.program);
        for Export { name, value, why, .. } in &self.exports.exports {
            events::env_exported(name, value, why);
        }
        for Withheld { name, why } in &self.exports.withheld {
            events::env_withheld(name, why);
        }
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.exports
    }

    /// The names of what is added.
    pub(crate) fn exported(&self) -> Vec<&'static str> {
        self.exports.exports.iter().map(|export| export.name).collect()
    }

    /// What is set without castoff.
    pub(crate) fn base(&self) -> Vec<CString> {
        let mut all = self.inherited.clone();
        let entry = |name: &[u8], value: &[u8]| CString::new([name, b"=", value].concat()).ok();
        for (name, value) in self.files.iter() {
            let is_set = self.inherited.iter().any(|entry| value_of(entry, name).is_some());
            all.extend(entry(name, value).filter(|_| !is_set));
        }
        all
    }

    /// Gives a variable this value, whatever it was; `None`: none.
    pub(crate) fn replace(&mut self, name: &'static str, value: Option<String>) {
        self.replaced.push((name, value));
    }

    /// For hooks and other commands of the user's.
    pub(crate) fn of_commands(&self) -> Vec<CString> {
        let mut all = self.base();
        environment::export(&mut all, &self.exports.exports);
        for (name, value) in &self.replaced {
            environment::replace(&mut all, name, value.as_ref().map(String::as_bytes));
        }
        all
    }

    /// For the child: the same, with the HOME of its user.
    pub(crate) fn of_child(&self) -> Vec<CString> {
        let mut all = self.of_commands();
        if let Some(Switch { own, child }) = &self.switch {
            let variable = |name: &str| self.value(name).map(|value| value.as_bytes().to_vec());
            for (name, value) in user::variables(own, child, variable) {
                environment::replace(&mut all, name, value);
            }
        }
        all
    }
}

fn value_of<'a>(entry: &'a CStr, name: &[u8]) -> Option<&'a [u8]> {
    entry.to_bytes().strip_prefix(name)?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::runtime_env::Change;

    fn environment(inherited: &[&str], files: &[(&str, &str)]) -> Environment {
        let export = |name| Export {
            name,
            value: "export".to_owned(),
            change: Change::Added,
            why: String::new(),
        };
        let exports = ["A", "B", "C", "EMPTY"].map(export).into();
        let exports = Exports { exports, withheld: Vec::new() };
        let rule = move |_: &Limits, _: &[CString]| (Program::default(), exports.clone());
        let mut environment = Environment::new(Vec::new(), None, Box::new(rule));
        environment.inherited =
            inherited.iter().map(|entry| CString::new(*entry).unwrap()).collect();
        for (name, value) in files {
            environment.files.insert(name.as_bytes(), value.as_bytes()).unwrap();
        }
        environment
    }

    fn text(entries: &[CString]) -> Vec<&str> {
        entries.iter().map(|entry| entry.to_str().unwrap()).collect()
    }

    #[test]
    fn what_castoff_was_given_wins_and_an_export_comes_last() {
        let mut environment = environment(
            &["A=1", "A=2", "EMPTY=", "odd", "=odd"],
            &[("A", "file"), ("B", "file"), ("EMPTY", "file"), ("odd", "file")],
        );
        environment.export(&Limits::default());
        environment.replace("D", Some("replaced".to_owned()));
        let expected =
            ["A=1", "A=2", "EMPTY=", "odd", "=odd", "B=file", "odd=file", "C=export", "D=replaced"];
        assert_eq!(text(&environment.of_commands()), expected);
        assert_eq!(text(&environment.of_child()), expected);
        assert_eq!(environment.value("A"), Some(OsStr::new("1")));
        assert_eq!(environment.value("B"), Some(OsStr::new("file")));
        assert_eq!(environment.value("EMPTY"), Some(OsStr::new("")));
        assert_eq!(environment.value("C"), None);
    }

    #[test]
    fn the_home_of_another_user_is_the_childs_only() {
        let mut environment = environment(&["HOME=/root", "USER=root"], &[]);
        let user = |uid, name: &str, home: &str| Credentials {
            uid,
            gid: uid,
            groups: vec![uid],
            account: Some(user::Account { name: name.into(), home: home.into() }),
        };
        environment.switch =
            Some(Switch { own: user(0, "root", "/root"), child: user(5, "app", "/srv") });
        assert_eq!(text(&environment.of_commands()), ["HOME=/root", "USER=root"]);
        assert_eq!(text(&environment.of_child()), ["HOME=/srv", "USER=app"]);
    }
}
