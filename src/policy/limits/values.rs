//! What one file says: the text of a limit file in, a number or nothing out.
//!
//! Nothing here knows which file a text came from or which of several numbers
//! holds. A text that makes no sense is an `Expected`, never a panic and never
//! a limit of 0: detection fails open.

/// A file's limit, `None` when it says that there is none, or what should have
/// stood there.
pub(super) type Parsed<T> = Result<Option<T>, Expected>;

/// What a text should have been, to end the sentence "expected ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected(pub(super) &'static str);

/// From here on a number stands for "no limit". v1 writes the largest signed
/// number rounded down to a page, whose size differs between machines; no
/// machine has half of that.
const UNLIMITED: u64 = 1 << 62;

/// More CPUs than any kernel can be built for (8192): such a quota limits
/// nothing.
const TOO_MANY_CPUS: f64 = 65_536.0;

/// The period when `cpu.max` names none, in microseconds (cgroup-v2.rst).
const DEFAULT_PERIOD: u64 = 100_000;

const CPU_MAX: Expected = Expected("a quota and a period above 0, such as \"50000 100000\"");
const CFS_QUOTA: Expected = Expected("-1 or a number of microseconds above 0");
const CFS_PERIOD: Expected = Expected("a number of microseconds above 0");
const AMOUNT: Expected = Expected("\"max\" or a number above 0");
const CPU_LIST: Expected = Expected("a list of CPUs, such as \"0-3,6\"");

/// Decimal digits and nothing else. A number too large for the type is the
/// largest one: it was written by somebody who meant "no limit".
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// v2 `cpu.max`: CPUs as quota / period.
pub(super) fn cpu_max(text: &str) -> Parsed<f64> {
    let mut words = text.split_whitespace();
    let (quota, period, rest) = (words.next(), words.next(), words.next());
    match (quota, rest) {
        (Some("max"), None) => Ok(None),
        (Some(quota), None) => {
            let quota = number(quota).filter(|quota| *quota > 0).ok_or(CPU_MAX)?;
            let period = period.map_or(Some(DEFAULT_PERIOD), number).filter(|period| *period > 0);
            Ok(cpus(quota, period.ok_or(CPU_MAX)?))
        }
        _ => Err(CPU_MAX),
    }
}

/// v1 `cpu.cfs_quota_us`: microseconds in each period.
pub(super) fn cfs_quota(text: &str) -> Parsed<u64> {
    let text = text.trim();
    match text.strip_prefix('-') {
        Some(digits) if number(digits).is_some() => Ok(None),
        Some(_) => Err(CFS_QUOTA),
        None => number(text).filter(|quota| *quota > 0).map(Some).ok_or(CFS_QUOTA),
    }
}

/// v1 `cpu.cfs_period_us`: microseconds.
pub(super) fn cfs_period(text: &str) -> Parsed<u64> {
    number(text.trim()).filter(|period| *period > 0).map(Some).ok_or(CFS_PERIOD)
}

/// A quota in CPUs; both arguments in the same unit and above 0.
pub(super) fn cpus(quota: u64, period: u64) -> Option<f64> {
    let cpus = quota as f64 / period as f64;
    (cpus < TOO_MANY_CPUS).then_some(cpus)
}

/// v2 `memory.max`, v1 `memory.limit_in_bytes`, `pids.max` of both.
pub(super) fn amount(text: &str) -> Parsed<u64> {
    match text.trim() {
        "max" | "-1" => Ok(None),
        text => match number(text) {
            Some(0) | None => Err(AMOUNT),
            Some(amount) => Ok(Some(amount).filter(|amount| *amount < UNLIMITED)),
        },
    }
}

/// v1 `memory.stat`: the lowest limit of the group and of every ancestor, also
/// of those that cannot be seen from inside a container. The largest number
/// when there is no such limit, `None` when the kernel does not say.
pub(super) fn hierarchical_memory_limit(text: &str) -> Parsed<u64> {
    match value_of(text, "hierarchical_memory_limit") {
        Some(limit) => amount(limit).map(|limit| Some(limit.unwrap_or(u64::MAX))),
        None => Ok(None),
    }
}

/// How many CPUs a list such as `0-3,6` names. An empty list says nothing: it
/// is what a cpuset shows that was never set up.
pub(super) fn cpu_list(text: &str) -> Parsed<u32> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let cpus_in = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        u32::try_from(last.checked_sub(first)?.checked_add(1)?).ok()
    };
    text.split(',')
        .try_fold(0u32, |sum, range| sum.checked_add(cpus_in(range)?))
        .map(Some)
        .ok_or(CPU_LIST)
}

/// `/proc/self/status`: how many CPUs the process may run on.
pub(super) fn affinity(text: &str) -> Parsed<u32> {
    text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map_or(Ok(None), cpu_list)
}

/// `/proc/meminfo`: the memory of the machine in bytes.
pub(super) fn mem_total(text: &str) -> Option<u64> {
    number(value_of(text, "MemTotal:")?)?.checked_mul(1024)
}

/// How often and for how long the CPU quota held a group back: the text of
/// `cpu.stat`, whose unit is in the name (v2 µs) or is not (v1 ns).
pub(crate) fn throttling(text: &str) -> (Option<u64>, Option<f64>) {
    let seconds = figure(text, "throttled_usec")
        .map(|usec| usec as f64 / 1e6)
        .or_else(|| figure(text, "throttled_time").map(|nanos| nanos as f64 / 1e9));
    (figure(text, "nr_throttled"), seconds)
}

/// The number on the line that starts with `key`, as in `cpu.stat` and
/// `memory.stat`.
pub(crate) fn figure(text: &str, key: &str) -> Option<u64> {
    value_of(text, key).and_then(number)
}

/// The word after `key` on the line that starts with it.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix([' ', '\t']))?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cpu_max_is_quota_over_period() {
        for (text, expected) in [
            ("250000 100000\n", Ok(Some(2.5))),
            ("50000 100000", Ok(Some(0.5))),
            ("max 100000\n", Ok(None)),
            ("max", Ok(None)),
            ("500000\n", Ok(Some(5.0))),
            ("9223372036854775807 9223372036854775807", Ok(Some(1.0))),
            ("9223372036854775807 100000", Ok(None)),
            ("asdf 100000", Err(CPU_MAX)),
            ("500000 njn", Err(CPU_MAX)),
            ("", Err(CPU_MAX)),
            ("\n", Err(CPU_MAX)),
            ("1 2 3", Err(CPU_MAX)),
            ("250000 0", Err(CPU_MAX)),
            ("0 100000", Err(CPU_MAX)),
            ("-1 100000", Err(CPU_MAX)),
        ] {
            assert_eq!(cpu_max(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_v1_quota_below_zero_is_none() {
        for (text, expected) in [
            ("-1\n", Ok(None)),
            ("-20", Ok(None)),
            ("500000", Ok(Some(500_000))),
            ("0", Err(CFS_QUOTA)),
            ("-", Err(CFS_QUOTA)),
            ("123max", Err(CFS_QUOTA)),
        ] {
            assert_eq!(cfs_quota(text), expected, "{text:?}");
        }
        assert_eq!(cfs_period("100000\n"), Ok(Some(100_000)));
        assert_eq!(cfs_period("0"), Err(CFS_PERIOD));
        assert_eq!(cpus(i64::MAX as u64, 100_000), None);
    }

    #[test]
    fn the_numbers_that_mean_unlimited_are_none() {
        for text in [
            "max\n",
            "-1",
            "9223372036854771712",
            "9223372036854710272",
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999999",
        ] {
            assert_eq!(amount(text), Ok(None), "{text:?}");
        }
        assert_eq!(amount("1048576000\n"), Ok(Some(1_048_576_000)));
        for text in ["", "0", "1e9", "12 13", "-2", "max max"] {
            assert_eq!(amount(text), Err(AMOUNT), "{text:?}");
        }
    }

    #[test]
    fn a_cpu_list_is_counted() {
        for (text, expected) in [
            ("0-3,6\n", Ok(Some(5))),
            ("1", Ok(Some(1))),
            ("\n", Ok(None)),
            ("3-1", Err(CPU_LIST)),
            ("0-", Err(CPU_LIST)),
            ("0-4294967295", Err(CPU_LIST)),
            ("all", Err(CPU_LIST)),
        ] {
            assert_eq!(cpu_list(text), expected, "{text:?}");
        }
    }

    #[test]
    fn figures_are_taken_from_their_line() {
        assert_eq!(affinity("Name:\tx\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n"), Ok(Some(2)));
        assert_eq!(affinity("Name:\tx\n"), Ok(None));
        assert_eq!(mem_total("MemTotal:       24684092 kB\nMemFree: 1 kB\n"), Some(25_276_510_208));
        assert_eq!(
            hierarchical_memory_limit("cache 0\nhierarchical_memory_limit 67108864\n"),
            Ok(Some(67_108_864))
        );
        assert_eq!(
            throttling("usage_usec 9\nnr_throttled 3\nthrottled_usec 1500000\n"),
            (Some(3), Some(1.5))
        );
        assert_eq!(
            throttling("nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n"),
            (Some(3), Some(1.5))
        );
        assert_eq!(throttling("usage_usec 9\n"), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_gives_a_limit_of_zero(text in any::<String>(), digits in "[-0-9 max]{0,24}") {
            for text in [text.as_str(), digits.as_str()] {
                if let Ok(Some(cpus)) = cpu_max(text) {
                    prop_assert!(cpus > 0.0 && cpus.is_finite());
                }
                for parse in [cfs_quota, cfs_period, amount, hierarchical_memory_limit] {
                    prop_assert_ne!(parse(text), Ok(Some(0)));
                }
                prop_assert_ne!(cpu_list(text), Ok(Some(0)));
                throttling(text);
                mem_total(text);
                prop_assert_ne!(affinity(text), Ok(Some(0)));
            }
        }
    }
}
