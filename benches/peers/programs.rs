//! The children that the inits are given: three programs of a few instructions,
//! without a C library, so that what is measured is the init and not its child.
//!
//! Each is assembled into the benchmark and copied from there into an ELF file
//! of its own. They speak to the harness by their standard output only.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How many orphans `Programs::orphans` makes.
pub(crate) const ORPHANS: u32 = 20_000;
/// What `Programs::listener` waits for: SIGUSR1 and every real-time signal. By
/// SIGTERM it ends as any program does that has no handler.
pub(crate) const HEARD: u64 = 1 << (libc::SIGUSR1 - 1) | !0 << (REAL_TIME.0 - 1);
/// The real-time signals that the C library leaves to programs.
pub(crate) const REAL_TIME: (i32, i32) = (34, 64);

/// Where the programs are.
pub(crate) struct Programs {
    /// Writes the time (two words: seconds, nanoseconds) and ends with 0.
    pub(crate) stamp: PathBuf,
    /// Writes the time and a signal's number (three words): 0 once it is ready,
    /// then one report for every signal of `HEARD` that it gets.
    pub(crate) listener: PathBuf,
    /// Writes a byte, reads one, makes `ORPHANS` orphans, writes another byte
    /// and waits for SIGTERM.
    pub(crate) orphans: PathBuf,
}

impl Programs {
    /// Writes the programs into `directory`.
    ///
    /// # Errors
    /// The directory cannot be written to, or this machine is no x86-64.
    pub(crate) fn write(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let [stamp, listener, orphans] =
            code().ok_or("the measured children are written for x86-64 only")?;
        let write = |name: &str, code: &[u8]| {
            let path = directory.join(name);
            fs::write(&path, executable(code))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            Ok::<_, Box<dyn Error>>(path)
        };
        Ok(Self {
            stamp: write("stamp", stamp)?,
            listener: write("listener", listener)?,
            orphans: write("orphans", orphans)?,
        })
    }
}

/// A static ELF file (`man 5 elf`) of one segment, whose code begins right after
/// the headers.
fn executable(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const FILE_HEADER: u16 = 64;
    const SEGMENT_HEADER: u16 = 56;
    let begin = u64::from(FILE_HEADER + SEGMENT_HEADER);
    let size = begin + code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little endian
    file.extend(2_u16.to_le_bytes()); // an executable
    file.extend(62_u16.to_le_bytes()); // x86-64
    file.extend(1_u32.to_le_bytes());
    file.extend((BASE + begin).to_le_bytes()); // entry
    file.extend(u64::from(FILE_HEADER).to_le_bytes()); // where the segments are told
    file.extend(0_u64.to_le_bytes()); // no sections
    file.extend(0_u32.to_le_bytes());
    for half in [FILE_HEADER, SEGMENT_HEADER, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes()); // to be loaded ...
    file.extend(5_u32.to_le_bytes()); // ... to be read and executed
    for word in [0, BASE, BASE, size, size, 4096] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> Option<[&'static [u8]; 3]> {
    None
}

#[cfg(target_arch = "x86_64")]
fn code() -> Option<[&'static [u8]; 3]> {
    unsafe extern "C" {
        static bench_stamp: [u8; 0];
        static bench_listener: [u8; 0];
        static bench_orphans: [u8; 0];
        static bench_end: [u8; 0];
    }
    let labels = [
        &raw const bench_stamp,
        &raw const bench_listener,
        &raw const bench_orphans,
        &raw const bench_end,
    ];
    let [stamp, listener, orphans, end] = labels.map(|label| label.cast::<u8>());
    let between = |begin: *const u8, end: *const u8| {
        // SAFETY: the labels are in this order around read-only bytes.
        unsafe { std::slice::from_raw_parts(begin, end.offset_from_unsigned(begin)) }
    };
    Some([between(stamp, listener), between(listener, orphans), between(orphans, end)])
}

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.bench_programs, \"a\", @progbits",
    ".macro call_kernel number, first=0, second=0, third=0, fourth=0",
    "    mov eax, \\number",
    "    mov rdi, \\first",
    "    mov rsi, \\second",
    "    mov rdx, \\third",
    "    mov r10, \\fourth",
    "    syscall",
    ".endm",

    "bench_stamp:",
    "    sub rsp, 16",
    "    call_kernel {clock_gettime}, {monotonic}, rsp",
    "    call_kernel {write}, 1, rsp, 16",
    "    call_kernel {exit_group}, 0",

    "bench_listener:",
    "    sub rsp, 32",
    "    mov rax, {heard}",
    "    mov [rsp + 24], rax",
    "    lea rbx, [rsp + 24]",
    "    call_kernel {rt_sigprocmask}, {block}, rbx, 0, 8",
    "    mov qword ptr [rsp + 16], 0",
    "20: call_kernel {clock_gettime}, {monotonic}, rsp",
    "    call_kernel {write}, 1, rsp, 24",
    "21: call_kernel {rt_sigtimedwait}, rbx, 0, 0, 8",
    "    test eax, eax",
    "    js 21b",
    "    mov [rsp + 16], rax",
    "    jmp 20b",

    // vfork twice: the grandchild has ended before its parent does, which then
    // leaves it as a zombie to process 1. Nothing here writes to the stack that
    // the three share.
    "bench_orphans:",
    "    sub rsp, 16",
    "    call_kernel {write}, 1, rsp, 1",
    "    call_kernel {read}, 0, rsp, 1",
    "    mov ebx, {orphans}",
    "30: call_kernel {vfork}",
    "    test eax, eax",
    "    js 33f",
    "    jnz 31f",
    "    call_kernel {vfork}",
    "    call_kernel {exit_group}, 0",
    "31: call_kernel {wait4}, -1",
    "    dec ebx",
    "    jnz 30b",
    "    call_kernel {write}, 1, rsp, 1",
    "32: call_kernel {pause}",
    "    jmp 32b",
    "33: call_kernel {exit_group}, 1",

    "bench_end:",
    ".popsection",
    clock_gettime = const libc::SYS_clock_gettime,
    exit_group = const libc::SYS_exit_group,
    pause = const libc::SYS_pause,
    read = const libc::SYS_read,
    rt_sigprocmask = const libc::SYS_rt_sigprocmask,
    rt_sigtimedwait = const libc::SYS_rt_sigtimedwait,
    vfork = const libc::SYS_vfork,
    wait4 = const libc::SYS_wait4,
    write = const libc::SYS_write,
    monotonic = const libc::CLOCK_MONOTONIC,
    block = const libc::SIG_BLOCK,
    heard = const HEARD as i64,
    orphans = const ORPHANS,
);
