//! A container with systemd (`machine.sh`), in which the commands of the manuals are run.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env, fs,
    path::PathBuf,
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use crate::{
    markdown::{Block, MANUALS, blocks},
    output, profile, repository, settings, wait_for,
};

/// Environment variables of a command: name and value.
type Environment = Vec<(&'static str, String)>;

pub(crate) struct Machine {
    /// The process of `machine.sh`.
    child: Child,
    /// systemd's process id outside the container.
    init: Pid,
    environment: Environment,
    blocks: Vec<Block>,
    /// Positions of the blocks that were run.
    done: RefCell<BTreeSet<String>>,
    _root: TempDir,
}

impl Machine {
    /// Starts the container. `None`: this system does not allow such a container. The reason is printed.
    pub(crate) fn start() -> Option<Self> {
        if let Err(reason) = possible() {
            println!("skipped: {reason}");
            return None;
        }
        let root = tempfile::Builder::new()
            .prefix("comet-manual-")
            .tempdir()
            .unwrap();
        let script = repository().join("tests/manual/machine.sh");
        let mut child = Command::new("setpriv");
        child.args(["--pdeathsig", "KILL"]).args(UNSHARE);
        child.arg(script).arg(root.path()).args(directories());
        let mut child = child.spawn().unwrap();
        let init = wait_for("systemd to start", || {
            let status = child.try_wait().unwrap();
            assert!(status.is_none(), "machine.sh ended: {status:?}");
            systemd_below(child.id())
        });
        let machine = Self {
            child,
            init,
            environment: environment(),
            blocks: MANUALS.iter().flat_map(|manual| blocks(manual)).collect(),
            done: RefCell::default(),
            _root: root,
        };
        wait_for("systemd to be up", || {
            let (_, state) = machine.attempt("systemctl is-system-running");
            ["running", "degraded"]
                .contains(&state.trim())
                .then_some(())
        });
        Some(machine)
    }

    /// Runs a script in the checkout as root, to its end. Returns whether it succeeded, and its output.
    pub(crate) fn attempt(&self, script: &str) -> (bool, String) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args("--mount --pid --net --uts --ipc --cgroup --root --wd".split(' '));
        command.args(["--", "env", "-i"]);
        for (name, value) in &self.environment {
            command.arg(format!("{name}={value}"));
        }
        let go = format!("cd '{}'\n{script}", repository().display());
        output(command.args(["sh", "-e", "-c", &go]))
    }

    /// Runs a script that must succeed. Returns its output.
    pub(crate) fn run(&self, script: &str) -> String {
        let (succeeded, text) = self.attempt(script);
        assert!(succeeded, "{script}\n{text}\n{}", self.logs());
        text
    }

    /// Runs a script that must fail. Returns its output.
    pub(crate) fn fails(&self, script: &str) -> String {
        let (succeeded, text) = self.attempt(script);
        assert!(!succeeded, "succeeded: {script}\n{text}");
        text
    }

    /// The text of a block of a manual.
    pub(crate) fn block(&self, manual: &str, name: &str) -> &str {
        let block = self.blocks.iter().find(|block| {
            block.place.starts_with(&format!("{manual}:")) && block.name.as_deref() == Some(name)
        });
        let block = block.unwrap_or_else(|| panic!("{manual} has no block \"{name}\""));
        self.done.borrow_mut().insert(block.place.clone());
        &block.text
    }

    /// Runs a block of a manual exactly as it is printed there.
    pub(crate) fn manual(&self, manual: &str, name: &str) -> String {
        println!("{manual}: {name}");
        self.run(self.block(manual, name))
    }

    /// Starts a long-running script as a service with this name.
    pub(crate) fn begin(&self, name: &str, script: &str) {
        let mut start = format!(
            "cat >/tmp/{name}.sh <<'END'\n{script}\nEND\n\
             systemd-run --quiet --unit={name} -p KillSignal=INT --working-directory='{}'",
            repository().display()
        );
        for (variable, _) in &self.environment {
            start += &format!(" --setenv={variable}");
        }
        self.run(&format!("{start} sh -e /tmp/{name}.sh"));
    }

    /// The output of such a service.
    pub(crate) fn printed(&self, name: &str) -> String {
        self.run(&format!("journalctl --quiet -o cat -u {name}"))
    }

    /// Edits `/etc/comet.toml` as a reader does who follows these lines. The service does not reload the file.
    pub(crate) fn set(&self, lines: &str) {
        let edited = settings::edited(&self.run("cat /etc/comet.toml"), lines);
        self.run(&format!("cat >/etc/comet.toml <<'END'\n{edited}END"));
    }

    /// Edits the file as with [`Self::set`], with the block of a manual that contains this text.
    pub(crate) fn set_as(&self, manual: &str, text: &str) {
        let place = format!("{manual}:");
        let block = self.blocks.iter().find(|block| {
            block.language == "toml" && block.place.starts_with(&place) && block.text.contains(text)
        });
        let block = block.unwrap_or_else(|| panic!("{manual} has no settings with {text}"));
        self.set(&block.text);
    }

    /// Positions of marked blocks that were not run.
    pub(crate) fn not_run(&self) -> Vec<&str> {
        let done = self.done.borrow();
        let missing = self.blocks.iter();
        let missing = missing.filter(|block| block.name.is_some() && !done.contains(&block.place));
        missing.map(|block| block.place.as_str()).collect()
    }

    fn logs(&self) -> String {
        let units = "-u comet.service -u comet.socket -u 'php*-fpm' -u nginx";
        let (_, text) = self.attempt(&format!("journalctl --quiet -n 60 {units}"));
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // When its first process ends, all other processes of the container end.
        let _ = kill(self.init, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

const UNSHARE: [&str; 4] = ["unshare", "--mount", "--propagation", "private"];

/// Tests whether the container can be started, with the mounts that systems refuse most often.
fn possible() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("only root can start a machine for the manuals".into());
    }
    let mut attempt = Command::new(UNSHARE[0]);
    attempt
        .args(&UNSHARE[1..])
        .args(["--pid", "--net", "--cgroup", "--fork"]);
    let (succeeded, text) = output(attempt.args([
        "sh",
        "-e",
        "-c",
        "mount -t tmpfs tmpfs /mnt; mkdir /mnt/cgroup /mnt/upper /mnt/scratch /mnt/root
         mount -t cgroup2 cgroup2 /mnt/cgroup
         mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/scratch /mnt/root
         test -x /mnt/root/lib/systemd/systemd",
    ]));
    if succeeded {
        Ok(())
    } else {
        Err(format!("no machine for the manuals here: {text}"))
    }
}

fn home(variable: &str, directory: &str) -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap()).join(directory);
    env::var_os(variable).map_or_else(home, PathBuf::from)
}

/// The directories that the build needs, wherever they are mounted.
fn directories() -> Vec<PathBuf> {
    let mut all = vec![
        repository(),
        home("CARGO_HOME", ".cargo"),
        home("RUSTUP_HOME", ".rustup"),
    ];
    all.extend(env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    all.retain(|path| path.is_dir());
    all
}

fn environment() -> Environment {
    let path = env::var("PATH").unwrap();
    let mut all = vec![
        ("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")),
        ("HOME", env::var("HOME").unwrap()),
        (
            "CARGO_HOME",
            home("CARGO_HOME", ".cargo").display().to_string(),
        ),
        (
            "RUSTUP_HOME",
            home("RUSTUP_HOME", ".rustup").display().to_string(),
        ),
        // There is no network, and it is not needed, because these tests were already built.
        ("CARGO_NET_OFFLINE", "true".into()),
        // A reader builds a release. Here the build of these tests is used.
        ("PROFILE", profile().into()),
    ];
    all.extend(env::var("CARGO_TARGET_DIR").map(|target| ("CARGO_TARGET_DIR", target)));
    all
}

/// Finds the process called systemd among the descendants of a process.
fn systemd_below(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let child = child.parse::<u32>().ok()?;
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        if name.trim() == "systemd" {
            Some(Pid::from_raw(child.cast_signed()))
        } else {
            systemd_below(child)
        }
    })
}
