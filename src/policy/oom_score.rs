//! Who is to be killed first when memory runs out: the child rather than castoff,
//! which is the one that can tell why.
//!
//! Owns the numbers for `oom_score_adj` (`man 5 proc_pid_oom_score_adj`). What it
//! may be set to is the kernel's to say.

/// The kernel never kills a process that has this, not even with its group
/// (`memory.oom.group`, cgroup-v2.rst).
pub(crate) const NEVER: i32 = -1000;
/// The first to go.
pub(crate) const FIRST: i32 = 1000;

/// More memory than castoff ever has: its own, mapped files and page tables,
/// with every connection of the endpoints in use.
const OWN_BYTES: u64 = 8 << 20;

/// What castoff starts gets this in place of castoff's own `inherited`, where
/// castoff may not lower that; `None`: nothing would help.
///
/// The kernel compares pages in use plus `adj` times a thousandth of the pages
/// that there may be, rounded down (mm/oom_kill.c, `oom_badness`): the memory
/// limit of the group that runs out. The least is added with which a child that
/// has no page at all comes before castoff: 8 at 1 GiB, 129 at 64 MiB. A lower
/// limit than that of a thousand pages knows no difference.
pub(crate) fn raised(inherited: i32, limit_bytes: Option<u64>, page_bytes: u64) -> Option<i32> {
    let page_bytes = page_bytes.max(1);
    let own_pages = OWN_BYTES.div_ceil(page_bytes);
    // Without a limit the machine's memory counts, which is more than this.
    let limit_pages = limit_bytes.map_or(u64::MAX, |bytes| bytes / page_bytes);
    let pages_each = limit_pages / 1000;
    if pages_each == 0 || inherited >= FIRST {
        return None;
    }
    let more = i32::try_from(1 + own_pages / pages_each).unwrap_or(FIRST);
    Some(inherited.saturating_add(more).min(FIRST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    /// As the kernel counts, in pages.
    fn badness(pages: u64, adj: i32, limit_bytes: u64) -> i64 {
        pages as i64 + i64::from(adj) * (limit_bytes / PAGE / 1000) as i64
    }

    #[test]
    fn the_least_is_added_that_helps() {
        for (limit, added) in
            [(8 << 30, 1), (1 << 30, 8), (256 << 20, 32), (64 << 20, 129), (20 << 20, 410)]
        {
            assert_eq!(raised(0, Some(limit), PAGE), Some(added), "{limit}");
            assert_eq!(raised(-997, Some(limit), PAGE), Some(added - 997), "{limit}");
        }
        assert_eq!(raised(3, None, PAGE), Some(4));
        assert_eq!(raised(0, Some(64 << 20), 65536), Some(129));
    }

    #[test]
    fn there_is_an_end_to_it() {
        assert_eq!(raised(999, Some(64 << 20), PAGE), Some(FIRST));
        assert_eq!(raised(FIRST, Some(64 << 20), PAGE), None);
        // Less than a thousand pages, for which the kernel has no fractions.
        assert_eq!(raised(0, Some(1000 * PAGE - 1), PAGE), None);
        assert_eq!(raised(0, Some(0), PAGE), None);
        assert_eq!(raised(0, Some(1 << 30), 0), Some(8));
    }

    proptest! {
        #[test]
        fn castoff_is_never_the_larger_victim(
            inherited in -1000..1000_i32,
            limit in (1000 * PAGE)..(1_u64 << 40),
            own in 0..(OWN_BYTES / PAGE),
        ) {
            let childs = raised(inherited, Some(limit), PAGE).unwrap();
            prop_assert!(childs > inherited && childs <= FIRST);
            if childs < FIRST {
                prop_assert!(badness(0, childs, limit) > badness(own, inherited, limit));
            }
        }
    }
}
