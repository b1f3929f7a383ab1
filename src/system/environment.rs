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
