//! Other users in the spool's directory. They may add files there as every publisher may, and are not trusted any
//! further: neither the daemon nor messages of other users may have to wait because of them.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    sync::Arc,
};

use crate::{
    daemon::{Daemon, directory, wait_for},
    other_user::{STRANGER, is_root},
    wire::metric,
};

const AS_DAEMON: [&str; 4] = [
    "setpriv",
    "--reuid=54321",
    "--regid=54321",
    "--clear-groups",
];
/// The daemon's user. Its group is that of all publishers.
const DAEMON: u32 = 54321;
const VICTIM: u32 = 54322;

/// A directory of the daemon's user, as a package would set it up.
fn root() -> Arc<tempfile::TempDir> {
    let root = directory();
    let own = |path: &Path| {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        chown(path, Some(DAEMON), Some(DAEMON)).unwrap();
    };
    own(root.path());
    own(&root.path().join("dir"));
    Arc::new(root)
}

/// Makes the spool's directory as the daemon does.
fn make_spool(root: &tempfile::TempDir) -> PathBuf {
    let spool = root.path().join("comet.spool");
    fs::create_dir(&spool).unwrap();
    chown(&spool, Some(DAEMON), Some(DAEMON)).unwrap();
    fs::set_permissions(&spool, Permissions::from_mode(0o3770)).unwrap();
    spool
}

fn start(root: &Arc<tempfile::TempDir>) -> Daemon {
    Daemon::try_start_by(&AS_DAEMON, root.clone(), "", &[])
        .unwrap_or_else(|log| panic!("comet did not start:\n{log}"))
}

/// A shell script of a user who may publish.
fn script(user: u32, spool: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(spool);
    command.uid(user).gid(DAEMON);
    command
}

fn run(user: u32, spool: &Path, text: &str) -> Output {
    let output = script(user, spool, text).output().unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
    output
}

/// Lets the victim write a message into the spool. No daemon answers.
fn leave(spool: &Path, data: &str) {
    let comet = env!("CARGO_BIN_EXE_comet");
    let output = run(
        VICTIM,
        spool,
        &format!(
            "COMET_SOCKET=/no/such.sock {comet} publish news {data} --spool={}",
            spool.display()
        ),
    );
    assert_eq!(output.stdout, b"spooled\n", "{output:?}");
}

fn wait_for_news(daemon: &Daemon, expected: &[&str]) {
    wait_for("the victim's message", || {
        let told = daemon.history("news");
        let told: Vec<_> = told.iter().map(|(_, data)| data).collect();
        (told == expected).then_some(())
    });
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leases of the stranger on some files with these numbers, released and taken again all the time. A lease is refused
/// while the daemon has the file open, so each is tried until it succeeds.
fn lease(spool: &Path, files: u32) -> Holder {
    let hold = format!(
        r#"exec perl -e '$SIG{{IO}} = "IGNORE"; my @f;
        for (1..{files}) {{ my $n = sprintf("0-%08x-0.msg1", $_); open($f[$_], "+>", $n) or die $!;
            select(undef, undef, undef, 0.01) until fcntl($f[$_], 1024, 1); }}
        open(H, ">", "held"); close(H);
        while (1) {{ select(undef, undef, undef, 0.5);
            for (1..{files}) {{ fcntl($f[$_], 1024, 2); fcntl($f[$_], 1024, 1); }} }}'"#
    );
    let holder = Holder(script(STRANGER, spool, &hold).spawn().unwrap());
    wait_for("the lease", || spool.join("held").exists().then_some(()));
    holder
}

fn lines_about_the_spool(daemon: &Daemon) -> usize {
    daemon.log().matches("in the spool").count()
}

#[test]
fn a_lease_holds_up_nobody_elses_messages() {
    if !is_root("a_lease_holds_up_nobody_elses_messages") {
        return;
    }
    let root = root();
    let daemon = start(&root);
    let spool = root.path().join("comet.spool");
    let _holder = lease(&spool, 300);
    for number in 1..=3 {
        leave(&spool, &number.to_string());
        wait_for_news(&daemon, &["1", "2", "3"][..number]);
    }
    assert!(lines_about_the_spool(&daemon) <= 101, "{}", daemon.log());
}

#[test]
fn files_that_come_and_go_fill_no_log() {
    if !is_root("files_that_come_and_go_fill_no_log") {
        return;
    }
    let root = root();
    let daemon = start(&root);
    let spool = root.path().join("comet.spool");
    let _holder = lease(&spool, 1);
    // None of these files is a message or readable, and each is refused at its first sight.
    let flood = "perl -e 'for (1..3000) { for my $n (\"a$_.msg1\", \"x\") { open(F, \">\", $n); print F $n; close(F);
        unlink($n) if $_ % 3; } mkdir(\"d$_.msg1\"); }'";
    run(STRANGER, &spool, flood);
    leave(&spool, "1");
    wait_for_news(&daemon, &["1"]);
    assert!(lines_about_the_spool(&daemon) <= 101, "{}", daemon.log());
}

#[test]
fn names_that_were_taken_before_the_start_keep_no_daemon_from_starting() {
    if !is_root("names_that_were_taken_before_the_start_keep_no_daemon_from_starting") {
        return;
    }
    let last: u32 = fs::read_to_string("/proc/sys/kernel/ns_last_pid")
        .map_or(0, |pid| pid.trim().parse().unwrap());
    let numbers = format!(
        "for n in $(seq {} {}); do mkdir .limits.$n; done",
        last + 1,
        last + 3000
    );
    for taken in [
        numbers.as_str(),
        "mkdir .lock limits",
        "mkdir -p .lock/full limits/full",
        "mkfifo .lock limits",
        "ln -s /etc/passwd .lock; ln -s /etc/passwd limits",
        "ln -s nothing .lock; ln -s nothing limits",
        "echo 0 0 > limits; : > .lock; chmod 600 .lock limits",
        "echo 0 0 > limits; : > .lock; chmod 666 .lock limits",
    ] {
        let root = root();
        let spool = make_spool(&root);
        run(STRANGER, &spool, taken);
        leave(&spool, "before");
        let daemon = start(&root);
        wait_for_news(&daemon, &["before"]);
        leave(&spool, "after");
        wait_for_news(&daemon, &["before", "after"]);
        let limits = fs::read_to_string(spool.join("limits")).unwrap();
        assert_eq!(limits, "67108864 10000\n", "{taken}");
    }
}

/// A user holds a lock on his own file at the lock's name.
#[test]
fn a_lock_of_another_user_keeps_no_daemon_from_the_spool() {
    if !is_root("a_lock_of_another_user_keeps_no_daemon_from_the_spool") {
        return;
    }
    let root = root();
    let spool = make_spool(&root);
    let hold = "umask 0; exec perl -e 'open(F, \">\", \".lock\"); flock(F, 2) or die; open(H, \">\", \"held\"); sleep 1000'";
    let _holder = Holder(script(STRANGER, &spool, hold).spawn().unwrap());
    wait_for("the lock", || spool.join("held").exists().then_some(()));
    leave(&spool, "1");
    wait_for_news(&start(&root), &["1"]);
}

#[test]
fn what_one_user_leaves_takes_no_room_of_another() {
    if !is_root("what_one_user_leaves_takes_no_room_of_another") {
        return;
    }
    let root = root();
    let spool = make_spool(&root);
    let full = "truncate -s 100M .x.msg1; touch -d 2100-01-01 .x.msg1; truncate -s 1T y.msg1; touch -d @0 y.msg1
        perl -e 'for (1..11000) { open(F, \">z$_.msg1\") }'";
    run(STRANGER, &spool, full);
    leave(&spool, "1");
    let daemon = start(&root);
    wait_for_news(&daemon, &["1"]);
    leave(&spool, "2");
    wait_for_news(&daemon, &["1", "2"]);
}

/// Also while the daemon runs. An entry that cannot be removed, such as a folder with files in it, does no further
/// harm.
#[test]
fn what_does_not_belong_there_goes_away_and_stops_nobody() {
    if !is_root("what_does_not_belong_there_goes_away_and_stops_nobody") {
        return;
    }
    let root = root();
    let spool = make_spool(&root);
    let many = "umask 077; perl -e 'for (1..20000) { open(F, \">x$_\"); mkdir(\"d$_\");
        open(F, \">r$_.msg1.refused\"); open(F, \">.$_.msg1\"); }
        for (1..500) { mkdir(\"f$_.msg1\"); mkdir(\"f$_.msg1/full\"); mkdir(\"g$_\"); mkdir(\"g$_/full\"); }'";
    run(STRANGER, &spool, many);
    leave(&spool, "1");
    let daemon = start(&root);
    wait_for_news(&daemon, &["1"]);
    leave(&spool, "2");
    wait_for_news(&daemon, &["1", "2"]);
    // Up to 1,000 refused files and 1,000 others of a user may stay, and the 1,000 full folders.
    wait_for("the rest to be removed", || {
        let left = fs::read_dir(&spool).unwrap().count();
        (left < 3100).then_some(())
    });
    assert!(metric(&daemon, "comet_spool_refused_total") >= 500);
    leave(&spool, "3");
    wait_for_news(&daemon, &["1", "2", "3"]);
}

#[test]
fn no_kind_of_entry_stops_the_messages_of_others() {
    if !is_root("no_kind_of_entry_stops_the_messages_of_others") {
        return;
    }
    let root = root();
    let spool = make_spool(&root);
    let longest = "l".repeat(250);
    let odd = format!(
        r#"line='{{"op":"publish","channel":"other","data":"theirs"}}'
        mkdir -p folder.msg1/full .msg1 -- -.msg1
        mkfifo fifo.msg1 .fifo.msg1 fifo.msg1.refused
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket.msg1")'
        ln -s /etc/passwd link.msg1; ln -s link.msg1 loop.msg1; ln -s /dev/zero zero.msg1
        : > {longest}.msg1; mkdir -p taken.msg1.refused/full; : > taken.msg1
        echo "$line" > hard.msg1; ln hard.msg1 linked.msg1
        printf '%s' "$line" > cut.msg1; head -c 1100000 /dev/zero > large.msg1
        echo "$line" > unreadable.msg1; chmod 000 unreadable.msg1
        : > "$(printf '\377\n\033[31m').msg1"
        truncate -s 1T sparse.msg1; touch -d 2200-01-01 hard.msg1; touch -d @-1 cut.msg1"#
    );
    run(STRANGER, &spool, &odd);
    leave(&spool, "1");
    let daemon = start(&root);
    wait_for_news(&daemon, &["1"]);
    // Some of the names are in use by now.
    run(STRANGER, &spool, &format!("set +e; {odd}; true"));
    leave(&spool, "2");
    wait_for_news(&daemon, &["1", "2"]);
    wait_for("all to be out of the way", || {
        let names = fs::read_dir(&spool).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name());
        let mut stay = names
            .filter(|name| name.as_encoded_bytes().ends_with(b".msg1"))
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."));
        let first = stay.next();
        if let Some(first) = &first {
            println!("{first:?} is there");
        }
        first.is_none().then_some(())
    });
}
