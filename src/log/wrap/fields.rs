//! The constant fields of a line, rendered once.
//!
//! Owns which of them a line gets whose object comes from the program: those
//! whose name it does not have. They never hold anything of the program's.

/// Members of an object, each as `"name":value`, in order.
#[derive(Default)]
pub(super) struct Fields {
    list: Vec<Field>,
    /// The bits of all names, to pass over most others at once.
    bits: u64,
    any_is_taken: bool,
}

struct Field {
    name: Vec<u8>,
    member: Vec<u8>,
    /// The program's object has a member of that name.
    is_taken: bool,
}

/// One of 64 bits for each length and first byte.
fn bit_of(name: &[u8]) -> u64 {
    let first = usize::from(name.first().copied().unwrap_or_default());
    1 << ((first ^ name.len() << 3) & 63)
}

/// A string with its quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default() // which cannot fail
}

impl Fields {
    /// Adds one whose value is JSON already.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        self.bits |= bit_of(name.as_bytes());
        let member = format!("{}:{value}", quoted(name)).into_bytes();
        self.list.push(Field { name: name.into(), member, is_taken: false });
    }

    pub(super) fn add_text(&mut self, name: &str, value: &str) {
        self.add(name, &quoted(value));
    }

    /// Adds all of the other.
    pub(super) fn append(&mut self, mut other: Self) {
        self.bits |= other.bits;
        self.list.append(&mut other.list);
    }

    /// Takes note of a name that the program's object has.
    pub(super) fn take(&mut self, name: &[u8]) {
        if self.bits & bit_of(name) == 0 {
            return;
        }
        for field in self.list.iter_mut().filter(|field| field.name == name) {
            field.is_taken = true;
            self.any_is_taken = true;
        }
    }

    /// Appends those that are not taken, a comma after each.
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        for field in self.list.iter().filter(|field| !field.is_taken) {
            out.extend_from_slice(&field.member);
            out.push(b',');
        }
    }

    /// The next object takes none yet.
    pub(super) fn release(&mut self) {
        if self.any_is_taken {
            self.any_is_taken = false;
            self.list.iter_mut().for_each(|field| field.is_taken = false);
        }
    }

    pub(super) fn joined(&self) -> String {
        let mut out = Vec::new();
        self.push(&mut out);
        out.pop();
        String::from_utf8(out).unwrap_or_default() // which they are
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_left_out_of_an_object_that_has_its_name_and_of_no_other() {
        let mut fields = Fields::default();
        fields.add_text("pod", "a\"b");
        fields.add("node", "{}");
        fields.add_text("team", "");
        let pushed = |fields: &Fields| {
            let mut out = Vec::new();
            fields.push(&mut out);
            String::from_utf8(out).unwrap()
        };
        let all = r#""pod":"a\"b","node":{},"team":"","#;
        assert_eq!(pushed(&fields), all);
        assert_eq!(format!("{},", fields.joined()), all);
        for name in ["node", "no", "Pod", ""] {
            fields.take(name.as_bytes());
        }
        assert_eq!(pushed(&fields), r#""pod":"a\"b","team":"","#);
        fields.release();
        assert_eq!(pushed(&fields), all);
    }
}
