//! Real files that somebody writes, replaces, removes and exchanges.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of a test's own, with no link in its path. Goes with everything in
/// it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = fs::canonicalize(std::env::temp_dir())
            .expect("a directory")
            .join(format!("castoff-survey-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).expect("a file");
    }

    fn directory(&self, name: &str) {
        fs::create_dir_all(self.at(name)).expect("a directory");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).expect("a file");
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.at(name)).expect("a link");
    }

    /// What the kubelet does (`atomic_writer.go`): all files at once, by one rename.
    fn swap(&self, generation: usize, files: &[(&str, &str)]) {
        let new = format!("vol/..2026_11_21_10_00_00.{generation}");
        self.directory(&new);
        for (name, text) in files {
            self.write(&format!("{new}/{name}"), text);
        }
        let old = fs::read_link(self.at("vol/..data")).ok();
        self.link("vol/..data_tmp", &format!("..2026_11_21_10_00_00.{generation}"));
        self.rename("vol/..data_tmp", "vol/..data");
        for (name, _) in files {
            let visible = self.at("vol").join(name);
            if fs::symlink_metadata(&visible).is_err() {
                self.link(&format!("vol/{name}"), &format!("..data/{name}"));
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.at("vol").join(old)).expect("the last one");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Watches these from now on.
async fn watching(paths: &[PathBuf]) -> (Surveyor, Survey) {
    let mut surveyor = Surveyor::new(paths, PathBuf::from("/proc"));
    surveyor.watch();
    let survey = look(&mut surveyor).await;
    assert!(!survey.must_poll, "{survey:?}");
    (surveyor, survey)
}

/// What a look finds; what is told meanwhile is not heard.
async fn look(surveyor: &mut Surveyor) -> Survey {
    surveyor.look().expect("a thread");
    assert!(surveyor.is_looking());
    let told = timeout(PATIENCE, surveyor.hear(false)).await.expect("it comes back");
    let Told::Survey(Some(survey)) = told else { panic!("{told:?}") };
    survey
}

async fn sights(surveyor: &mut Surveyor) -> Vec<Sight> {
    look(surveyor).await.sights
}

/// That there is news, and no more after it.
async fn heard(surveyor: &mut Surveyor) {
    while !matches!(timeout(PATIENCE, surveyor.hear(true)).await.expect("news"), Told::News) {}
    settle(surveyor).await;
}

async fn settle(surveyor: &mut Surveyor) {
    while timeout(Duration::from_millis(30), surveyor.hear(true)).await.is_ok() {}
}

/// That nothing is told that is news.
async fn is_quiet(surveyor: &mut Surveyor) -> bool {
    loop {
        match timeout(Duration::from_millis(50), surveyor.hear(true)).await {
            Err(_) => return true,
            Ok(Told::News) => return false,
            Ok(_) => {}
        }
    }
}

/// How many directories and files the kernel watches for it.
fn watches(surveyor: &Surveyor) -> usize {
    use std::os::fd::AsRawFd;
    let events = surveyor.watch.as_ref().expect("it watches").events.get_ref();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", events.as_raw_fd()));
    info.expect("/proc").lines().filter(|line| line.starts_with("inotify wd:")).count()
}

#[track_caller]
fn names(sight: &Sight) -> Vec<&str> {
    let Sight::Directory(entries) = sight else { panic!("{sight:?}") };
    entries.iter().map(|(name, _)| name.to_str().expect("text")).collect()
}

#[tokio::test]
async fn contents_count_however_they_are_written() {
    let scratch = Scratch::new("contents");
    scratch.write("a", "1");
    let (mut surveyor, first) = watching(&[scratch.at("a")]).await;
    assert_eq!(first.limitations, []);
    // In place.
    scratch.write("a", "2");
    heard(&mut surveyor).await;
    let second = sights(&mut surveyor).await;
    assert_ne!(first.sights, second);
    // The same bytes, a touch, another mode, and its equal in its place.
    let replace = || {
        scratch.write("new", "2");
        scratch.rename("new", "a");
    };
    let touch = || {
        let file = File::options().write(true).open(scratch.at("a")).expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("its owner's");
    };
    let same = || scratch.write("a", "2");
    for act in [&same as &dyn Fn(), &touch, &replace, &same] {
        act();
        heard(&mut surveyor).await;
        assert_eq!(sights(&mut surveyor).await, second);
    }
    // Another one in its place is watched as the first was.
    scratch.write("new", "3");
    scratch.rename("new", "a");
    heard(&mut surveyor).await;
    let third = sights(&mut surveyor).await;
    assert_ne!(third, second);
    scratch.write("a", "4");
    heard(&mut surveyor).await;
    assert_ne!(sights(&mut surveyor).await, third);
}

#[tokio::test]
async fn a_file_that_goes_and_comes_back_is_told() {
    let scratch = Scratch::new("gone");
    scratch.write("a", "1");
    let (mut surveyor, first) = watching(&[scratch.at("a")]).await;
    fs::remove_file(scratch.at("a")).expect("a file");
    heard(&mut surveyor).await;
    let gone = look(&mut surveyor).await;
    assert_eq!((&gone.sights[..], &gone.limitations[..]), (&[Sight::Absent][..], &[][..]));
    scratch.write("a", "1");
    heard(&mut surveyor).await;
    assert_eq!(sights(&mut surveyor).await, first.sights);
    scratch.write("a", "2");
    heard(&mut surveyor).await;
}

#[tokio::test]
async fn a_path_is_waited_for_directory_by_directory() {
    let scratch = Scratch::new("path");
    let path = scratch.at("a/b/c.conf");
    let (mut surveyor, first) = watching(std::slice::from_ref(&path)).await;
    assert_eq!(first.sights, [Sight::Absent]);
    assert_eq!(first.limitations, [(path, Limitation::Absent)]);
    scratch.write("other", "noise");
    assert!(is_quiet(&mut surveyor).await);
    for directory in ["a", "a/b"] {
        scratch.directory(directory);
        heard(&mut surveyor).await;
        assert_eq!(sights(&mut surveyor).await, [Sight::Absent]);
    }
    scratch.write("a/b/c.conf", "1");
    heard(&mut surveyor).await;
    let found = sights(&mut surveyor).await;
    assert!(matches!(found[..], [Sight::File(_)]), "{found:?}");
    // With all that is above it.
    scratch.directory("new/b");
    scratch.write("new/b/c.conf", "2");
    scratch.rename("a", "old");
    heard(&mut surveyor).await;
    assert_eq!(sights(&mut surveyor).await, [Sight::Absent]);
    scratch.rename("new", "a");
    heard(&mut surveyor).await;
    let replaced = sights(&mut surveyor).await;
    assert!(matches!(replaced[..], [Sight::File(_)]) && replaced != found, "{replaced:?}");
    scratch.write("old/b/c.conf", "nobody's any more");
    assert!(is_quiet(&mut surveyor).await);
}

#[tokio::test]
async fn of_a_directory_its_files_count_and_no_more() {
    let scratch = Scratch::new("directory");
    scratch.directory("d/below");
    scratch.write("d/a", "1");
    let (mut surveyor, first) = watching(&[scratch.at("d")]).await;
    assert_eq!(names(&first.sights[0]), ["a", "below"]);
    scratch.write("d/below/deep", "1");
    assert!(is_quiet(&mut surveyor).await);
    for name in [".a.swp", "a~", "..odd"] {
        scratch.write(&format!("d/{name}"), "an editor's");
    }
    settle(&mut surveyor).await;
    assert_eq!(sights(&mut surveyor).await, first.sights);
    scratch.write("d/b", "1");
    heard(&mut surveyor).await;
    assert_eq!(names(&sights(&mut surveyor).await[0]), ["a", "b", "below"]);
    scratch.rename("d/b", "d/c");
    heard(&mut surveyor).await;
    let renamed = sights(&mut surveyor).await;
    assert_eq!(names(&renamed[0]), ["a", "below", "c"]);
    // What is new is watched as well.
    scratch.write("d/c", "2");
    heard(&mut surveyor).await;
    assert_ne!(sights(&mut surveyor).await, renamed);
    fs::remove_file(scratch.at("d/c")).expect("a file");
    heard(&mut surveyor).await;
    assert_eq!(sights(&mut surveyor).await, first.sights);
    // Another directory in its place.
    scratch.directory("e");
    scratch.write("e/z", "1");
    scratch.rename("d", "old");
    scratch.rename("e", "d");
    heard(&mut surveyor).await;
    assert_eq!(names(&sights(&mut surveyor).await[0]), ["z"]);
    scratch.write("d/y", "1");
    heard(&mut surveyor).await;
}

#[tokio::test]
async fn a_volume_is_exchanged_again_and_again_and_no_watch_is_left_behind() {
    let scratch = Scratch::new("volume");
    scratch.directory("vol");
    scratch.swap(0, &[("a", "0"), ("same", "same")]);
    let paths = [scratch.at("vol/a"), scratch.at("vol/same"), scratch.at("vol")];
    let (mut surveyor, mut last) = watching(&paths).await;
    assert_eq!(names(&last.sights[2]), ["a", "same"]);
    let at_first = watches(&surveyor);
    for generation in 1..30 {
        scratch.swap(generation, &[("a", &generation.to_string()), ("same", "same")]);
        heard(&mut surveyor).await;
        let now = look(&mut surveyor).await;
        assert_ne!(now.sights[0], last.sights[0]);
        assert_eq!(now.sights[1], last.sights[1]);
        assert_ne!(now.sights[2], last.sights[2]);
        last = now;
        settle(&mut surveyor).await;
        assert_eq!(watches(&surveyor), at_first);
    }
    // A key that comes and one that goes.
    scratch.swap(30, &[("same", "same"), ("new", "1")]);
    heard(&mut surveyor).await;
    let now = sights(&mut surveyor).await;
    assert_eq!((&now[0], names(&now[2])), (&Sight::Absent, vec!["new", "same"]));
}

#[tokio::test]
async fn links_are_followed_to_their_end() {
    let scratch = Scratch::new("links");
    for directory in ["etc", "opt/v1", "opt/v2"] {
        scratch.directory(directory);
    }
    scratch.write("opt/v1/app.conf", "1");
    scratch.write("opt/v2/app.conf", "2");
    scratch.link("opt/current", "v1");
    let target = scratch.at("opt/current/../current/app.conf");
    symlink(&target, scratch.at("etc/app.conf")).expect("a link");
    let (mut surveyor, first) = watching(&[scratch.at("etc/./app.conf")]).await;
    assert!(matches!(first.sights[..], [Sight::File(_)]), "{first:?}");
    scratch.write("opt/v1/app.conf", "1a");
    heard(&mut surveyor).await;
    let second = sights(&mut surveyor).await;
    assert_ne!(second, first.sights);
    scratch.link("opt/next", "v2");
    scratch.rename("opt/next", "opt/current");
    heard(&mut surveyor).await;
    assert_ne!(sights(&mut surveyor).await, second);
    scratch.write("opt/v1/app.conf", "nobody's any more");
    assert!(is_quiet(&mut surveyor).await);
    scratch.write("opt/v2/app.conf", "2a");
    heard(&mut surveyor).await;
}

#[tokio::test]
async fn a_loop_of_links_is_unclear_and_looked_at_again() {
    let scratch = Scratch::new("loop");
    scratch.link("a", "b");
    scratch.link("b", "a");
    let mut surveyor = Surveyor::new(&[scratch.at("a")], PathBuf::from("/proc"));
    surveyor.watch();
    let survey = look(&mut surveyor).await;
    assert_eq!(survey.sights, [Sight::Unclear]);
    assert_eq!(survey.limitations, [(scratch.at("a"), Limitation::Unclear(Errno::ELOOP))]);
    assert!(survey.must_poll);
}

#[tokio::test]
async fn what_is_no_file_is_never_opened_and_what_is_large_never_read() {
    let scratch = Scratch::new("kinds");
    mkfifo(&scratch.at("fifo"), Mode::S_IRWXU).expect("a fifo");
    scratch.link("zero", "/dev/zero");
    let large = File::create(scratch.at("large")).expect("a file");
    large.set_len(1 << 40).expect("a file with holes");
    let paths = ["fifo", "zero", "large"].map(|name| scratch.at(name));
    let (mut surveyor, first) = watching(&paths).await;
    assert!(first.sights.iter().all(|sight| matches!(sight, Sight::File(_))), "{first:?}");
    assert_eq!(sights(&mut surveyor).await, first.sights);
    large.set_modified(SystemTime::UNIX_EPOCH).expect("its owner's");
    heard(&mut surveyor).await;
    let touched = sights(&mut surveyor).await;
    assert_eq!(touched[..2], first.sights[..2]);
    assert_ne!(touched[2], first.sights[2]);
}

#[tokio::test]
async fn what_is_written_by_another_name_is_told() {
    let scratch = Scratch::new("other-name");
    scratch.directory("elsewhere");
    scratch.write("a", "1");
    fs::hard_link(scratch.at("a"), scratch.at("elsewhere/a")).expect("a link");
    let (mut surveyor, first) = watching(&[scratch.at("a")]).await;
    scratch.write("elsewhere/a", "2");
    heard(&mut surveyor).await;
    assert_ne!(sights(&mut surveyor).await, first.sights);
}

#[tokio::test]
async fn a_crowded_directory_is_bounded_and_looked_at_again() {
    let scratch = Scratch::new("crowd");
    for nth in 0..FILES_MAX + 2 {
        scratch.write(&format!("{nth:05}"), "1");
    }
    let mut surveyor = Surveyor::new(std::slice::from_ref(&scratch.0), PathBuf::from("/proc"));
    surveyor.watch();
    let survey = look(&mut surveyor).await;
    let found = names(&survey.sights[0]);
    assert_eq!((found.len(), found[0], found[FILES_MAX - 1]), (FILES_MAX, "00000", "04095"));
    let expected = [Limitation::TooManyFiles, Limitation::TooManyWatches];
    assert_eq!(survey.limitations, expected.map(|limitation| (scratch.0.clone(), limitation)));
    assert!(survey.must_poll);
    assert!(watches(&surveyor) <= 4096, "{}", watches(&surveyor));
}

#[tokio::test]
async fn without_inotify_it_looks_and_says_so() {
    let scratch = Scratch::new("none");
    scratch.write("a", "1");
    let mut surveyor = Surveyor::new(&[scratch.at("a")], PathBuf::from("/proc"));
    // The first look, before anything is watched, has nothing to complain of.
    assert!(!look(&mut surveyor).await.must_poll);
    for (errno, limitation) in [
        (Errno::EMFILE, Limitation::MaxUserInstances),
        (Errno::ENOSYS, Limitation::Refused(Errno::ENOSYS)),
    ] {
        surveyor.unwatched = Some(errno);
        let survey = look(&mut surveyor).await;
        assert_eq!(survey.limitations, [(scratch.at("a"), limitation)]);
        assert!(survey.must_poll && matches!(survey.sights[..], [Sight::File(_)]), "{survey:?}");
    }
    let of = |errno| Limitation::from(Unwatched::Refused(errno)).to_string();
    let told = of(Errno::ENOSPC);
    assert_eq!(told, "fs.inotify.max_user_watches is reached, looked at every 10s");
    assert_eq!(of(Errno::EACCES), "cannot be watched, looked at every 10s: Permission denied");
}
