//! `comet check` and `comet status`.

use std::{fs, sync::Arc};

use serde_json::Value;

use crate::{
    cli::{comet, run},
    daemon::{Daemon, directory, wait_for},
    other_user::{STRANGER, is_root, shared},
};

#[test]
fn status_reports_that_the_daemon_does_not_answer() {
    let daemon = Daemon::start("");
    daemon.signal("STOP");
    let (exit, _, stderr) = run(daemon.comet(&["status"]));
    daemon.signal("CONT");
    assert_eq!(exit, Some(1));
    assert!(
        stderr.contains("cannot ask the daemon: no answer within 5 s"),
        "{stderr}"
    );
    assert!(!stderr.contains("published"), "{stderr}");
}

#[test]
fn status_is_readable_and_raw() {
    let daemon = Daemon::start("");
    daemon.publish("news", "hi");
    let (exit, stdout, _) = run(daemon.comet(&["status"]));
    assert_eq!(exit, Some(0));
    for line in [
        format!("pid                         {}", daemon.pid()),
        "  published                 1".into(),
    ] {
        assert!(
            stdout.lines().any(|told| told == line),
            "{line:?} in {stdout}"
        );
    }
    let raw: Value = serde_json::from_str(&run(daemon.comet(&["status", "--json"])).1).unwrap();
    assert_eq!(
        (&raw["ok"], &raw["hub"]["messages"]),
        (&true.into(), &1.into())
    );
}

/// Configuration that an address needs if other machines can reach it.
const READABLE: &str = "[[channel]]\nprefix = \"\"\nread = \"public\"\n";
const READABLE_AS_SHOWN: &str =
    "\n  [[channel]]\n  prefix = \"\"          # all channels\n  read = \"public\" ";

#[test]
fn check_names_file_line_and_key() {
    let root = directory();
    let path = root.path().join("comet.toml");
    let check = |text: &str| {
        fs::write(&path, text).unwrap();
        run(comet(&["check", "--config", path.to_str().unwrap()]))
    };
    let dir = root.path().join("dir");
    let (exit, stdout, stderr) = check(&format!("dir = {dir:?}"));
    assert_eq!(
        (exit, stdout, stderr.as_str()),
        (Some(0), format!("{}: ok\n", path.display()), "")
    );

    let (exit, stdout, stderr) = check("grace = \"5s\"\n[http]\nheartbeat = \"15 sec\"\n");
    assert_eq!((exit, stdout.as_str()), (Some(1), ""));
    let expected = format!(
        "comet: {}:3:13: http.heartbeat: \"15 sec\" is not a duration",
        path.display()
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(
        stderr.ends_with("\n  3 | heartbeat = \"15 sec\"\n"),
        "{stderr}"
    );

    let open = "listen = \"0.0.0.0:80\"\n";
    let (exit, _, stderr) = check(open);
    assert_eq!(exit, Some(1));
    assert!(stderr.contains(READABLE_AS_SHOWN), "{stderr}");
    let (exit, _, stderr) = check(&format!(
        "dir = \"/no/such/directory\"\n{open}demo = true\n{READABLE}"
    ));
    assert_eq!(exit, Some(0), "allowed, and probably not meant");
    assert!(
        stderr.contains("warning: dir: /no/such/directory"),
        "{stderr}"
    );
    assert!(stderr.contains("warning: demo: "), "{stderr}");

    let (exit, _, stderr) = run(comet(&["check", "--config", "/no/such/file"]));
    assert_eq!(exit, Some(1));
    assert!(
        stderr.contains("cannot read /no/such/file: No such file"),
        "{stderr}"
    );
    assert_eq!(run(comet(&["check"])).0, Some(0));
}

#[test]
fn check_tries_directories_and_keys_as_the_user_who_runs_it() {
    if !is_root("check_tries_directories_and_keys_as_the_user_who_runs_it") {
        return;
    }
    let root = shared();
    let path = |name: &str| root.path().join(name);
    let config = path("comet.toml");
    fs::create_dir(path("own")).unwrap();
    fs::write(path("secret"), "x".repeat(40)).unwrap();
    fs::set_permissions(
        path("secret"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let check = |text: &str, uid: u32| {
        fs::write(&config, text).unwrap();
        let mut command = comet(&["check", "--config", config.to_str().unwrap()]);
        command.env("COMET_STORE", path("store"));
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, uid);
        run(command)
    };
    let key = format!(
        "[[auth.key]]\nkid = \"a\"\nalg = \"HS256\"\nsecret_file = {:?}\n",
        path("secret")
    );
    let (own, new) = (path("own"), path("own/new/deep"));
    let cases = [
        (
            format!("[store]\ndir = {own:?}\n"),
            "store.dir: ",
            "write to",
        ),
        (
            format!("[store]\ndir = {new:?}\n"),
            "store.dir: ",
            "write to",
        ),
        (
            format!("[spool]\ndir = {own:?}\n"),
            "spool.dir: ",
            "write to",
        ),
        (
            format!("[socket]\npath = {:?}\n", path("own/s")),
            "socket.path: ",
            "write to",
        ),
        (key, "auth.key \"a\": ", "read"),
    ];
    for (text, key, act) in cases {
        let text = format!("dir = {:?}\n{text}", path("dir"));
        let (exit, stdout, stderr) = check(&text, STRANGER);
        let is_socket = key == "socket.path: ";
        let code = if is_socket { 0 } else { 1 };
        assert_eq!(exit, Some(code), "{text}");
        assert_eq!(stdout.is_empty(), !is_socket, "{stdout}");
        assert!(stderr.contains(&format!("{key}user ")), "{stderr}");
        assert!(stderr.contains(&format!(" cannot {act} ")), "{stderr}");
        assert!(stderr.contains(" (owned by root:root, mode 0"), "{stderr}");
        let missing = format!("{} does not exist", new.display());
        assert_eq!(stderr.contains(&missing), text.contains("deep"), "{stderr}");
        // Root can read the files, and the message names those that only root can read.
        let (exit, _, stderr) = check(&text, 0);
        assert_eq!(exit, Some(0), "{stderr}");
        let told = stderr.contains("warning: only root can");
        assert_eq!(told, !text.contains("deep"), "{stderr}");
    }
    assert_eq!(
        fs::read_dir(&own).unwrap().count(),
        0,
        "nothing is left there"
    );
}

#[test]
fn status_shows_places_sizes_and_what_was_refused() {
    let daemon = Daemon::start("");
    fs::create_dir(daemon.dir().join(".comet-seen.d")).unwrap();
    fs::write(daemon.dir().join("a b.comet"), "x").unwrap();
    let shown = wait_for("the refusal", || {
        let shown = run(daemon.comet(&["status"])).1;
        shown.contains("refused: ").then_some(shown)
    });
    let root = daemon.root();
    let path = |name: &str| root.path().join(name).display().to_string();
    for (label, value) in [
        ("listen", daemon.addr().to_string()),
        ("socket", path("comet.sock")),
        ("dir", path("dir")),
        ("config", path("comet.toml")),
        ("  stamp error", "none".into()),
        ("  last refused", "\"a b.comet\" refused: ".into()),
        ("  channels", "0".into()),
    ] {
        let line = format!("{label:<28}{value}");
        assert!(
            shown.lines().any(|told| told.starts_with(&line)),
            "{line:?} in {shown}"
        );
    }
    let memory = shown.lines().find(|line| line.starts_with("memory bytes"));
    assert!(memory.is_some_and(|line| line.ends_with("MiB")), "{shown}");
}

#[test]
fn status_reports_that_the_stamp_belongs_to_another_user() {
    let root = Arc::new(directory());
    fs::create_dir(root.path().join("dir/.comet-seen")).unwrap();
    let daemon = Daemon::start_in(root, "", &[]);
    wait_for("the stamp's error", || {
        let shown = run(daemon.comet(&["status"])).1;
        shown
            .contains(&format!("{:<28}cannot use ", "  stamp error"))
            .then_some(())
    });
}
