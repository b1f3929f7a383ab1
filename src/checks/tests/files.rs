//! Files: present, absent, fresh, stale, and on a server that does not answer.

use super::*;
use std::time::SystemTime;

fn check(path: &Path, max_age: Option<Duration>) -> Result<(), String> {
    run(Clients::default().file(path, max_age, &Stage::default()))
}

#[test]
fn whatever_exists_passes() {
    let directory = Directory::new("exists");
    fs::write(directory.join("file"), "").expect("written");
    std::os::unix::fs::symlink("file", directory.join("link")).expect("a link");
    std::os::unix::fs::symlink("none", directory.join("dangling")).expect("a link");
    assert_eq!(check(&directory.0, None), Ok(()));
    assert_eq!(check(&directory.join("file"), None), Ok(()));
    assert_eq!(check(&directory.join("link"), None), Ok(()));
    for name in ["none", "dangling"] {
        let result = check(&directory.join(name), None);
        assert_eq!(result, Err("no such file or directory".to_owned()));
    }
    let result = check(&directory.join("file/below"), None);
    assert_eq!(result, Err("not a directory".to_owned()));
}

#[test]
fn a_heartbeat_passes_as_long_as_it_is_fresh() {
    let directory = Directory::new("heartbeat");
    let path = directory.join("beat");
    let file = fs::File::create(&path).expect("created");
    let age = Some(Duration::from_secs(30));
    assert_eq!(check(&path, age), Ok(()));
    let now = SystemTime::now();
    file.set_modified(now + Duration::from_secs(3600)).expect("a time in the future");
    assert_eq!(check(&path, age), Ok(()));
    file.set_modified(now - Duration::from_secs(3600)).expect("a time in the past");
    let reason = check(&path, age).expect_err("stale");
    assert!(
        reason.starts_with("modified 1h") && reason.ends_with(" ago, more than 30s"),
        "{reason}"
    );
}

#[test]
fn an_age_is_told_as_exactly_as_it_takes() {
    use crate::checks::file::judge;
    let modified = SystemTime::UNIX_EPOCH;
    for (age, max_age, told) in [
        (45_300, 30_000, "modified 45s ago, more than 30s"),
        (30_300, 30_000, "modified 30300ms ago, more than 30s"),
        (750, 500, "modified 750ms ago, more than 500ms"),
        (90_000, 1_500, "modified 1m 30s ago, more than 1500ms"),
    ] {
        let [age, max_age] = [age, max_age].map(Duration::from_millis);
        assert_eq!(judge(modified, modified + age, max_age), Err(told.to_owned()));
    }
    let second = Duration::from_secs(1);
    assert_eq!(judge(modified, modified + second, second), Ok(()));
    assert_eq!(judge(modified + second, modified, second), Ok(()));
}

#[test]
fn looks_that_do_not_return_do_not_pile_up() {
    let (release, held) = mpsc::channel::<()>();
    let looks = Looks::default();
    let path = Path::new("/hangs");
    let mut first = looks
        .begin(path, move |_| {
            let _ = held.recv();
            Ok(SystemTime::now())
        })
        .expect("a thread");
    let again = || looks.begin(path, |_| unreachable!("a second look"));
    let stage = Stage::default();
    let clients = Clients { looks: Looks::default(), ..Clients::default() };
    drop(again().expect("the first look"));
    let mut second = again().expect("the first look");
    assert_eq!(cut_off(&stage, second.wait_for(Option::is_some)), "");
    // Others are not held up.
    assert_eq!(run(clients.file(Path::new("/"), None, &stage)), Ok(()));
    assert_eq!(stage.as_str(), "while looking at the file");

    release.send(()).expect("it waits");
    run(async {
        for look in [&mut first, &mut second] {
            assert!(matches!(look.wait_for(Option::is_some).await.as_deref(), Ok(Some(Ok(_)))));
        }
    });
    let mut third = looks.begin(path, |_| Err(io::ErrorKind::NotFound.into())).expect("a thread");
    let result = run(async { third.wait_for(Option::is_some).await.expect("a result").clone() });
    assert_eq!(result, Some(Err("entity not found".to_owned())));
}
