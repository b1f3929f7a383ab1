//! The files below `src`, taken apart just as far as the rules need it: code
//! without comments and tests, and every path that stands in it, spelt out.

use std::fs;
use std::path::{Path, PathBuf};

/// One file. Files that are tests as a whole are left out.
pub(crate) struct Source {
    /// From the repository's root: `src/http/listen.rs`.
    pub(crate) path: String,
    /// The module that it is: `http`, `listen`. Empty for the roots.
    pub(crate) module: Vec<String>,
    /// Without comments and without what is compiled for tests only.
    pub(crate) code: String,
    /// Every path in it, `super` and braces resolved: `crate::policy::exit`.
    pub(crate) paths: Vec<String>,
}

impl Source {
    /// Whether it is the top module of that name, or below it.
    pub(crate) fn is_below(&self, module: &str) -> bool {
        self.module.first().is_some_and(|first| first == module)
    }

    pub(crate) fn uses(&self, path: &str) -> bool {
        self.paths.iter().any(|used| used == path)
    }

    /// The paths that are `start` or begin with it.
    pub(crate) fn paths_below(&self, start: &str) -> Vec<&str> {
        let is_below = |path: &&str| {
            path.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        self.paths.iter().map(String::as_str).filter(is_below).collect()
    }
}

pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = rust_files(&root.join("src"));
    let is_test = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_in_tests = path.parent().is_some_and(|parent| parent.ends_with("tests"));
        is_in_tests || name.ends_with("tests.rs") || name == "fixtures.rs"
    };
    files.into_iter().filter(|path| !is_test(path)).map(|path| read(root, &path)).collect()
}

/// Every Rust file below a directory.
pub(crate) fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(root: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("readable");
    let path = path.strip_prefix(root).expect("below it").to_string_lossy().into_owned();
    let stem = path.trim_start_matches("src/").trim_end_matches(".rs");
    let module: Vec<_> = match stem {
        "lib" | "main" => Vec::new(),
        stem => stem.split('/').map(str::to_owned).collect(),
    };
    let code = code_of(&path, &text);
    let mut paths = Vec::new();
    for statement in code.split("use ").skip(1) {
        let tree = statement.split(';').next().unwrap_or_default();
        expand("", tree, &mut paths);
    }
    paths.extend(inline_paths(&code));
    let paths = paths.iter().filter_map(|path| resolved(path, &module)).collect();
    Source { path, module, code, paths }
}

/// Tests come last in a file, so that whatever follows the first of them is
/// not code of the binary.
fn code_of(path: &str, text: &str) -> String {
    let (code, tests) = text.split_once("\n#[cfg(test)]").unwrap_or((text, ""));
    let starts = ["pub", "fn ", "impl", "use ", "struct ", "enum ", "static ", "const "];
    let mut before = "#[cfg(test)]";
    for line in tests.lines().skip(1) {
        let is_item = starts.iter().any(|start| line.starts_with(start));
        assert!(!is_item || before.starts_with("#["), "{path}: code after the tests: {line}");
        before = line;
    }
    let without_comment = |line: &str| {
        let is_comment = line.trim_start().starts_with("//");
        let code = if is_comment { "" } else { line.split(" // ").next().unwrap_or_default() };
        format!("{code}\n")
    };
    code.lines().map(without_comment).collect()
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((start, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        if !path.is_empty() {
            paths.push(format!("{before}{path}").trim_end_matches("::self").to_owned());
        }
        return;
    };
    let before = format!("{before}{start}");
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let mut depth = 0;
    let mut from = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inner[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    expand(&before, &inner[from..], paths);
}

/// Whatever holds a `::` outside of a `use`.
fn inline_paths(code: &str) -> Vec<String> {
    let words = code.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let paths = words.map(|word| word.trim_matches(':')).filter(|word| word.contains("::"));
    paths.map(str::to_owned).collect()
}

/// `super` and `self` replaced by the module they stand for.
fn resolved(path: &str, module: &[String]) -> Option<String> {
    let mut above = module.len();
    let mut rest = path;
    while let Some(below) = rest.strip_prefix("super::") {
        above = above.checked_sub(1)?;
        rest = below;
    }
    let rest = match rest.strip_prefix("self::") {
        Some(below) => below,
        None if rest == path => return Some(path.to_owned()),
        None => rest,
    };
    let above = module.get(..above)?.iter().map(|name| format!("{name}::")).collect::<String>();
    Some(format!("crate::{above}{rest}"))
}
