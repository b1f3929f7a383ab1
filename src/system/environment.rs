//! The environment as castoff got it, to the byte: entries that stand twice or
//! have no `=` are the child's as well. It is read once and never changed.
#![expect(unsafe_code, reason = "std drops the entries that have no `=`")]

use std::ffi::{CStr, CString, c_char};

use crate::policy::runtime_env::{self, Change, Export};

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Every entry, in the order of the process's own block.
pub(crate) fn inherited() -> Vec<CString> {
    let mut entries = Vec::new();
    // SAFETY: `environ` is the C library's, nothing in castoff changes it, and
    // it ends with a null pointer, or is one when the caller gave none.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            entries.push(CStr::from_ptr(*next).to_owned());
            next = next.add(1);
        }
    }
    entries
}

/// Gives a variable that value in place of every one that it has; `None`: it has
/// none. What is not about the variable stays as it is.
pub(crate) fn replace(environment: &mut Vec<CString>, name: &str, value: Option<&[u8]>) {
    let is_other = |entry: &CString| {
        let rest = entry.to_bytes().strip_prefix(name.as_bytes());
        rest.is_none_or(|rest| !rest.starts_with(b"="))
    };
    environment.retain(is_other);
    let entry = value.and_then(|value| CString::new([name.as_bytes(), b"=", value].concat()).ok());
    environment.extend(entry);
}

/// The value that the C library, and every runtime by it, finds for a variable:
/// that of its first entry.
pub(crate) fn value_of<'a>(environment: &'a [CString], name: &str) -> Option<&'a [u8]> {
    environment.iter().find_map(|entry| runtime_env::value_in(entry.to_bytes(), name))
}

/// Adds the exports. To what is appended, that is done in the entry that
/// `value_of` finds, and where it stands.
pub(crate) fn export(environment: &mut Vec<CString>, exports: &[Export]) {
    for Export { name, value, change, .. } in exports {
        let old = environment
            .iter_mut()
            .find(|entry| runtime_env::value_in(entry.to_bytes(), name).is_some());
        match (change, old) {
            (Change::Appended, Some(entry)) => {
                let whole = [entry.to_bytes(), b" ", value.as_bytes()].concat();
                if let Ok(whole) = CString::new(whole) {
                    *entry = whole;
                }
            }
            (Change::Added, None) => environment.extend(CString::new(format!("{name}={value}"))),
            // Made for another environment.
            (Change::Appended, None) | (Change::Added, Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_replaced_wherever_it_stands() {
        let entries = |texts: &[&CStr]| texts.iter().map(|text| (*text).into()).collect::<Vec<_>>();
        let mut environment = entries(&[c"A=1", c"AB=2", c"A", c"A=3", c"A="]);
        replace(&mut environment, "A", Some(b"x=y"));
        assert_eq!(environment, entries(&[c"AB=2", c"A", c"A=x=y"]));
        replace(&mut environment, "A", None);
        assert_eq!(environment, entries(&[c"AB=2", c"A"]));
    }

    #[test]
    fn an_option_is_appended_to_the_entry_that_runtimes_read() {
        let export = |name, value: &str, change| Export {
            name,
            value: value.to_owned(),
            change,
            why: String::new(),
        };
        let exports = [
            export("A", "2", Change::Added),
            export("OPTIONS", "-b", Change::Appended),
            export("SET", "2", Change::Added),
            export("GONE", "2", Change::Appended),
        ];
        let mut environment: Vec<CString> =
            [c"OPTIONSX=1", c"OPTIONS", c"OPTIONS=\xff-a", c"SET=", c"OPTIONS=-c"]
                .map(Into::into)
                .into();
        assert_eq!(value_of(&environment, "OPTIONS"), Some(&b"\xff-a"[..]));
        super::export(&mut environment, &exports);
        let expected: [CString; 6] =
            [c"OPTIONSX=1", c"OPTIONS", c"OPTIONS=\xff-a -b", c"SET=", c"OPTIONS=-c", c"A=2"]
                .map(Into::into);
        assert_eq!(environment, expected);
    }
}
