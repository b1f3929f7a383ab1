//! Files made by hand as the linkers of several Go releases make them, and files
//! that no linker would make.

use super::*;
use proptest::prelude::*;

const DATA: usize = 0x2000;
const ADDRESS: usize = 0x40_0000;

/// A file with one segment, and the information in it.
#[derive(Clone, Debug)]
pub(in crate::policy::program) struct Binary {
    pub(in crate::policy::program) version: String,
    pub(in crate::policy::program) settings: String,
    pub(in crate::policy::program) is_64: bool,
    pub(in crate::policy::program) is_big: bool,
    /// By addresses, as before Go 1.18.
    pub(in crate::policy::program) has_pointers: bool,
    pub(in crate::policy::program) has_sections: bool,
    /// Bytes of text about modules in front of the settings.
    pub(in crate::policy::program) modules: usize,
}

impl Binary {
    pub(in crate::policy::program) fn new(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            settings: String::new(),
            is_64: true,
            is_big: false,
            has_pointers: false,
            has_sections: true,
            modules: 100,
        }
    }

    fn number(&self, value: usize, size: usize) -> Vec<u8> {
        let bytes = (value as u64).to_be_bytes();
        let mut bytes = bytes[8 - size..].to_vec();
        if !self.is_big {
            bytes.reverse();
        }
        bytes
    }

    fn word(&self, value: usize) -> Vec<u8> {
        self.number(value, if self.is_64 { 8 } else { 4 })
    }

    fn module_text(&self) -> Vec<u8> {
        let dependency = "dep\texample.com/m\tv1.2.3\th1:0=\n";
        let dependencies = dependency.repeat(self.modules.div_ceil(dependency.len()));
        let text = format!(
            "path\texample.com/app\nmod\texample.com/app\t(devel)\t\n{dependencies}\
             build\t-compiler=gc\n{}build\tGOARCH=amd64\n",
            self.settings
        );
        // Sixteen bytes of sentinel on both sides.
        [&[b'0'; 16], text.as_bytes(), &[b'1'; 16]].concat()
    }

    /// The data of the segment; the information begins with it.
    fn data(&self) -> Vec<u8> {
        let flags = u8::from(self.is_big) | if self.has_pointers { 0 } else { HAS_STRINGS };
        let mut data = [MAGIC, &[if self.is_64 { 8 } else { 4 }, flags]].concat();
        if self.has_pointers {
            data.extend(self.word(ADDRESS + 64));
            data.extend(self.word(ADDRESS + 96));
            data.resize(64, 0);
            data.extend(self.word(ADDRESS + 128));
            data.extend(self.word(self.version.len()));
            data.resize(128, 0);
            data.extend(self.version.as_bytes());
            return data;
        }
        data.resize(HEADER_BYTES, 0);
        for text in [self.version.as_bytes(), &self.module_text()] {
            let mut length = text.len();
            while length >= 0x80 {
                data.push(length as u8 | 0x80);
                length >>= 7;
            }
            data.push(length as u8);
            data.extend(text);
        }
        data
    }

    pub(in crate::policy::program) fn bytes(&self) -> Vec<u8> {
        let mut file = b"\x7fELF".to_vec();
        file.extend([if self.is_64 { 2 } else { 1 }, if self.is_big { 2 } else { 1 }, 1]);
        file.resize(16, 0);
        let (segments, names, sections) = (0x100, 0x200, 0x300);
        for (value, size) in [(2, 2), (62, 2), (1, 4)] {
            file.extend(self.number(value, size));
        }
        file.extend(self.word(ADDRESS));
        file.extend(self.word(segments));
        file.extend(self.word(if self.has_sections { sections } else { 0 }));
        let (segment_bytes, section_bytes) = if self.is_64 { (56, 64) } else { (32, 40) };
        let section_count = if self.has_sections { 3 } else { 0 };
        for (value, size) in [
            (0, 4),
            (64, 2),
            (segment_bytes, 2),
            (2, 2),
            (section_bytes, 2),
            (section_count, 2),
            (2, 2),
        ] {
            file.extend(self.number(value, size));
        }
        let data = self.data();
        // A segment of code, then the one with the data.
        for (nth, flags) in [5, 6].into_iter().enumerate() {
            file.resize(segments + nth * segment_bytes, 0);
            file.extend(self.number(1, 4));
            if self.is_64 {
                file.extend(self.number(flags, 4));
            }
            let (offset, address) = if nth == 0 { (0, ADDRESS - 0x1000) } else { (DATA, ADDRESS) };
            let size = if nth == 0 { 0x1000 } else { data.len() };
            for value in [offset, address, address, size, size] {
                file.extend(self.word(value));
            }
            if !self.is_64 {
                file.extend(self.number(flags, 4));
            }
        }
        file.resize(names, 0);
        let texts = b"\0.text\0.go.buildinfo\0.shstrtab\0";
        file.extend(texts);
        for (nth, (name, offset, size)) in
            [(1, 0, 16), (7, DATA, data.len()), (21, names, texts.len())].into_iter().enumerate()
        {
            if self.has_sections {
                file.resize(sections + nth * section_bytes, 0);
                file.extend(self.number(name, 4));
                file.extend(self.number(1, 4));
                for value in [0, 0, offset, size] {
                    file.extend(self.word(value));
                }
            }
        }
        file.resize(DATA, 0);
        file.extend(data);
        file
    }
}

/// Reads from bytes, and counts how many.
pub(in crate::policy::program) fn pieces<'a>(
    file: &'a [u8],
    total: &'a mut usize,
) -> impl Pieces + 'a {
    move |offset, length| {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        *total += length;
        file[offset..].iter().take(length).copied().collect()
    }
}

fn found(file: &[u8]) -> Option<BuildInfo> {
    build_info(&file[..file.len().min(256)], &mut pieces(file, &mut 0))
}

#[test]
fn every_release_and_machine_is_read() {
    for (version, word, release, has_pointers) in [
        ("go1.13", "go1.13", Some((1, 13)), true),
        ("go1.17.13", "go1.17.13", Some((1, 17)), true),
        ("devel +5a5c9d1 Tue Feb 2 2021", "+5a5c9d1", None, true),
        ("go1.18", "go1.18", Some((1, 18)), false),
        ("go1.24.4", "go1.24.4", Some((1, 24)), false),
        ("go1.25rc2", "go1.25rc2", Some((1, 25)), false),
        ("go1.25.3 X:nodwarf5", "go1.25.3", Some((1, 25)), false),
        ("go1.25.0-custom", "go1.25.0-custom", Some((1, 25)), false),
        ("go1.26", "go1.26", Some((1, 26)), false),
        ("devel go1.27-4b5c6d7 Mon Jan 5 2026", "go1.27-4b5c6d7", Some((1, 27)), false),
        ("go2.0", "go2.0", Some((2, 0)), false),
        ("go", "go", None, false),
    ] {
        for (is_64, is_big, has_sections) in [
            (true, false, true),
            (true, true, true),
            (false, false, true),
            (false, true, false),
            (true, false, false),
        ] {
            let binary =
                Binary { is_64, is_big, has_pointers, has_sections, ..Binary::new(version) };
            let info = found(&binary.bytes()).unwrap_or_else(|| panic!("{binary:?}"));
            assert_eq!(info.version, word, "{binary:?}");
            assert_eq!(info.release(), release, "{binary:?}");
            assert_eq!(info.default_godebug, b"");
        }
    }
}

#[test]
fn the_default_godebug_is_found_however_long_the_list_of_modules_is() {
    for modules in [0, 3000, 5000, 60_000, 300_000] {
        let mut binary = Binary { modules, ..Binary::new("go1.25.3") };
        assert_eq!(found(&binary.bytes()).unwrap().default_godebug, b"", "{modules}");
        binary.settings = "build\tDefaultGODEBUG=a=1,containermaxprocs=0\n".to_owned();
        let info = found(&binary.bytes()).unwrap();
        assert_eq!(info.default_godebug, b"a=1,containermaxprocs=0", "{modules}");
    }
}

#[test]
fn what_is_not_whole_is_not_gos() {
    let whole = Binary::new("go1.25.3").bytes();
    assert!(found(&whole).is_some());
    for (at, byte) in [(0, b'X'), (4, 3), (5, 0), (62, 9), (DATA, 0), (0x300 + 64, 1)] {
        let mut broken = whole.clone();
        broken[at] = byte;
        assert_eq!(found(&broken), None, "{at}");
    }
    for version in ["", " ", "go1.25\u{7}", "gö1.25", &"go1".repeat(100)] {
        assert_eq!(found(&Binary::new(version).bytes()), None, "{version:?}");
    }
    for length in [0, 16, 63, 64, 0x180, 0x300, 0x340, DATA, DATA + 40] {
        assert_eq!(found(&whole[..length]), None, "{length}");
    }
}

proptest! {
    #[test]
    fn any_file_is_read_within_bounds(
        changes in proptest::collection::vec((0usize..0x400, any::<u8>()), 0..24),
        more in proptest::collection::vec((DATA..DATA + 0x100, any::<u8>()), 0..8),
        is_64: bool,
        is_big: bool,
        has_pointers: bool,
        has_sections: bool,
    ) {
        let binary = Binary { is_64, is_big, has_pointers, has_sections, ..Binary::new("go1.25.3") };
        let mut file = binary.bytes();
        for (at, byte) in changes.into_iter().chain(more) {
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
        }
        let mut total = 0;
        build_info(&file[..256], &mut pieces(&file, &mut total));
        prop_assert!(total <= 200 * 1024, "{total} bytes");
    }

    #[test]
    fn any_bytes_are_no_panic(bytes: Vec<u8>, is_elf: bool) {
        let file = if is_elf { [b"\x7fELF\x02\x01", &bytes[..]].concat() } else { bytes };
        prop_assert_eq!(found(&file), None);
    }
}
