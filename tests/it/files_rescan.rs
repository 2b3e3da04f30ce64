//! Changes without events: a full event queue, no daemon, or another directory at the same path.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
    sync::Arc,
};

use crate::{
    daemon::{Daemon, Lines, directory, wait_for},
    files::{metric, run, settle},
};

/// The messages after this id: (channel, data), sorted.
fn told_since(daemon: &Daemon, since: u64, channels: &[&str]) -> Vec<(String, String)> {
    let line =
        serde_json::json!({"op": "history", "channels": channels, "since": since}).to_string();
    let reply = Lines::connect(&daemon.socket_path()).ask(&line);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let messages = reply["messages"]
        .as_array()
        .unwrap_or_else(|| panic!("refused: {reply}"));
    let mut told: Vec<_> = messages
        .iter()
        .map(|m| (text(&m["channel"]), text(&m["data"])))
        .collect();
    told.sort();
    told
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(channel, data)| ((*channel).to_owned(), (*data).to_owned()))
        .collect()
}

fn file(dir: &Path, channel: &str) -> std::path::PathBuf {
    dir.join(format!("{channel}.comet"))
}

#[test]
fn files_that_were_there_at_the_first_start_are_not_told() {
    let root = Arc::new(directory());
    fs::write(file(&root.path().join("dir"), "old"), "x").unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    settle(&daemon);
    assert!(daemon.history("old").is_empty());
    assert!(
        run("touch", &[&file(&daemon.dir(), "old")])
            .status
            .success()
    );
    settle(&daemon);
    assert_eq!(daemon.history("old").len(), 1);
}

#[test]
fn what_changed_while_no_daemon_ran_is_told_once() {
    let daemon = Daemon::start("");
    let dir = daemon.dir();
    for channel in ["same", "touched", "written", "renamed", "deleted"] {
        fs::write(file(&dir, channel), "before").unwrap();
    }
    settle(&daemon);
    let (root, since) = (daemon.root(), daemon.publish("mark", ""));
    assert!(daemon.stop().success());

    assert!(run("touch", &[&file(&dir, "touched")]).status.success());
    fs::write(file(&dir, "written"), "after").unwrap();
    fs::write(file(&dir, "renamed").with_extension("new"), "after").unwrap();
    fs::rename(
        file(&dir, "renamed").with_extension("new"),
        file(&dir, "renamed"),
    )
    .unwrap();
    fs::write(file(&dir, "new"), "").unwrap();
    fs::remove_file(file(&dir, "deleted")).unwrap();

    let channels = ["same", "touched", "written", "renamed", "deleted", "new"];
    let told = pairs(&[
        ("new", ""),
        ("renamed", "after"),
        ("touched", "before"),
        ("written", "after"),
    ]);
    let daemon = Daemon::start_in(root, "", &[]);
    settle(&daemon);
    assert_eq!(told_since(&daemon, since, &channels), told);

    // The next start adds no message.
    let (root, since) = (daemon.root(), daemon.publish("mark", ""));
    assert!(daemon.stop().success());
    let daemon = Daemon::start_in(root, "", &[]);
    settle(&daemon);
    assert_eq!(told_since(&daemon, since, &channels), []);
}

#[test]
fn a_killed_daemon_loses_no_change() {
    let mut root = Arc::new(directory());
    for round in 0..5 {
        let daemon = Daemon::start_in(root, "", &[]);
        root = daemon.root();
        let since = daemon.publish("mark", "");
        let data = round.to_string();
        daemon.signal("STOP"); // it hears of it and is killed before it can act
        fs::write(file(&daemon.dir(), "before"), &data).unwrap();
        daemon.signal("KILL");
        fs::write(file(&daemon.dir(), "after"), &data).unwrap();
        drop(daemon);

        let daemon = Daemon::start_in(root, "", &[]);
        root = daemon.root();
        let told = told_since(&daemon, since, &["before", "after"]);
        for channel in ["before", "after"] {
            assert!(
                told.contains(&(channel.to_owned(), data.clone())),
                "{channel} in round {round}: {told:?}"
            );
        }
        assert!(daemon.stop().success());
    }
}

/// The stamp does not yet cover the messages of the last second. The log does.
#[test]
fn what_was_told_just_before_a_kill_is_not_told_again() {
    const ROUNDS: usize = 10;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(13)) {
        return println!("skipped: two changes may have the same time before Linux 6.13");
    }
    let channels = ["a", "b", "touched"];
    let told = |daemon: &Daemon, channel: &str| -> Vec<String> {
        let told = daemon.history(channel).into_iter();
        told.map(|(_, data)| data).collect()
    };
    let mut root = Arc::new(directory());
    for round in 1..=ROUNDS {
        let daemon = Daemon::start_in(root, "", &[]);
        root = daemon.root();
        for channel in ["a", "b"] {
            fs::write(file(&daemon.dir(), channel), round.to_string()).unwrap();
        }
        assert!(
            run("touch", &[&file(&daemon.dir(), "touched")])
                .status
                .success()
        );
        for channel in channels {
            wait_for(channel, || {
                (told(&daemon, channel).len() >= round).then_some(())
            });
        }
        daemon.signal("KILL");
    }
    let daemon = Daemon::start_in(root, "", &[]);
    settle(&daemon);
    let rounds: Vec<String> = (1..=ROUNDS).map(|round| round.to_string()).collect();
    assert_eq!(told(&daemon, "a"), rounds);
    assert_eq!(told(&daemon, "b"), rounds);
    assert_eq!(told(&daemon, "touched").len(), ROUNDS);
}

#[test]
fn a_file_that_is_closed_while_no_daemon_runs_is_told() {
    let daemon = Daemon::start("");
    let mut writer = File::create(file(&daemon.dir(), "news")).unwrap();
    writer.write_all(b"written before, closed after").unwrap();
    settle(&daemon);
    assert!(daemon.history("news").is_empty(), "not closed yet");
    let (root, since) = (daemon.root(), daemon.publish("mark", ""));
    assert!(daemon.stop().success());
    drop(writer);
    let daemon = Daemon::start_in(root, "", &[]);
    let told = told_since(&daemon, since, &["news"]);
    assert_eq!(told, pairs(&[("news", "written before, closed after")]));
}

#[test]
fn after_an_overflow_the_last_state_of_every_file_is_told() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    // A write to an existing file causes two events: a change and a close.
    let files = limit / 2 + 500;
    if files > 50_000 {
        return println!("skipped: a queue of {limit} events takes too many files");
    }
    let root = Arc::new(directory());
    let name = |n: usize| file(&root.path().join("dir"), &format!("c{n}"));
    for n in 0..files {
        fs::write(name(n), "before").unwrap();
    }
    let daemon = Daemon::start_in(root.clone(), "", &[]);
    let since = daemon.publish("mark", "");

    daemon.signal("STOP");
    let stat = format!("/proc/{}/stat", daemon.pid());
    wait_for("the stop", || {
        fs::read_to_string(&stat)
            .unwrap()
            .contains(") T ")
            .then_some(())
    });
    for n in 0..files {
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(name(n))
            .unwrap();
        file.write_all(b"during").unwrap();
    }
    for n in (0..files).rev().take(100) {
        fs::write(name(n), "last").unwrap();
    }
    daemon.signal("CONT");

    wait_for("the rescan", || {
        (metric(&daemon, "files_rescans") >= 1).then_some(())
    });
    settle(&daemon);
    let channels: Vec<String> = (0..files).map(|n| format!("c{n}")).collect();
    for (part, channels) in channels.chunks(100).enumerate() {
        let channels: Vec<&str> = channels.iter().map(String::as_str).collect();
        let told = told_since(&daemon, since, &channels);
        for (n, channel) in channels.iter().enumerate() {
            let expected = if part * 100 + n >= files - 100 {
                "last"
            } else {
                "during"
            };
            let last = told
                .iter()
                .rfind(|(name, _)| name == channel)
                .map(|(_, data)| data.as_str());
            assert_eq!(last, Some(expected), "{channel} of {files}");
        }
    }
}

#[test]
fn a_directory_that_was_removed_and_made_again_is_watched() {
    let daemon = Daemon::start("");
    fs::write(file(&daemon.dir(), "news"), "first").unwrap();
    settle(&daemon);
    for round in ["second", "third"] {
        fs::remove_dir_all(daemon.dir()).unwrap();
        wait_for("the loss in the log", || {
            daemon.log().contains("no such directory").then_some(())
        });
        fs::create_dir(daemon.dir()).unwrap();
        fs::write(file(&daemon.dir(), "news"), round).unwrap();
        wait_for(round, || {
            daemon
                .history("news")
                .iter()
                .any(|(_, data)| data == round)
                .then_some(())
        });
        settle(&daemon);
    }
}

#[test]
fn a_directory_that_takes_the_place_of_another_is_watched_instead() {
    let daemon = Daemon::start("");
    let (dir, aside) = (daemon.dir(), daemon.root().path().join("aside"));
    fs::rename(&dir, &aside).unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(file(&dir, "new"), "x").unwrap();
    wait_for("the new directory", || {
        (!daemon.history("new").is_empty()).then_some(())
    });
    fs::write(file(&aside, "aside"), "x").unwrap();
    settle(&daemon);
    assert!(daemon.history("aside").is_empty());
    assert_eq!(daemon.history("new").len(), 1);
}

/// Unmounts the directory when dropped, even while a daemon uses it.
struct Mount<'a>(&'a Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        run("umount", &["-l".as_ref(), self.0]);
    }
}

#[test]
fn follows_a_mount_over_the_directory_and_its_end() {
    let daemon = Daemon::start("");
    let dir = daemon.dir();
    fs::write(file(&dir, "below"), "1").unwrap();
    fs::write(file(&dir, "quiet"), "1").unwrap();
    settle(&daemon);

    let tmpfs = ["-t", "tmpfs", "-o", "size=1m", "comet-test"].map(Path::new);
    if !run("mount", &[&tmpfs[..], &[&dir]].concat())
        .status
        .success()
    {
        return println!("skipped: may not mount here");
    }
    let mount = Mount(&dir);
    fs::write(file(&dir, "above"), "2").unwrap();
    wait_for("the mounted directory", || {
        (!daemon.history("above").is_empty()).then_some(())
    });
    settle(&daemon);
    assert_eq!(daemon.history("above").len(), 1);

    drop(mount);
    fs::write(file(&dir, "below"), "3").unwrap();
    let below = || {
        daemon
            .history("below")
            .into_iter()
            .map(|(_, data)| data)
            .collect::<Vec<_>>()
    };
    wait_for("the directory below", || {
        (below() == ["1", "3"]).then_some(())
    });
    settle(&daemon);
    assert_eq!(below(), ["1", "3"]);
    assert_eq!(daemon.history("quiet").len(), 1, "nothing happened to it");
}

#[test]
fn says_what_is_wrong_with_the_directory() {
    let missing = Arc::new(directory());
    fs::remove_dir(missing.path().join("dir")).unwrap();
    let linked = Arc::new(directory());
    fs::rename(linked.path().join("dir"), linked.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", linked.path().join("dir")).unwrap();
    let file = Arc::new(directory());
    fs::remove_dir(file.path().join("dir")).unwrap();
    fs::write(file.path().join("dir"), "").unwrap();
    for (root, text) in [
        (missing, "no such directory; create it"),
        (linked, "symbolic links are not followed"),
        (file, "not a directory"),
    ] {
        let dir = root.path().join("dir").display().to_string();
        let log = Daemon::try_start_in(root, "", &[])
            .err()
            .expect("it cannot start");
        assert!(log.contains(text) && log.contains(&dir), "{log}");
    }
}
