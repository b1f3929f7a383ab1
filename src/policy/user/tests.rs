//! The files of real images, of odd ones, and of none.

use proptest::prelude::*;

use super::*;

const DEBIAN_PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
    daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
    app:x:1000:1001:The \xff App,,,:/home/app:/bin/sh\n\
    twin:x:1000:5:second of that number:/nowhere:/bin/sh\n";
const DEBIAN_GROUP: &[u8] =
    b"root:x:0:\ndaemon:x:1:\nadm:x:4:root,app\ntape:x:26:app, www-data\nssl:x:101:app\nusers:x:1001:app\n";

fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Credentials, Stranger> {
    UserSpec::parse(spec).unwrap().resolve(passwd, group)
}

fn debian(spec: &str) -> Credentials {
    resolve(spec, DEBIAN_PASSWD, DEBIAN_GROUP).unwrap()
}

fn numbers(spec: &str) -> (u32, u32, Vec<u32>) {
    let Credentials { uid, gid, groups, .. } = debian(spec);
    (uid, gid, groups)
}

#[test]
fn a_user_has_its_own_group_and_all_that_list_it() {
    for spec in ["app", "1000", "01000"] {
        assert_eq!(numbers(spec), (1000, 1001, vec![1001, 4, 26, 101]), "{spec}");
    }
    assert_eq!(numbers("www-data"), (33, 33, vec![33, 26]));
    assert_eq!(debian("app").home(), b"/home/app");
    assert_eq!(debian("1000").name(), Some(&b"app"[..]), "the first of that number");
}

#[test]
fn a_group_that_is_given_is_the_only_one() {
    assert_eq!(numbers("app:adm"), (1000, 4, vec![4]));
    assert_eq!(numbers("app:7777"), (1000, 7777, vec![7777]));
    assert_eq!(numbers("2000:users"), (2000, 1001, vec![1001]));
}

#[test]
fn a_number_needs_no_line_and_its_group_is_0() {
    for spec in ["2000", "65534"] {
        let found = resolve(spec, b"", b"").unwrap();
        assert_eq!((found.gid, found.groups.as_slice(), found.home()), (0, &[0][..], &b"/"[..]));
        assert_eq!(found.name(), None);
    }
}

#[test]
fn a_name_needs_a_line() {
    let error = |spec| resolve(spec, DEBIAN_PASSWD, DEBIAN_GROUP).unwrap_err().to_string();
    assert_eq!(error("ap"), "no user ap in /etc/passwd, expected a name of that file or a number");
    assert_eq!(
        error("app:wheel"),
        "no group wheel in /etc/group, expected a name of that file or a number"
    );
    assert_eq!(resolve("app", b"", b""), Err(Stranger::User("app".into())));
    assert_eq!(resolve("5:app", DEBIAN_PASSWD, b""), Err(Stranger::Group("app".into())));
}

#[test]
fn what_is_no_line_is_passed_over() {
    let passwd = b"\n#app:x:1:1::/one:\napp\napp:x\napp:x:2\napp:x::3::/three:\napp:x:-1:3::/x:\n\
        app:x:4:five::/four:\napp:x:4294967295:6::/six:\n:x:7:7::/seven:\n+app::8:8:::\n\
        app:x:4294967296:9::/nine:\n  app:x:10:11:\nrest:x:1:1::/rest";
    let found = resolve("app", passwd, b"\x00:::\nwheel:x:x:app\nten:x:12:app:more\n").unwrap();
    assert_eq!((found.uid, found.gid, found.groups.as_slice()), (10, 11, &[11, 12][..]));
    assert_eq!(found.home(), b"/", "the line ends before it");
    assert_eq!(resolve("rest", passwd, b"").unwrap().home(), b"/rest");
}

#[test]
fn only_what_the_runtime_has_set_for_castoffs_own_user_is_changed() {
    let (root, app) = (debian("root"), debian("app"));
    let changed = |own: &Credentials, child: &Credentials, set: &[(&str, &str)]| -> Vec<String> {
        let variable = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_bytes().to_vec())
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let changed = variables(own, child, variable);
        changed
            .into_iter()
            .map(|(name, value)| format!("{name}={}", value.map_or_else(|| "none".into(), text)))
            .collect()
    };
    assert_eq!(changed(&root, &app, &[]), ["HOME=/home/app"]);
    assert_eq!(changed(&root, &app, &[("HOME", "")]), ["HOME=/home/app"]);
    assert_eq!(changed(&root, &app, &[("HOME", "/root")]), ["HOME=/home/app"]);
    assert_eq!(changed(&root, &app, &[("HOME", "/srv")]), [""; 0]);
    let of_root = [("HOME", "/srv"), ("USER", "root"), ("LOGNAME", "root")];
    assert_eq!(changed(&root, &app, &of_root), ["USER=app", "LOGNAME=app"]);
    assert_eq!(changed(&root, &debian("2000"), &of_root), ["USER=none", "LOGNAME=none"]);
    assert_eq!(changed(&root, &app, &[("HOME", "/srv"), ("USER", "else")]), [""; 0]);
    // An image without the files.
    let nobody = resolve("0", b"", b"").unwrap();
    for home in ["/", "/root"] {
        assert_eq!(changed(&nobody, &debian("2000"), &[("HOME", home)]), ["HOME=/"]);
    }
    assert_eq!(changed(&nobody, &app, &[("HOME", "/srv"), ("USER", "root")]), [""; 0]);
}

proptest! {
    #[test]
    fn no_file_is_too_odd(
        passwd in proptest::collection::vec(any::<u8>(), 0..300),
        group in proptest::collection::vec(any::<u8>(), 0..300),
        uid in 0..3_u32,
    ) {
        let found = UserSpec { user: Identity::Id(uid), group: None }.resolve(&passwd, &group);
        let found = found.unwrap();
        prop_assert_eq!(found.uid, uid);
        prop_assert_eq!(found.groups.first(), Some(&found.gid));
        prop_assert!(!found.home().is_empty() && !found.home().contains(&0));
    }

    #[test]
    fn lines_of_another_user_change_nothing(
        lines in "([a-z]{1,4}:x:[2-9][0-9]{0,3}:[0-9]{1,4}::/[a-z]{0,4}:\n|[a-z:0-9]{0,12}\n){0,8}",
        gid in 0..9_u32,
    ) {
        let passwd = format!("{lines}the_app:x:1:{gid}::/app:/bin/sh\n{lines}");
        let found = resolve("the_app", passwd.as_bytes(), b"").unwrap();
        prop_assert_eq!((found.uid, found.gid, found.home()), (1, gid, &b"/app"[..]));
        let by_number = resolve("1", passwd.as_bytes(), b"").unwrap();
        prop_assert_eq!(by_number.uid, 1);
    }

    #[test]
    fn what_is_shown_is_parsed_to_the_same(user in "[a-z_][a-z0-9_-]{0,8}|[0-9]{1,9}", group in proptest::option::of("[a-z]{1,8}|[0-9]{1,9}")) {
        let spec = UserSpec::parse(&match group {
            Some(group) => format!("{user}:{group}"),
            None => user,
        }).unwrap();
        prop_assert_eq!(UserSpec::parse(&spec.to_string()), Some(spec));
    }
}
