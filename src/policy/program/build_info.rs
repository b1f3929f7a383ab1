//! Go's build information: pieces of an ELF file in, the toolchain's version and
//! the settings that it compiled in out.
//!
//! Own code, since each of the libraries for ELF reads tables that are as long
//! as the file itself says; here every read has a bound and any file is cheap.
//! The format is that of Go's `debug/buildinfo` and the ELF specification.
//! Nothing here fails: a file that makes no sense is not Go's.

/// What the linker writes before the information, at a multiple of 16 bytes.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const ALIGNMENT: usize = 16;
/// The magic, the size of a pointer, flags, two pointers.
const HEADER_BYTES: usize = 32;
/// In the flags: the strings follow the header (since Go 1.18), no pointers.
const HAS_STRINGS: u8 = 2;
const SECTION: &[u8] = b".go.buildinfo\0";

/// Entries of a table that are looked at: a program has some forty sections.
const ENTRIES_MAX: usize = 256;
const NAMES_BYTES: usize = 16 * 1024;
/// How much is searched for the magic where no section says where it is.
const SEARCH_BYTES: usize = 64 * 1024;
const VERSION_BYTES: usize = 256;
/// The header, the version, and for most programs the rest as well.
const START_BYTES: usize = 4096;
/// The end of the list of modules, where the settings of the build are.
const SETTINGS_BYTES: usize = 64 * 1024;

const PT_LOAD: u32 = 1;
const PF_X_AND_W: u32 = 0b11;
const PF_W: u32 = 0b10;

/// What a Go program says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BuildInfo {
    /// The toolchain, such as `go1.25.3`; not empty, and of printable ASCII.
    pub(crate) version: String,
    /// The GODEBUG that the program starts with, which is what makes it behave
    /// as the `go` line of its go.mod says (<https://go.dev/doc/godebug>).
    pub(crate) default_godebug: Vec<u8>,
}

impl BuildInfo {
    /// The language release, `(1, 25)` for `go1.25.3`; `None` for the builds of
    /// developers that do not say.
    pub(crate) fn release(&self) -> Option<(u32, u32)> {
        let (major, rest) = self.version.strip_prefix("go")?.split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some((major.parse().ok()?, rest.get(..digits)?.parse().ok()?))
    }
}

/// Gives that many bytes of a file from that offset on, or fewer at its end.
pub(crate) trait Pieces: FnMut(u64, usize) -> Vec<u8> {}
impl<Read: FnMut(u64, usize) -> Vec<u8>> Pieces for Read {}

/// The build information of the file that begins with `head`, if it is an ELF
/// file that Go's linker has made.
pub(super) fn build_info(head: &[u8], read: &mut impl Pieces) -> Option<BuildInfo> {
    let elf = Elf::new(head)?;
    let at = match elf.sections(read) {
        Some(sections) => elf.info_section(&sections, read)?,
        // Only where somebody has cut the table off: of all other programs this
        // would be 64 KiB for nothing.
        None => elf.search(read)?,
    };
    let start = read(at, START_BYTES);
    if !start.starts_with(MAGIC) {
        return None;
    }
    let flags = *start.get(15)?;
    if flags & HAS_STRINGS == 0 {
        let layout = Layout { is_64: *start.get(14)? == 8, is_big: flags != 0 };
        let version = elf.string(layout.word(&start, 16)?, layout, read)?;
        return Some(BuildInfo { version: printable(&version)?, ..BuildInfo::default() });
    }
    let (length, from) = uvarint(&start, HEADER_BYTES)?;
    let to = from.checked_add(usize::try_from(length).ok()?)?;
    let version = start.get(from..to).filter(|version| version.len() <= VERSION_BYTES)?;
    let version = printable(version)?;
    let default_godebug = uvarint(&start, to)
        .and_then(|(length, from)| default_godebug(at, &start, from, length, read))
        .unwrap_or_default();
    Some(BuildInfo { version, default_godebug })
}

/// The setting in the text about modules, which is so long and begins at that
/// place of `start`, the bytes of the file from `at` on.
fn default_godebug(
    at: u64,
    start: &[u8],
    from: usize,
    length: u64,
    read: &mut impl Pieces,
) -> Option<Vec<u8>> {
    const KEY: &[u8] = b"\nbuild\tDefaultGODEBUG=";
    let to = from.checked_add(usize::try_from(length).ok()?)?;
    let far;
    let text = match start.get(from..to) {
        Some(text) => text,
        None => {
            let skipped = (to - from).saturating_sub(SETTINGS_BYTES);
            let offset = at.checked_add(u64::try_from(from.checked_add(skipped)?).ok()?)?;
            far = read(offset, to - from - skipped);
            &far
        }
    };
    let found = text.windows(KEY.len()).position(|window| window == KEY)?;
    let rest = text.get(found + KEY.len()..)?;
    rest.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec)
}

/// The word that names the toolchain: `devel go1.26-4b5c...` and the experiments
/// after a version are of no interest.
fn printable(version: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(version).ok()?;
    let word = text.strip_prefix("devel ").unwrap_or(text).split_ascii_whitespace().next()?;
    word.bytes().all(|byte| byte.is_ascii_graphic()).then(|| word.to_owned())
}

/// A number in the encoding of Go's `binary.Uvarint`, and where it ends.
fn uvarint(bytes: &[u8], from: usize) -> Option<(u64, usize)> {
    let mut value: u64 = 0;
    for (nth, byte) in bytes.get(from..)?.iter().take(9).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return Some((value, from + nth + 1));
        }
    }
    None
}

/// How numbers are written.
#[derive(Clone, Copy, Debug)]
struct Layout {
    is_64: bool,
    is_big: bool,
}

impl Layout {
    fn number<const SIZE: usize>(self, bytes: &[u8], at: usize) -> Option<u64> {
        let mut digits: [u8; SIZE] = bytes.get(at..)?.first_chunk().copied()?;
        if !self.is_big {
            digits.reverse();
        }
        Some(digits.iter().fold(0, |value, digit| value << 8 | u64::from(*digit)))
    }

    fn half(self, bytes: &[u8], at: usize) -> Option<usize> {
        self.number::<2>(bytes, at)?.try_into().ok()
    }

    fn word32(self, bytes: &[u8], at: usize) -> Option<u32> {
        self.number::<4>(bytes, at)?.try_into().ok()
    }

    /// An address, an offset or a size.
    fn word(self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.is_64 { self.number::<8>(bytes, at) } else { self.number::<4>(bytes, at) }
    }

    fn word_bytes(self) -> usize {
        if self.is_64 { 8 } else { 4 }
    }
}

/// The head of an ELF file.
struct Elf<'a> {
    layout: Layout,
    head: &'a [u8],
}

/// A table of the file.
struct Table {
    entry_bytes: usize,
    bytes: Vec<u8>,
}

impl Table {
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.entry_bytes)
    }
}

impl<'a> Elf<'a> {
    fn new(head: &'a [u8]) -> Option<Self> {
        let layout = match head.strip_prefix(b"\x7fELF")? {
            [class @ 1..=2, order @ 1..=2, ..] => {
                Layout { is_64: *class == 2, is_big: *order == 2 }
            }
            _ => return None,
        };
        Some(Self { layout, head })
    }

    /// The table at the `nth` of the offsets in the head, 0 for segments and 1
    /// for sections; `None` when there is none.
    fn table(&self, nth: usize, entry_least: usize, read: &mut impl Pieces) -> Option<Table> {
        let word = self.layout.word_bytes();
        let offset = self.layout.word(self.head, 24 + word * (nth + 1))?;
        let sizes = 30 + word * 3 + nth * 4;
        let entry_bytes = self.layout.half(self.head, sizes)?;
        let count = self.layout.half(self.head, sizes + 2)?;
        // No standard has longer entries than 64 bytes.
        if offset == 0 || count == 0 || entry_bytes < entry_least || entry_bytes > 128 {
            return None;
        }
        let bytes = read(offset, entry_bytes * count.min(ENTRIES_MAX));
        Some(Table { entry_bytes, bytes })
    }

    fn sections(&self, read: &mut impl Pieces) -> Option<Table> {
        self.table(1, 8 + 4 * self.layout.word_bytes(), read)
    }

    fn segments(&self, read: &mut impl Pieces) -> Option<Table> {
        self.table(0, 7 * self.layout.word_bytes(), read)
    }

    /// Where the section with the information begins in the file.
    fn info_section(&self, sections: &Table, read: &mut impl Pieces) -> Option<u64> {
        let word = self.layout.word_bytes();
        let offset = |section: &[u8]| self.layout.word(section, 8 + 2 * word);
        let names = sections.entries().nth(self.layout.half(self.head, 38 + word * 3)?)?;
        let length = usize::try_from(self.layout.word(names, 8 + 3 * word)?).ok()?;
        let names = read(offset(names)?, length.min(NAMES_BYTES));
        let is_it = |section: &&[u8]| {
            let name = self.layout.word32(section, 0).and_then(|name| usize::try_from(name).ok());
            name.and_then(|name| names.get(name..)).is_some_and(|name| name.starts_with(SECTION))
        };
        offset(sections.entries().find(is_it)?)
    }

    /// Where the information is in the first segment with data, if it is near
    /// its beginning, where the linker puts it.
    fn search(&self, read: &mut impl Pieces) -> Option<u64> {
        let segments = self.segments(read)?;
        let word = self.layout.word_bytes();
        let flags = if self.layout.is_64 { 4 } else { 24 };
        let is_data = |segment: &&[u8]| {
            self.layout.word32(segment, 0) == Some(PT_LOAD)
                && self.layout.word32(segment, flags).is_some_and(|it| it & PF_X_AND_W == PF_W)
        };
        let segment = segments.entries().find(is_data)?;
        let offset = self.layout.word(segment, word)?;
        let size = usize::try_from(self.layout.word(segment, 4 * word)?).ok()?;
        let data = read(offset, size.min(SEARCH_BYTES));
        let nth = data.chunks(ALIGNMENT).position(|chunk| chunk.starts_with(MAGIC))?;
        offset.checked_add(u64::try_from(nth * ALIGNMENT).ok()?)
    }

    /// The Go string whose header is at that address.
    fn string(&self, address: u64, layout: Layout, read: &mut impl Pieces) -> Option<Vec<u8>> {
        let segments = self.segments(read)?;
        let header = read(self.offset(&segments, address)?, 2 * layout.word_bytes());
        let length = usize::try_from(layout.word(&header, layout.word_bytes())?).ok()?;
        if length > VERSION_BYTES {
            return None;
        }
        let text = read(self.offset(&segments, layout.word(&header, 0)?)?, length);
        (text.len() == length).then_some(text)
    }

    /// Where in the file that is which the program has at an address.
    fn offset(&self, segments: &Table, address: u64) -> Option<u64> {
        let word = self.layout.word_bytes();
        segments.entries().find_map(|segment| {
            let from = self.layout.word(segment, 2 * word)?;
            let within = address.checked_sub(from)?;
            let is_in_file = within < self.layout.word(segment, 4 * word)?;
            let is_loaded = self.layout.word32(segment, 0) == Some(PT_LOAD);
            self.layout.word(segment, word)?.checked_add(within).filter(|_| is_in_file && is_loaded)
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
