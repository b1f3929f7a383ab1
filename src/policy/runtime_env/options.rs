//! Strings of options that the JVM and Node read: a heap that fits the limit,
//! unless somebody has decided on it.
//!
//! An option is appended to what stands there and comes last; so it must never be
//! one that could win over the user's. What is set to nothing stays so: that is
//! how one of the variables is kept from castoff.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Answer, Change, bytes_of};
use crate::policy::limits::Limit;

/// Of each heap the share of the limit, in percent. The rest is for stacks,
/// code, buffers and, in a JVM, classes.
const HEAP_PERCENT: u64 = 75;

/// Variables and arguments in which a user decides.
struct Decided {
    /// The first is the one that is appended to.
    variables: &'static [&'static str],
    /// How options begin that decide on the heap or leave unknown what does.
    options: &'static [&'static str],
}

/// All that a JVM reads, and what most scripts that start one pass to it.
/// A share by itself loses to `-Xmx` but wins over `MaxRAMFraction`, and means
/// the machine's memory where the limit is not to be looked at.
const JAVA: Decided = Decided {
    variables: &[
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "_JAVA_OPTIONS",
        "OPENJ9_JAVA_OPTIONS",
        "IBM_JAVA_OPTIONS",
        "JAVA_OPTS",
    ],
    options: &[
        "-Xmx",
        "-mx",
        "-XX:MaxHeapSize",
        "-XX:MaxRAM",
        "-XX:MinRAM",
        "-XX:+AggressiveHeap",
        "-XX:-UseContainerSupport",
        "-XX:Flags",
        "-XX:VMOptionsFile",
    ],
};

/// Of the options of V8, `_` is the same as `-`. The share in percent, which
/// would win, is in the first of them.
const NODE: Decided =
    Decided { variables: &["NODE_OPTIONS"], options: &["--max-old-space-size", "--max-heap-size"] };

/// A Java 8 takes no notice of a variable that is longer.
const JAVA_8_BYTES: usize = 1023;

/// In MiB. Node 20 starts with 4 and not with 3; programs need more.
const NODE_LEAST: u64 = 32;

/// `-XX:MaxRAMPercentage=75.0`, and never a number of bytes, which would win over
/// the share that a user gives on the command line. Where half of the memory is
/// less than 125 MiB the JVM takes no notice of it and goes by its
/// `MinRAMPercentage`, 50, so that small containers keep what they have. Known
/// since Java 8u191; an older one does not start with it.
pub(super) fn add_java(answer: &mut Answer<'_>, memory: Option<&Limit<u64>>) {
    let Some(memory) = memory else { return };
    let option = format!("-XX:MaxRAMPercentage={HEAP_PERCENT}.0");
    let is_open = |text: &[u8]| {
        let quote = |open: Option<u8>, byte: &u8| match open {
            Some(quote) => (quote != *byte).then_some(quote),
            None => matches!(byte, b'\'' | b'"').then_some(*byte),
        };
        text.iter().fold(None, quote).is_some()
    };
    let is_too_long =
        |text: &[u8]| (text.len() <= JAVA_8_BYTES) && text.len() + 1 + option.len() > JAVA_8_BYTES;
    let refusal = |text: &[u8]| {
        if is_open(text) {
            Some("has a quote without its end")
        } else {
            is_too_long(text).then_some("is too long for one more in Java 8")
        }
    };
    let why = format!("{HEAP_PERCENT} % for the heap, {}", bytes_of(memory));
    add(answer, &JAVA, option.clone(), why, refusal);
}

/// `--max-old-space-size`, and never the share in percent, with which a Node
/// before 22.21 does not start. Each process of a cluster takes as much.
pub(super) fn add_node(answer: &mut Answer<'_>, memory: Option<&Limit<u64>>) {
    let Some(memory) = memory else { return };
    let mib = (memory.value >> 20).saturating_mul(HEAP_PERCENT) / 100;
    if mib < NODE_LEAST {
        let why = format!("{mib} MiB are too little for Node, {}", bytes_of(memory));
        if let [name, ..] = NODE.variables {
            answer.withhold(name, why);
        }
        return;
    }
    let is_open = |text: &[u8]| {
        let mut bytes = text.iter();
        let mut is_open = false;
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => is_open = !is_open,
                // Of something only between quotes.
                b'\\' if is_open => drop(bytes.next()),
                _ => {}
            }
        }
        is_open
    };
    let why = format!("{HEAP_PERCENT} % for the heap, {}", bytes_of(memory));
    let refusal = |text: &[u8]| is_open(text).then_some("has a quote without its end");
    add(answer, &NODE, format!("--max-old-space-size={mib}"), why, refusal);
}

/// `refusal` says what keeps the text of the variable from being appended to.
fn add(
    answer: &mut Answer<'_>,
    decided: &Decided,
    option: String,
    why: String,
    refusal: impl Fn(&[u8]) -> Option<&'static str>,
) {
    let [name, ..] = decided.variables else { return };
    let command = answer.surroundings.command;
    let decides = |text: &OsStr| decided.is_in(text.as_bytes());
    let by = |variable: &&&str| answer.value_of(variable).is_some_and(decides);
    if let Some(variable) = decided.variables.iter().find(by) {
        return answer.withhold(name, format!("{variable} decides"));
    }
    if command.iter().any(|word| decides(word)) {
        return answer.withhold(name, "the command decides".to_owned());
    }
    if answer.program.value_of(name).is_some() {
        return answer.withhold(name, "the command sets it".to_owned());
    }
    match answer.value_of(name).map(|text| text.as_bytes().trim_ascii()) {
        None => answer.put(name, option, Change::Added, why),
        Some([]) => answer.withhold(name, "is set to nothing".to_owned()),
        Some(text) => match refusal(text) {
            Some(reason) => answer.withhold(name, reason.to_owned()),
            None => answer.put(name, option, Change::Appended, why),
        },
    }
}

impl Decided {
    /// Whether a word of the text is one of the options, between quotes as well.
    fn is_in(&self, text: &[u8]) -> bool {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'');
        text.split(is_end).any(|word| {
            self.options.iter().any(|option| {
                let same = |(own, other): (u8, &u8)| own == *other || own == b'-' && *other == b'_';
                word.len() >= option.len() && option.bytes().zip(word).all(same)
            })
        })
    }
}
