//! Another user of the machine who may make files in the watched directory, as everybody may in /dev/shm, and tries in
//! every way to publish or read messages of others, or to disturb others.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{chown, symlink},
    path::Path,
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use crate::{
    daemon::{Daemon, wait_for},
    files::{metric, run, settle},
    files_refused::{log, said},
    other_user::{STRANGER, is_root, script_of, shared, stranger_runs},
};

fn told(daemon: &Daemon, channel: &str) -> Vec<String> {
    let told = daemon.history(channel).into_iter();
    told.map(|(_, data)| data).collect()
}

fn file(dir: &Path, channel: &str) -> std::path::PathBuf {
    dir.join(format!("{channel}.comet"))
}

/// What the stranger does, the channel, and the expected log line. `$R` is a directory of root on the same file system.
const TRICKS: &[(&str, &str, &str)] = &[
    ("own", "echo evil > own.comet", "it belongs to"),
    (
        "touched",
        "touch touched.comet; touch touched.comet",
        "it belongs to",
    ),
    (
        "moved",
        "mkdir m1; echo evil > m1/x; mv m1/x moved.comet",
        "it belongs to",
    ),
    (
        "linked",
        "echo evil > .x; ln .x linked.comet; touch linked.comet",
        "it belongs to",
    ),
    (
        "open",
        "echo evil > open.comet; chmod 666 open.comet",
        "it belongs to",
    ),
    ("huge", "truncate -s 1T huge.comet", "it belongs to"),
    (
        "link",
        "ln -s $R/secret link.comet; touch -h link.comet",
        "a symbolic link",
    ),
    (
        "swapped-link",
        "mkdir m2; ln -s $R/secret m2/x; mv m2/x swapped-link.comet",
        "a symbolic link",
    ),
    (
        "magic",
        "ln -s /proc/self/fd/0 magic.comet; touch -h magic.comet",
        "a symbolic link",
    ),
    (
        "link-to-folder",
        "ln -s $R link-to-folder.comet; touch -h link-to-folder.comet",
        "a symbolic link",
    ),
    (
        "dangling",
        "ln -s /nowhere dangling.comet; touch -h dangling.comet",
        "a symbolic link",
    ),
    (
        "folder",
        "mkdir folder.comet; touch folder.comet",
        "a directory",
    ),
    ("fifo", "mkfifo fifo.comet; touch -h fifo.comet", "a FIFO"),
    // If fs.protected_hardlinks forbids these links, root makes them.
    (
        "hard-link",
        "mkdir m3; ln $R/secret m3/x; mv m3/x hard-link.comet",
        "2 names (hard links)",
    ),
    (
        "empty-hard-link",
        "mkdir m4; ln $R/empty m4/x; mv m4/x empty-hard-link.comet",
        "2 names (hard links)",
    ),
];

#[test]
fn no_trick_of_another_user_publishes() {
    if !is_root("no_trick_of_another_user_publishes") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "", &[]);
    let outside = daemon.root().path().join("out");
    fs::create_dir(&outside).unwrap();
    for (name, content) in [("secret", "secret"), ("empty", "")] {
        fs::write(outside.join(name), content).unwrap();
    }
    fs::write(file(&daemon.dir(), "news"), "1").unwrap();
    for (channel, trick, _) in TRICKS {
        let done = stranger_runs(
            &daemon.dir(),
            &trick.replace("$R", outside.to_str().unwrap()),
        );
        if !done.status.success() && channel.ends_with("hard-link") {
            let source = if channel.starts_with("empty") {
                "empty"
            } else {
                "secret"
            };
            fs::hard_link(outside.join(source), outside.join("link")).unwrap();
            fs::rename(outside.join("link"), file(&daemon.dir(), channel)).unwrap();
        } else {
            assert!(done.status.success(), "{channel}: {done:?}");
        }
    }
    fs::write(file(&daemon.dir(), "news"), "2").unwrap();
    settle(&daemon);

    let log = log(&daemon);
    for (channel, _, reason) in TRICKS {
        assert_eq!(told(&daemon, channel), [""; 0], "{channel}");
        let said = said(&log, &format!("{channel}.comet"));
        assert!(
            said.len() == 1 && said[0].contains(reason),
            "{channel}: {said:?}"
        );
    }
    assert_eq!(told(&daemon, "news"), ["1", "2"], "the owner goes on");
}

#[test]
fn names_that_another_user_took_before_the_daemon_came_publish_nothing() {
    if !is_root("names_that_another_user_took_before_the_daemon_came_publish_nothing") {
        return;
    }
    let root = shared();
    let dir = root.path().join("dir");
    // As if an earlier daemon had published everything up to 1970.
    let stamp = format!(
        "printf '0\\n.\\n' > .comet-seen; echo evil > {}",
        "news.comet"
    );
    assert!(stranger_runs(&dir, &stamp).status.success());
    fs::write(file(&dir, "old"), "x").unwrap();
    // The files are old enough that their times are certain.
    wait_for("time to pass", || {
        let written = fs::metadata(file(&dir, "old")).unwrap().modified().unwrap();
        (written.elapsed().unwrap() > Duration::from_millis(100)).then_some(())
    });
    let daemon = Daemon::start_in(root, "", &[]);
    settle(&daemon);
    assert_eq!(told(&daemon, "news"), [""; 0]);
    assert_eq!(told(&daemon, "old"), [""; 0], "nobody's stamp is believed");
    let planted = fs::read_to_string(dir.join(".comet-seen")).unwrap();
    assert_eq!(planted, "0\n.\n", "nor written to");
    wait_for("the log", || {
        daemon
            .log()
            .contains(".comet-seen: it is a file of user nobody; if a daemon of this user")
            .then_some(())
    });

    // A file that root puts in this place is published. The daemon writes its stamp when the planted file is gone.
    fs::remove_file(file(&dir, "news")).unwrap();
    fs::remove_file(dir.join(".comet-seen")).unwrap();
    fs::write(file(&dir, "news"), "good").unwrap();
    settle(&daemon);
    assert_eq!(told(&daemon, "news"), ["good"]);
    let stamp = wait_for("a stamp", || {
        fs::read_to_string(dir.join(".comet-seen"))
            .ok()
            .filter(|s| !s.is_empty())
    });
    assert!(stamp.ends_with(".\n"), "{stamp}");
}

/// Entries that may not be read replace a readable file and give its place back, as fast as possible.
#[test]
fn what_is_swapped_in_while_the_daemon_reads_is_never_told() {
    if !is_root("what_is_swapped_in_while_the_daemon_reads_is_never_told") {
        return;
    }
    let daemon = Daemon::start_in(
        shared(),
        "[history]\nmessages = 1000000\nbytes = \"64MiB\"\n",
        &[],
    );
    let (dir, outside) = (daemon.dir(), daemon.root().path().join("out"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let stop = AtomicBool::new(false);
    let swap = |way: u64| {
        let new = dir.join(".new");
        match way {
            0 | 2 | 4 => fs::write(&new, "good").unwrap(),
            1 => {
                fs::write(&new, "evil").unwrap();
                chown(&new, Some(STRANGER), Some(STRANGER)).unwrap();
            }
            3 => symlink(outside.join("secret"), &new).unwrap(),
            5 => fs::hard_link(outside.join("secret"), &new).unwrap(),
            _ => mkfifo(&new, Mode::S_IRWXU).unwrap(),
        }
        fs::rename(&new, file(&dir, "news")).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            (0u64..)
                .take_while(|_| !stop.load(Ordering::Relaxed))
                .for_each(|n| swap(n % 7))
        });
        wait_for("five hundred messages", || {
            (daemon.history("news").len() >= 500).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    swap(0);
    settle(&daemon);
    for (id, data) in daemon.history("news") {
        assert_eq!(data, "good", "message {id}");
    }
    assert!(
        metric(&daemon, "files_refused") > 0,
        "some of the others were looked at"
    );
}

#[test]
fn a_directory_that_another_user_swaps_for_a_link_is_not_followed() {
    if !is_root("a_directory_that_another_user_swaps_for_a_link_is_not_followed") {
        return;
    }
    let root = shared();
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    let (dir, aside) = (daemon.dir(), root.path().join("aside"));
    let theirs = root.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    fs::rename(&dir, &aside).unwrap();
    symlink(&theirs, &dir).unwrap();
    wait_for("the log", || {
        daemon
            .log()
            .contains("symbolic links are not followed")
            .then_some(())
    });
    fs::write(file(&theirs, "news"), "evil").unwrap();
    // The daemon looks for the directory every second. When the directory is there again, the daemon has ignored the
    // link.
    fs::remove_file(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    fs::write(file(&dir, "back"), "x").unwrap();
    wait_for("the directory", || {
        (!told(&daemon, "back").is_empty()).then_some(())
    });
    assert_eq!(told(&daemon, "news"), [""; 0]);
    assert!(!theirs.join(".comet-seen").exists());
}

/// A program of another user. It is killed when this value is dropped.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user who may read a file may lock it. The owner's messages still arrive, a second late.
#[test]
fn a_lock_of_another_user_silences_no_channel() {
    if !is_root("a_lock_of_another_user_silences_no_channel") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "", &[]);
    let path = file(&daemon.dir(), "news");
    fs::write(&path, "1").unwrap();
    settle(&daemon);
    let hold = "exec 9<news.comet; flock --exclusive 9; touch held; exec sleep 1000";
    let mut command = script_of(STRANGER, &daemon.dir(), hold);
    let _holder = Holder(command.spawn().unwrap());
    wait_for("the lock", || {
        daemon.dir().join("held").exists().then_some(())
    });
    fs::write(&path, "2").unwrap();
    wait_for("the message", || {
        (told(&daemon, "news") == ["1", "2"]).then_some(())
    });
}

/// With a lease (fcntl), the kernel lets an open() wait until the holder releases the lease, for at most 45 seconds.
#[test]
fn a_lease_stops_nobody_but_its_own_file() {
    if !is_root("a_lease_stops_nobody_but_its_own_file") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "[files]\nallow = [\"user:65534\"]\n", &[]);
    let path = file(&daemon.dir(), "leased");
    let hold = r#"exec perl -e '$SIG{IO} = "IGNORE"; open(F, "<", "leased.comet") or die;
        fcntl(F, 1024, 1) or die; open(H, ">", "held"); close(H); sleep 1000'"#;
    assert!(
        stranger_runs(&daemon.dir(), "echo x > leased.comet")
            .status
            .success()
    );
    wait_for("the message", || {
        (told(&daemon, "leased").len() == 1).then_some(())
    });
    settle(&daemon);
    let holder = Holder(script_of(STRANGER, &daemon.dir(), hold).spawn().unwrap());
    wait_for("the lease", || {
        daemon.dir().join("held").exists().then_some(())
    });
    assert!(run("touch", &["-h".as_ref(), &path]).status.success()); // without opening it
    for n in 1..=3 {
        fs::write(file(&daemon.dir(), "news"), n.to_string()).unwrap();
        wait_for("another channel", || {
            (told(&daemon, "news").len() == n).then_some(())
        });
    }
    drop(holder);
    wait_for("the leased one", || {
        (told(&daemon, "leased").len() == 2).then_some(())
    });
}

/// The writer of this file never ends, and opens and closes the file all the time.
#[test]
fn a_file_without_end_stops_nobody_and_fills_no_memory() {
    let daemon = Daemon::start("");
    let before = daemon.memory("VmRSS");
    let stop = AtomicBool::new(false);
    let block = [b'x'; 16 << 10];
    let write = || {
        for n in 0u64.. {
            let mut options = OpenOptions::new();
            let options = options.create(true).write(true);
            let options = if n % 64 == 0 {
                options.truncate(true)
            } else {
                options.append(true)
            };
            options
                .open(file(&daemon.dir(), "endless"))
                .unwrap()
                .write_all(&block)
                .unwrap();
            if n % 64 == 63 {
                // A sparse file of a terabyte, which needs no space.
                File::options()
                    .write(true)
                    .open(file(&daemon.dir(), "endless"))
                    .unwrap()
                    .set_len(1 << 40)
                    .unwrap();
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(write);
        for n in 1..=200 {
            fs::write(file(&daemon.dir(), "news"), n.to_string()).unwrap();
            wait_for("another channel", || {
                (told(&daemon, "news").last() == Some(&n.to_string())).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    for data in told(&daemon, "endless") {
        assert!(data.len() <= 64 << 10, "{} bytes", data.len());
    }
    let grown = daemon.memory("VmRSS") - before;
    assert!(grown < 32 << 20, "{grown} bytes more than before");
}

/// A hundred thousand files of a user who may not publish must not affect memory, the log or other users.
#[test]
fn a_flood_of_names_and_touches_stops_nobody_and_fills_neither_memory_nor_log() {
    if !is_root("a_flood_of_names_and_touches_stops_nobody_and_fills_neither_memory_nor_log") {
        return;
    }
    let daemon = Daemon::start_in(shared(), "", &[]);
    let before = daemon.memory("VmRSS");
    let flood = r#"exec perl -e '
        for my $n (1 .. 100000) { open(F, ">", "flood-$n.comet") or die; close(F); }
        for my $n (1 .. 200000) { utime(undef, undef, "flood-1.comet") or die; }'"#;
    let mut flood = Holder(script_of(STRANGER, &daemon.dir(), flood).spawn().unwrap());
    let mut n = 0u64;
    let ended = loop {
        n += 1;
        fs::write(file(&daemon.dir(), "news"), n.to_string()).unwrap();
        wait_for("another channel", || {
            (told(&daemon, "news").last() == Some(&n.to_string())).then_some(())
        });
        if let Some(ended) = flood.0.try_wait().unwrap() {
            break ended;
        }
    };
    assert!(ended.success());
    settle(&daemon);
    assert!(
        metric(&daemon, "files_refused") >= 50_000,
        "more may have come at once than the kernel keeps"
    );
    let grown = daemon.memory("VmRSS") - before;
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    let lines = daemon.log().lines().count();
    assert!(lines < 300, "{lines} lines were logged"); // a hundred a minute, and few else
    let published = metric(&daemon, "published_files");
    assert!(published < 2 * n + 10, "{published} for {n} of the owner"); // a write may be told twice on a slow day
}

/// Rules say which user may publish to which channels by files. Other channels work as before.
#[test]
fn rules_say_whose_files_publish_to_which_channels() {
    if !is_root("rules_say_whose_files_publish_to_which_channels") {
        return;
    }
    let rules = "[files]\nallow = [\"user:54321\"]\n[[channel]]\nprefix = \"app.\"\nfiles = [\"user:65534\"]\n\
        [[channel]]\nprefix = \"app.closed\"\nfiles = []\n[[channel]]\nprefix = \"all.\"\nfiles = [\"any\"]\n";
    let daemon = Daemon::start_in(shared(), rules, &[]);
    let users = [("root", 0), ("stranger", STRANGER), ("third", 54321)];
    for (name, user) in users {
        let script = format!(
            "for c in app. app.closed. all. other.; do echo {name} > ${{c}}{name}.comet; done; touch app.touch-{name}.comet"
        );
        assert!(
            script_of(user, &daemon.dir(), &script)
                .status()
                .unwrap()
                .success()
        );
    }
    settle(&daemon);
    let may = |channel: &str| {
        users.map(|(name, _)| !told(&daemon, &format!("{channel}{name}")).is_empty())
    };
    assert_eq!(may("app."), [true, true, false]);
    assert_eq!(may("app.touch-"), [true, true, false]);
    assert_eq!(may("app.closed."), [true, false, false]);
    assert_eq!(may("all."), [true; 3]);
    assert_eq!(may("other."), [true, false, true]);
    let log = log(&daemon);
    let said = said(&log, "app.third.comet");
    assert!(
        said.len() == 1 && said[0].contains(r#"files = ["user:54321"] under [[channel]]"#),
        "{said:?}"
    );
}
