//! Directory entries that are no messages, by accident or by an attack: each is logged once and counted, and nothing
//! has to wait.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt, fs::chown, fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{Uid, User, mkfifo},
};

use crate::{
    daemon::{Daemon, Lines, wait_for},
    files::{metric, run, settle},
};

/// A user other than the daemon's.
fn stranger() -> Option<User> {
    let user = User::from_name("www-data").unwrap();
    if !Uid::effective().is_root() || user.is_none() {
        println!("skipped: needs root, and the user www-data");
        return None;
    }
    user
}

/// The log up to now, with everything about earlier events.
pub(crate) fn log(daemon: &Daemon) -> String {
    let mark = "end of log.comet";
    File::create(daemon.dir().join(mark)).unwrap();
    wait_for("the mark in the log", || {
        Some(daemon.log()).filter(|log| log.contains(mark))
    })
}

/// The log lines about this file.
pub(crate) fn said<'a>(log: &'a str, file: &str) -> Vec<&'a str> {
    let name = format!("\"{file}\" refused: ");
    log.lines()
        .filter_map(|line| line.split_once(&name))
        .map(|(_, reason)| reason)
        .collect()
}

#[test]
fn each_reason_is_said_once_and_counted_each_time() {
    let daemon = Daemon::start("[files]\nmax_bytes = 10\n");
    let secret = daemon.root().path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let at = |name: &str| daemon.dir().join(format!("{name}.comet"));
    type Make<'a> = &'a dyn Fn(&Path);
    let make: [(&str, Make<'_>, &str); 9] = [
        (
            "link",
            &|path| symlink(&secret, path).unwrap(),
            "a symbolic link",
        ),
        (
            "dangling",
            &|path| symlink("nowhere", path).unwrap(),
            "a symbolic link",
        ),
        (
            "loop",
            &|path| symlink(path, path).unwrap(),
            "a symbolic link",
        ),
        (
            "fifo",
            &|path| mkfifo(path, Mode::S_IRWXU).unwrap(),
            "a FIFO",
        ),
        (
            "folder",
            &|path| fs::create_dir(path).unwrap(),
            "a directory",
        ),
        (
            "socket",
            &|path| drop(UnixListener::bind(path).unwrap()),
            "a socket",
        ),
        (
            "hard-link",
            &|path| fs::hard_link(&secret, path).unwrap(),
            "hard links",
        ),
        (
            "large",
            &|path| fs::write(path, "01234567890").unwrap(),
            "11 bytes is over the limit of 10",
        ),
        (
            "bad name",
            &|path| fs::write(path, "").unwrap(),
            "may not contain ' '",
        ),
    ];
    for (name, make, _) in &make {
        make(&at(name));
    }
    settle(&daemon);
    let once = metric(&daemon, "files_refused");
    for (name, ..) in &make {
        assert!(run("touch", &["-h".as_ref(), &at(name)]).status.success());
    }
    settle(&daemon);

    let log = log(&daemon);
    for (name, _, reason) in make {
        let said = said(&log, &format!("{name}.comet"));
        assert!(
            said.len() == 1 && said[0].contains(reason),
            "{name}: {said:?}"
        );
        if name != "bad name" {
            assert!(daemon.history(name).is_empty(), "{name}");
        }
    }
    // A new link to a file is no event yet. The link is refused when it is touched.
    assert!(once >= make.len() as u64 - 1, "{once} refused");
    assert!(metric(&daemon, "files_refused") >= once + make.len() as u64);
}

#[test]
fn devices_are_refused() {
    let daemon = Daemon::start("");
    let path = daemon.dir().join("zero.comet");
    if mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 5)).is_err() {
        return println!("skipped: may not make devices here");
    }
    settle(&daemon);
    let log = log(&daemon);
    assert!(said(&log, "zero.comet")[0].contains("a device"), "{log}");
}

#[test]
fn names_of_all_kinds_do_no_harm() {
    let daemon = Daemon::start("");
    let long = format!("{}.comet", "x".repeat(201));
    let names: [(&[u8], &str); 6] = [
        (b"\xff\xfe.comet", "not UTF-8"),
        (b"new\nline.comet", "may not contain '\\n'"),
        (b"\x1b[2J.comet", "may not contain '\\u{1b}'"),
        ("é.comet".as_bytes(), "may not contain 'é'"),
        (b"a,b.comet", "may not contain ','"),
        (long.as_bytes(), "201 bytes is over the limit of 200"),
    ];
    for (name, _) in names {
        File::create(daemon.dir().join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    File::create(daemon.dir().join(format!("{}.comet", "y".repeat(200)))).unwrap();
    settle(&daemon);
    let log = log(&daemon);
    for (name, reason) in names {
        let lines = log
            .lines()
            .filter(|line| line.contains("refused") && line.contains(reason))
            .count();
        assert_eq!(lines, 1, "{name:?}: {log}");
    }
    assert!(
        !log.contains('\x1b') || !log.contains("\x1b[2J"),
        "a name reached the terminal"
    );
    assert_eq!(daemon.history(&"y".repeat(200)).len(), 1);
}

#[test]
fn a_fifo_is_never_opened() {
    let daemon = Daemon::start("");
    let fifo = daemon.dir().join("fifo.comet");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    assert!(run("touch", &["-h".as_ref(), &fifo]).status.success());
    settle(&daemon);
    // Opening for writing fails as long as no process reads.
    let writer = OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&fifo);
    assert_eq!(
        writer.unwrap_err().raw_os_error(),
        Some(nix::errno::Errno::ENXIO as i32)
    );
}

#[test]
fn the_log_names_the_line_that_lets_an_owner_in() {
    let Some(stranger) = stranger() else { return };
    let daemon = Daemon::start("");
    let file = daemon.dir().join("theirs.comet");
    write_as(&stranger, &file);
    settle(&daemon);
    assert!(daemon.history("theirs").is_empty());
    let log = log(&daemon);
    let said = said(&log, "theirs.comet");
    assert_eq!(said.len(), 1, "{log}");
    let line = said[0].rsplit_once("configuration: ").unwrap().1.to_owned();
    assert_eq!(line, r#"allow = ["user:www-data"]"#);
    drop(daemon);

    let daemon = Daemon::start(&format!("[files]\n{line}\n"));
    write_as(&stranger, &daemon.dir().join("theirs.comet"));
    settle(&daemon);
    assert_eq!(daemon.history("theirs")[0].1, "from outside");
}

#[test]
fn owners_are_let_in_by_their_groups_and_anybody_for_a_demo() {
    let Some(stranger) = stranger() else { return };
    let root = || std::sync::Arc::new(crate::daemon::directory());
    for (config, flags) in [
        ("[files]\nallow = [\"group:www-data\"]\n", &[][..]),
        ("[files]\nallow = [\"any\"]\n", &[]),
        ("", &["--demo"]),
    ] {
        let daemon = Daemon::start_in(root(), config, flags);
        write_as(&stranger, &daemon.dir().join("theirs.comet"));
        settle(&daemon);
        assert_eq!(daemon.history("theirs").len(), 1, "{config} {flags:?}");
    }
}

#[test]
fn the_group_of_a_file_does_not_say_who_wrote_it() {
    let Some(stranger) = stranger() else { return };
    let daemon = Daemon::start("[files]\nallow = [\"group:www-data\"]\n");
    let file = daemon.root().path().join("file");
    fs::write(&file, "x").unwrap();
    chown(&file, Some(4_000_000_000), Some(stranger.gid.as_raw())).unwrap();
    fs::rename(&file, daemon.dir().join("theirs.comet")).unwrap();
    settle(&daemon);
    assert!(daemon.history("theirs").is_empty());
}

#[test]
fn a_hundred_thousand_entries_stop_nobody() {
    let daemon = Daemon::start("");
    let dir = File::open(daemon.dir()).unwrap();
    for n in 0..50_000 {
        let name = PathBuf::from(format!("link-{n}.comet"));
        nix::unistd::symlinkat("/etc/hostname", dir.as_fd(), &name).unwrap();
    }
    let mut client = Lines::connect(&daemon.socket_path());
    for n in 0..50_000 {
        File::create(daemon.dir().join(format!("file-{n}.comet"))).unwrap();
        if n % 10_000 == 0 {
            assert_eq!(client.ask(r#"{"op":"ping"}"#)["ok"], true);
        }
    }
    fs::write(daemon.dir().join("news.comet"), "hi").unwrap();
    settle(&daemon);
    assert_eq!(daemon.history("news")[0].1, "hi");
    assert!(metric(&daemon, "files_refused") >= 50_000);
    let lines = daemon.log().lines().count();
    assert!(lines < 10_000, "{lines} lines were logged");
}

/// Makes a file of another user by renaming, so that the daemon never sees the file as its own user's.
fn write_as(user: &User, path: &Path) {
    let temporary = path.with_extension("new");
    fs::write(&temporary, "from outside").unwrap();
    chown(&temporary, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    fs::rename(temporary, path).unwrap();
}
