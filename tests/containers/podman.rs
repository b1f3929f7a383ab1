//! podman as an operator calls it: images from local files, containers with
//! names of their own, and the removal of both.
//!
//! It never changes the settings, containers or images of the machine: its
//! settings are in a file of their own, and it removes by name what it made.
#![expect(unsafe_code, reason = "what is left for the end of the process")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::{env, fs};

use serde_json::Value;

use crate::child::example;
use crate::lines::Lines;
use crate::probe::{self, Answer};
use crate::wait_until::wait_until;

/// What the suite keeps in files, and the images that it has built so far.
struct Workshop {
    directory: PathBuf,
    settings: PathBuf,
    images: Mutex<HashMap<Image, String>>,
}

static WORKSHOP: LazyLock<Workshop> = LazyLock::new(|| {
    // SAFETY: the function takes and returns nothing, and does not unwind.
    unsafe { libc::atexit(clean_up) };
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique("containers"));
    fs::create_dir_all(&directory).expect("a directory for this run");
    let settings = directory.join("containers.conf");
    fs::write(&settings, settings_text()).expect("podman's settings are written");
    Workshop { directory, settings, images: Mutex::default() }
});

/// libtest has no last test. It ends the process by `exit`, which comes here.
extern "C" fn clean_up() {
    let images = WORKSHOP.images.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _ = podman().args(["rmi", "--force"]).args(images.values()).output();
    let _ = fs::remove_dir_all(&WORKSHOP.directory);
}

/// crun refuses the hybrid cgroups of some machines, and podman's own default
/// limits those of a root without CAP_SYS_RESOURCE: the limits stay as they are.
fn settings_text() -> String {
    let limits = fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    let mut ulimits = Vec::new();
    for (line, name) in [("Max open files", "nofile"), ("Max processes", "nproc")] {
        let of_line = limits.lines().find_map(|text| text.strip_prefix(line));
        let hard = of_line.and_then(|values| values.split_whitespace().nth(1));
        if let Some(hard) = hard.and_then(|hard| hard.parse().ok()) {
            let limit = u64::min(hard, 4096); // podman lowers its own beforehand
            ulimits.push(format!("\"{name}={limit}:{limit}\""));
        }
    }
    format!(
        "[containers]\ndefault_ulimits = [{}]\n\
         [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        ulimits.join(", ")
    )
}

fn unique(what: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("castoff-{what}-{}-{number}", std::process::id())
}

/// podman with the settings of this run.
pub(crate) fn podman() -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", &WORKSHOP.settings).stdin(Stdio::null());
    command
}

/// Runs podman to its end; what it printed. Anything but success is a failure.
#[track_caller]
pub(crate) fn podman_ok<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> String {
    let mut command = podman();
    let output = said(command.args(args));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{told}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[track_caller]
fn said(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("cannot run podman: {error}; these tests need root and the packages podman, runc, catatonit, iptables, containernetworking-plugins, busybox-static")
    })
}

/// The castoff that is tested.
pub(crate) fn castoff() -> PathBuf {
    env::var_os("CASTOFF_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_castoff").into()).into()
}

/// A directory that any user of a container may write to. It goes with the run.
pub(crate) fn shared_directory() -> PathBuf {
    let directory = WORKSHOP.directory.join(unique("shared"));
    fs::create_dir(&directory).expect("a directory");
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).expect("its owner may");
    directory
}

/// The images of these tests. Each holds castoff and all examples in `/`.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Image {
    /// The last stage of Dockerfile.example, as it stands there.
    Example,
    /// FROM scratch, as root.
    Scratch,
    /// With busybox at its usual places, and users.
    Busybox,
}

/// What every image has besides castoff.
const EXAMPLES: [&str; 7] =
    ["forker", "graceful", "notifier", "print_env", "print_signals", "server", "stubborn"];

/// The users of the image with busybox.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1501:an app:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1501:\nextra:x:1502:nobody,app\n";

impl Image {
    /// Its name, once it has been built.
    #[track_caller]
    fn name(self) -> String {
        // A build that failed has been reported by the test that wanted it.
        let mut images = WORKSHOP.images.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        images.entry(self).or_insert_with(|| self.build()).clone()
    }

    #[track_caller]
    fn build(self) -> String {
        let context = WORKSHOP.directory.join(unique("context"));
        fs::create_dir(&context).expect("a build context");
        let mut dockerfile = match self {
            Self::Example => last_stage(include_str!("../../Dockerfile.example")),
            Self::Scratch => "FROM scratch\nCOPY castoff /castoff\n\
                 ENTRYPOINT [\"/castoff\", \"--\"]\nCMD [\"/graceful\"]\n"
                .to_owned(),
            Self::Busybox => "FROM scratch\nCOPY castoff /castoff\nCOPY busybox /bin/busybox\n\
                 RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nENV PATH=/bin\n\
                 COPY passwd group /etc/\n\
                 ENTRYPOINT [\"/castoff\", \"--\"]\nCMD [\"/bin/sh\"]\n"
                .to_owned(),
        };
        let copy = |from: &Path, name: &str| {
            fs::copy(from, context.join(name))
                .unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
        };
        copy(&castoff(), "castoff");
        if self == Self::Busybox {
            copy(Path::new("/bin/busybox"), "busybox");
            fs::write(context.join("passwd"), PASSWD).expect("a file");
            fs::write(context.join("group"), GROUP).expect("a file");
        }
        for name in EXAMPLES {
            copy(Path::new(&example(name)), name);
            if self != Self::Example {
                let _ = writeln!(dockerfile, "COPY {name} /{name}");
            }
        }
        fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        let name = format!("localhost/{}", unique("image"));
        // One layer: not every machine has storage by overlay.
        podman_ok([
            OsStr::new("build"),
            "--quiet".as_ref(),
            "--layers=false".as_ref(),
            "--network=none".as_ref(),
            "--tag".as_ref(),
            name.as_ref(),
            context.as_os_str(),
        ]);
        name
    }
}

/// What is left of a Dockerfile when its other stages have left their files in
/// the context: the text from the last FROM on, without `--from`.
fn last_stage(dockerfile: &str) -> String {
    let start = dockerfile.rfind("\nFROM ").expect("a last stage");
    let stage = dockerfile.get(start..).unwrap_or_default();
    stage
        .lines()
        .map(|line| match line.split_once(" --from=") {
            // `stage FROM TO`
            Some((copy, rest)) => {
                format!("{copy} {}\n", rest.split_once(' ').map_or("", |(_, paths)| paths))
            }
            None => format!("{line}\n"),
        })
        .collect()
}

/// A container that is about to be run: castoff is its ENTRYPOINT.
pub(crate) struct Container {
    image: Image,
    options: Vec<String>,
    command: Vec<String>,
}

impl Container {
    pub(crate) fn of(image: Image) -> Self {
        Self { image, options: vec!["--network=none".to_owned()], command: Vec::new() }
    }

    /// An option of `podman run`.
    pub(crate) fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// A variable that podman gives to castoff.
    pub(crate) fn env(self, name: &str, value: &str) -> Self {
        self.option(format!("--env={name}={value}"))
    }

    /// The endpoints get a port of 127.0.0.1 of this machine.
    pub(crate) fn published(mut self) -> Self {
        self.options.retain(|option| option != "--network=none");
        self.option("--publish=127.0.0.1::9911")
    }

    /// The child and its arguments, in place of the image's CMD.
    pub(crate) fn child<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.command = command.map(str::to_owned).to_vec();
        self
    }

    /// `podman run` as a command, and the name of the container.
    pub(crate) fn command(&self) -> (Command, String) {
        let name = unique("test");
        let mut command = podman();
        command.args(["run", "--rm", "--name", &name]).args(&self.options);
        command.arg(self.image.name()).args(&self.command);
        (command, name)
    }

    /// Starts it; podman stays in front of it until it ends.
    #[track_caller]
    pub(crate) fn start(self) -> Running {
        let (mut command, name) = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut podman = command.spawn().expect("podman starts");
        let stdout = Lines::of("stdout", podman.stdout.take().expect("a pipe"));
        let log = Lines::of("stderr", podman.stderr.take().expect("a pipe"));
        Running { name, podman, stdout, log }
    }
}

/// A container that has been started. Dropping it removes it.
pub(crate) struct Running {
    pub(crate) name: String,
    podman: Child,
    pub(crate) stdout: Lines,
    /// castoff's log, and what the child writes to its standard error.
    pub(crate) log: Lines,
}

impl Running {
    /// Waits for its end; the exit code that podman passes on.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let ended = wait_until("the container ends", || self.podman.try_wait().ok().flatten());
        ended.code().unwrap_or_else(|| panic!("podman: {ended}"))
    }

    /// Waits until castoff says that it serves.
    #[track_caller]
    pub(crate) fn until_serving(&self) -> &Self {
        self.log
            .wait_for("phase serving", |line| line.contains("\"to\":\"serving\"").then_some(()));
        self
    }

    /// `podman stop`, with the time that it gives before its SIGKILL.
    #[track_caller]
    pub(crate) fn stop(&self, seconds: u32) {
        podman_ok(["stop", "--time", &seconds.to_string(), &self.name]);
    }

    /// `podman COMMAND name ARG...`
    #[track_caller]
    pub(crate) fn podman<const N: usize>(&self, command: &str, args: [&str; N]) -> String {
        podman_ok([&[command, &self.name], args.as_slice()].concat())
    }

    /// Repeats a command of podman about it until that succeeds.
    #[track_caller]
    pub(crate) fn podman_until<const N: usize>(&self, command: &str, args: [&str; N]) {
        wait_until(&format!("podman {command} succeeds"), || {
            let status = podman().arg(command).arg(&self.name).args(args).status();
            status.is_ok_and(|status| status.success()).then_some(())
        });
    }

    /// Asks its endpoints through the published port.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        probe::get(self.address_of("9911"), target)
    }

    /// Where one of its ports is published on this machine.
    #[track_caller]
    pub(crate) fn address_of(&self, port: &str) -> SocketAddr {
        self.podman("port", [port]).parse().expect("an address")
    }

    /// The phases that castoff has gone through, from the first on, once the
    /// container has ended.
    #[track_caller]
    pub(crate) fn phases(&self) -> Vec<String> {
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let changes = self.log.events();
        let mut changes = changes.iter().filter(|line| line["event"] == "phase_changed");
        let first = changes.next().expect("a change of phase");
        let begun = vec![name(&first["from"]), name(&first["to"])];
        begun.into_iter().chain(changes.map(|line| name(&line["to"]))).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = podman().args(["rm", "--force", "--time=0", "--ignore", &self.name]).output();
        let _ = self.podman.kill();
        let _ = self.podman.wait();
    }
}

/// The variables of the child as `print_env` prints them.
#[track_caller]
pub(crate) fn variables(lines: &Lines) -> HashMap<String, String> {
    let entries = lines.all();
    let entries = entries.iter().filter_map(|line| line.strip_prefix("env\t"));
    entries
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
