//! The environment as castoff got it, to the byte: entries that stand twice or
//! have no `=` are the child's as well. It is read once and never changed.
#![expect(unsafe_code, reason = "std drops the entries that have no `=`")]

use std::ffi::{CStr, CString, c_char};

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
}
