//! The kernel's limits of inotify, lowered only for the daemon by a user namespace.

use std::{fs, process::Command};

use crate::{
    daemon::{Daemon, wait_for},
    files::{run, settle},
    other_user::shared,
    wire::metric,
};

/// Starts a daemon for which this limit is 0. `None`: the system does not allow it.
fn start_without(limit: &str) -> Option<Daemon> {
    let sysctl = format!("/proc/sys/user/{limit}");
    let script = format!("echo 0 > {sysctl} && exec \"$@\"");
    let program = [
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    let may = Command::new(program[0])
        .args(&program[1..])
        .arg("true")
        .output();
    if !may.is_ok_and(|output| output.status.success()) {
        println!("skipped: no user namespace of our own, in which {limit} could be lowered");
        return None;
    }
    let started = Daemon::try_start_by(&program, shared(), "", &[]);
    Some(started.unwrap_or_else(|log| panic!("comet did not start:\n{log}")))
}

/// Sets the limit within the daemon's namespace.
fn set(daemon: &Daemon, limit: &str, value: u32) {
    let script = format!("echo {value} > /proc/sys/user/{limit}");
    let pid = daemon.pid().to_string();
    let into = [
        "--user",
        "--preserve-credentials",
        "--target",
        &pid,
        "sh",
        "-c",
        &script,
    ];
    let output = Command::new("nsenter").args(into).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn told(daemon: &Daemon, channel: &str) -> Vec<String> {
    let told = daemon.history(channel).into_iter();
    told.map(|(_, data)| data).collect()
}

/// Checks that each change is published once, while the limit is reached and after it is raised.
fn degrades_and_recovers(limit: &str, named: &str) {
    let Some(daemon) = start_without(limit) else {
        return;
    };
    let file = daemon.dir().join("news.comet");
    assert_eq!(metric(&daemon, "comet_files_polling"), 1);
    for n in 1..=3 {
        fs::write(&file, n.to_string()).unwrap();
        wait_for("the message", || {
            (told(&daemon, "news").len() == n).then_some(())
        });
    }
    let log = daemon.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(named)).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("comparing all its files every second"),
        "{log}"
    );

    set(&daemon, limit, 100);
    wait_for("the watch", || {
        (metric(&daemon, "comet_files_polling") == 0).then_some(())
    });
    wait_for("the log", || {
        daemon.log().contains("is watched again").then_some(())
    });
    fs::write(&file, "4").unwrap();
    settle(&daemon);
    assert_eq!(told(&daemon, "news"), ["1", "2", "3", "4"]);

    // Each touch of an unchanged file is a message again. A comparison would report several touches as one.
    for n in 5..8 {
        assert!(run("touch", &[&file]).status.success());
        wait_for("the touch", || {
            (told(&daemon, "news").len() == n).then_some(())
        });
    }
}

#[test]
fn without_a_watch_the_directory_is_compared_until_there_is_one() {
    degrades_and_recovers("max_inotify_watches", "fs.inotify.max_user_watches");
}

#[test]
fn without_an_instance_the_directory_is_compared_until_there_is_one() {
    degrades_and_recovers("max_inotify_instances", "fs.inotify.max_user_instances");
}

#[test]
fn what_changed_without_a_watch_is_not_told_again_by_the_next_daemon() {
    let Some(daemon) = start_without("max_inotify_watches") else {
        return;
    };
    let file = |channel: &str| daemon.dir().join(format!("{channel}.comet"));
    fs::write(file("before"), "1").unwrap();
    wait_for("the message", || {
        (!told(&daemon, "before").is_empty()).then_some(())
    });
    let root = daemon.root();
    let later = daemon.dir().join("later.comet");
    assert!(daemon.stop().success());
    fs::write(later, "2").unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    assert_eq!(told(&daemon, "later"), ["2"]);
    assert_eq!(metric(&daemon, "comet_published_files_total"), 1);
}
