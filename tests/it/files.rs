//! Touching files, as people and programs do it: each action is one message, or none.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::SystemTime,
};

use crate::daemon::{Daemon, Lines, wait_for};

/// Actions in the watched directory: first with and without existing files, then the tested action. `$F` is the file,
/// `$OUT` a directory beside the watched one, and `$AWAY` a directory on another file system.
struct Action {
    before: &'static str,
    then: &'static str,
    told: Option<&'static str>,
}

const fn one(before: &'static str, then: &'static str, data: &'static str) -> Action {
    Action {
        before,
        then,
        told: Some(data),
    }
}

const fn none(before: &'static str, then: &'static str) -> Action {
    Action {
        before,
        then,
        told: None,
    }
}

const NEW: &str = "";
const EXISTING: &str = "echo old > $F";
const EMPTY: &str = ": > $F";

const ACTIONS: &[Action] = &[
    one(NEW, "touch $F", ""),
    one(EMPTY, "touch $F", ""),
    one(EXISTING, "touch $F", "old\n"),
    one(EXISTING, "touch -h $F", "old\n"),
    one(EXISTING, "touch -m $F", "old\n"),
    one(EXISTING, "touch -d 2001-02-03 $F", "old\n"),
    one(NEW, "echo new > $F", "new\n"),
    one(EXISTING, "echo new > $F", "new\n"),
    one(EXISTING, "echo new >> $F", "old\nnew\n"),
    one(NEW, "echo new >> $F", "new\n"),
    one(NEW, ": > $F", ""),
    one(EMPTY, ": > $F", ""),
    one(EXISTING, ": > $F", ""),
    one(
        NEW,
        "(echo a; echo b; sleep 0.01; echo c) > $F",
        "a\nb\nc\n",
    ),
    one(EXISTING, "echo new | tee $F > $OUT/copy", "new\n"),
    one(EXISTING, "echo new | dd of=$F status=none", "new\n"),
    one(EXISTING, "truncate -s 2 $F", "ol"),
    one(NEW, "fallocate -l 2 $F", "\0\0"),
    one("echo new > $OUT/s", "cp $OUT/s $F", "new\n"),
    one("echo new > $OUT/s; echo old > $F", "cp $OUT/s $F", "new\n"),
    one("echo new > $OUT/s", "cp -p $OUT/s $F", "new\n"),
    one(
        "echo new > $OUT/s; echo old > $F",
        "cp -p $OUT/s $F",
        "new\n",
    ),
    one("echo new > $OUT/s", "install -m 644 $OUT/s $F", "new\n"),
    one(
        "echo new > $OUT/s; echo old > $F",
        "install -m 600 $OUT/s $F",
        "new\n",
    ),
    one("echo new > $OUT/s", "mv $OUT/s $F", "new\n"),
    one("echo new > $OUT/s; echo old > $F", "mv $OUT/s $F", "new\n"),
    one("echo new > $AWAY/s", "mv $AWAY/s $F", "new\n"),
    one(
        "echo new > $AWAY/s; echo old > $F",
        "mv $AWAY/s $F",
        "new\n",
    ),
    one(EXISTING, "echo new > .tmp && mv .tmp $F", "new\n"),
    one(EXISTING, "sed -i s/old/new/ $F", "new\n"),
    one(EXISTING, "mv $F gone && mv gone $F", "old\n"),
    one(EXISTING, "rm $F && touch $F", ""),
    one(NEW, php("touch"), ""),
    one(EXISTING, php("touch"), "old\n"),
    one(EXISTING, "touch -d 2100-01-01 $F", "old\n"),
    one(
        "touch -d @1700000000 $F",
        "php -r 'touch(getenv(\"F\"), 1700000001);'",
        "",
    ),
    one(
        "echo new > $OUT/s; touch -d @1700000000 $OUT/s; echo old > $F",
        "cp --preserve=all $OUT/s $F",
        "new\n",
    ),
    // The file has the same length and time, but it was written, so it has new content.
    one(
        "echo new > $OUT/s; echo old > $F; touch -d @1700000000 $F $OUT/s",
        "cp --preserve=all $OUT/s $F",
        "new\n",
    ),
    one(
        "echo new > $OUT/s; echo old > $F; touch -d @1700000000 $F $OUT/s",
        "mv $OUT/s $F",
        "new\n",
    ),
    one(
        "echo newer > $OUT/s; echo old > $F",
        "rsync -a $OUT/s $F",
        "newer\n",
    ),
    one(
        "echo new > $OUT/s; touch -d @1700000000 $OUT/s; echo old > $F",
        "rsync -a --inplace $OUT/s $F",
        "new\n",
    ),
    // vim with backupcopy=no, and emacs: the old file becomes the backup, and a new file gets the name.
    one(
        EXISTING,
        "mv $F $F~; echo new > $F; chmod 644 $F; rm $F~",
        "new\n",
    ),
    // vim with backupcopy=yes, and nano: the file is written in place, then mode and attributes are set again.
    one(
        EXISTING,
        "cp -p $F $F~; echo new > $F; chmod 644 $F; rm $F~",
        "new\n",
    ),
    one(NEW, php("put"), "new"),
    one(EXISTING, php("put"), "new"),
    one(NEW, php("put locked"), "new"),
    one(EXISTING, php("put locked"), "new"),
    one(EXISTING, php("append"), "old\nnew"),
    one(EXISTING, php("put nothing"), ""),
    one(NEW, php("put nothing"), ""),
    none(NEW, "touch $OUT/s && ln $OUT/s $F && touch $F"),
    none("touch $OUT/s && ln $OUT/s $F", "touch $F"),
    none("touch $OUT/s && ln $OUT/s $F", php("touch")),
    none(EXISTING, "chmod 600 $F"),
    none(EXISTING, "chmod 600 $F; sleep 0.01; chmod 640 $F"),
    none(EXISTING, "chown :1 $F"),
    none(EXISTING, "cat $F"),
    none(EXISTING, "touch -a $F"),
    none(EXISTING, "touch -a -d @1700000000 $F"),
    none(EXISTING, "touch -r $F $F"),
    none("touch -d 2001-02-03 $F", "touch -d 2001-02-03 $F"),
    none(
        "echo new > $OUT/s; rsync -a $OUT/s $F",
        "rsync -a $OUT/s $F",
    ),
    none(
        "touch -d @1700000000 $F",
        "php -r 'touch(getenv(\"F\"), 1700000000);'",
    ),
    none(EXISTING, "setfattr -n user.a -v b $F"),
    none(
        EXISTING,
        "setfattr -n user.a -v b $F; sleep 0.01; setfattr -x user.a $F",
    ),
    none(EXISTING, "setfacl -m u:1:r $F"),
    none(EXISTING, "chmod 600 $F; sleep 0.01; : >> $F"),
    none(EXISTING, ": >> $F"),
    none(EXISTING, "setfattr -n user.a -v b $F; sleep 0.01; : >> $F"),
    none(EXISTING, "chmod 644 $F; chown $(id -u) $F"),
    none(EXISTING, "ln $F other; sleep 0.01; touch -a $F; rm other"),
    none(
        EXISTING,
        "ln $F other; sleep 0.01; rm other; setfattr -n user.a -v b $F",
    ),
    none(
        EXISTING,
        "tar -c --atime-preserve=replace $F > $OUT/backup.tar",
    ),
    none(EXISTING, "cp -a $F $OUT/backup"),
    none(EXISTING, "ls -l"),
    none(EXISTING, "rm $F"),
    none(EXISTING, "mv $F $OUT/elsewhere"),
    none(EXISTING, "ln $F $OUT/other"),
    none(EXISTING, "ln $F other-$F"),
    none("touch $OUT/s", "ln $OUT/s $F"),
    none("touch $OUT/s && ln $OUT/s $F", "chmod 600 $F"),
    none("touch $OUT/s", "ln -s $OUT/s $F"),
    none("touch $OUT/s && ln -s $OUT/s $F", "touch $F"),
    none(NEW, "mkfifo $F"),
    none(NEW, "mkdir $F && touch $F/x.comet"),
    none(EXISTING, "cp $F .$F && touch .$F"),
    none(EXISTING, "cp $F $F~ && touch $F~"),
];

/// The ways in which PHP 8.2 writes a file.
const fn php(how: &'static str) -> &'static str {
    match how.as_bytes() {
        b"touch" => "php -r 'touch(getenv(\"F\"));'",
        b"put" => "php -r 'file_put_contents(getenv(\"F\"), \"new\");'",
        b"put locked" => "php -r 'file_put_contents(getenv(\"F\"), \"new\", LOCK_EX);'",
        b"append" => "php -r 'file_put_contents(getenv(\"F\"), \"new\", FILE_APPEND | LOCK_EX);'",
        b"put nothing" => "php -r 'file_put_contents(getenv(\"F\"), \"\");'",
        _ => panic!("no such way"),
    }
}

#[test]
fn each_action_is_one_message_or_none() {
    let daemon = Daemon::start("");
    let away = tempfile::tempdir_in("/tmp").unwrap();
    let out = daemon.root().path().join("out");
    fs::create_dir(&out).unwrap();
    let mut wrong = Vec::new();
    for (number, action) in ACTIONS.iter().enumerate() {
        let channel = format!("row-{number}");
        let run = |script| in_shell(&daemon.dir(), &channel, script, &out, away.path());
        run(action.before);
        settle(&daemon);
        let before = daemon.history(&channel).len();

        run(action.then);
        settle(&daemon);

        let told: Vec<String> = daemon
            .history(&channel)
            .split_off(before)
            .into_iter()
            .map(|(_, data)| data)
            .collect();
        let expected: Vec<&str> = action.told.into_iter().collect();
        if told != expected {
            wrong.push(format!(
                "{:?}, {:?}: told {told:?}, not {expected:?}",
                action.before, action.then
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), daemon.log());
}

/// The events of one action may be read one by one, and the daemon may work in between. Writes that PHP does at once
/// are one message. PHP prints a number for these. Slower writes may become two messages.
#[test]
fn an_action_of_several_calls_is_one_message_however_its_events_are_heard() {
    const TIMES: usize = 150;
    let ways = [
        ("touch", "touch($f);"),
        (
            "times-after-close",
            "fclose(fopen($f, 'w')); spin(); touch($f);",
        ),
        (
            "times-while-writing",
            "$h = fopen($f, 'w'); fwrite($h, 'x'); touch($f); spin(); fwrite($h, 'y'); fclose($h);",
        ),
        (
            "mode-after-close",
            "file_put_contents($f, 'x'); chmod($f, 0600);",
        ),
        ("touch-and-chmod", "touch($f); chmod($f, 0600);"),
    ];
    let daemon = Daemon::start("");
    for (way, code) in ways {
        let script = format!(
            "function spin() {{ $end = hrtime(true) + 300000; while (hrtime(true) < $end); }}
             for ($i = 0; $i < {TIMES}; $i++) {{ $f = \"{way}-$i.comet\"; $start = hrtime(true); {code}
             if (hrtime(true) - $start < 1500000) echo \"$i\\n\"; usleep(1000); }}"
        );
        let output = Command::new("php")
            .args(["-r", &script])
            .current_dir(daemon.dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        settle(&daemon);

        let printed = String::from_utf8(output.stdout).unwrap();
        let at_once: Vec<usize> = printed.lines().map(|line| line.parse().unwrap()).collect();
        assert!(
            at_once.len() > TIMES / 4,
            "this machine is too busy to tell: {}",
            at_once.len()
        );
        for n in 0..TIMES {
            let told = daemon.history(&format!("{way}-{n}")).len();
            let fits = if at_once.contains(&n) {
                told == 1
            } else {
                told >= 1
            };
            assert!(fits, "{way} {n}: told {told} times");
        }
    }
}

#[test]
fn each_of_several_touches_is_a_message() {
    let daemon = Daemon::start("");
    let file = daemon.dir().join("news.comet");
    for n in 1..=20 {
        fs::write(&file, n.to_string()).unwrap();
        wait_for("the message", || {
            (daemon.history("news").len() == n).then_some(())
        });
    }
    settle(&daemon);
    let told: Vec<String> = daemon
        .history("news")
        .into_iter()
        .map(|(_, data)| data)
        .collect();
    let written: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    assert_eq!(told, written);
}

#[test]
fn after_a_burst_the_last_state_is_told() {
    let daemon = Daemon::start("");
    let file = daemon.dir().join("news.comet");
    for n in 0..2000 {
        fs::write(&file, n.to_string()).unwrap();
    }
    settle(&daemon);
    let told = daemon.history("news");
    assert_eq!(told.last().unwrap().1, "1999");
}

/// Four programs change the same five files in many ways. There may be fewer messages than changes, and a message may
/// have half-written data. But the last message of each channel has the final content of the file.
#[test]
fn whatever_happens_the_last_content_is_told() {
    let daemon = Daemon::start("[history]\nmessages = 100000\n");
    let file = |n: u64| daemon.dir().join(format!("c{n}.comet"));
    let disturb = &|seed: u64| {
        let mut random = seed;
        for step in 0..1500 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (path, what) = (file((random >> 32) % 5), (random >> 40) % 7);
            let content = format!("{seed}-{step}");
            let temporary = daemon.dir().join(format!(".{seed}"));
            // The other programs delete and rename files too, so each of these calls may fail.
            let _ = match what {
                0 | 1 => fs::write(&path, content),
                2 => fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path)),
                3 => OpenOptions::new()
                    .append(true)
                    .open(&path)
                    .and_then(|mut f| f.write_all(b"+")),
                4 => File::open(&path).and_then(|f| f.set_modified(SystemTime::now())),
                5 => fs::set_permissions(&path, Permissions::from_mode(0o600 + (step & 0o44))),
                _ if step < 1400 => fs::remove_file(&path),
                _ => Ok(()), // in the end there is something to compare
            };
        }
    };
    thread::scope(|scope| (1..=4).for_each(|seed| drop(scope.spawn(move || disturb(seed)))));
    settle(&daemon);
    for n in 0..5 {
        let content = fs::read_to_string(file(n)).unwrap();
        let told = daemon.history(&format!("c{n}"));
        let last = told.last().map(|(_, data)| data);
        assert_eq!(last, Some(&content), "c{n} after {} messages", told.len());
    }
}

#[test]
fn tells_channels_in_the_order_of_their_touches() {
    let daemon = Daemon::start("");
    let names: Vec<String> = (0..50).map(|n| format!("c{n}")).collect();
    for name in &names {
        fs::write(daemon.dir().join(format!("{name}.comet")), "x").unwrap();
    }
    settle(&daemon);
    let ids: Vec<u64> = names.iter().map(|name| daemon.history(name)[0].0).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn never_tells_half_of_what_a_locking_writer_writes() {
    let daemon = Daemon::start("[history]\nmessages = 10000\n");
    let writers = "for ($i = 0; $i < 500; $i++) file_put_contents(getenv('F'), str_repeat($argv[1], 20000), LOCK_EX);";
    let start = |letter| {
        let mut php = Command::new("php");
        php.args(["-r", writers, letter])
            .env("F", daemon.dir().join("news.comet"));
        php.spawn().unwrap()
    };
    for mut writer in [start("a"), start("b")] {
        assert!(writer.wait().unwrap().success());
    }
    settle(&daemon);
    let told = daemon.history("news");
    assert!(!told.is_empty());
    for (id, data) in told {
        let whole = data == "a".repeat(20_000) || data == "b".repeat(20_000);
        assert!(whole, "message {id} has {} bytes", data.len());
    }
}

#[test]
fn a_lock_that_is_never_released_does_not_silence_a_channel() {
    let daemon = Daemon::start("");
    let file = daemon.dir().join("news.comet");
    fs::write(&file, "x").unwrap();
    settle(&daemon);
    let holder = nix::fcntl::Flock::lock(
        File::open(&file).unwrap(),
        nix::fcntl::FlockArg::LockExclusive,
    )
    .unwrap();
    assert!(run("touch", &[&file]).status.success());
    wait_for("the message", || {
        (daemon.history("news").len() == 2).then_some(())
    });
    drop(holder);
}

/// Waits until the daemon has handled all earlier events of its directory.
///
/// The daemon gets the event of a new empty file after all earlier events, and waits for further events of this file as
/// long as for any other file. The test makes two such files, the second after the message of the first. When the
/// message of the second has arrived, the waiting times of all earlier events are over.
pub(crate) fn settle(daemon: &Daemon) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for _ in 0..2 {
        let channel = format!("settle-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let file = daemon.dir().join(format!("{channel}.comet"));
        File::create_new(&file).unwrap();
        wait_for("the sentinel", || {
            (!daemon.history(&channel).is_empty()).then_some(())
        });
        fs::remove_file(file).unwrap();
    }
}

/// A counter of the daemon.
pub(crate) fn metric(daemon: &Daemon, name: &str) -> u64 {
    let status = Lines::connect(&daemon.socket_path()).ask(r#"{"op":"status"}"#);
    status["metrics"][name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// Runs a program, which must exist.
pub(crate) fn run(program: &str, arguments: &[&Path]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

fn in_shell(dir: &Path, channel: &str, script: &str, out: &Path, away: &Path) {
    let mut command = if *UNDISTURBED {
        let mut command = Command::new("chrt");
        command.args(["--fifo", "1", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.args(["-e", "-c", script]).current_dir(dir);
    command
        .env("F", format!("{channel}.comet"))
        .env("OUT", out)
        .env("AWAY", away);
    let output = command.output().unwrap();
    // `touch` of a directory entry succeeds even if the daemon refuses the entry.
    assert!(output.status.success(), "{script}: {output:?}");
}

/// Whether programs run here without others on their processor. A program that is delayed for more than 2 ms between
/// two calls of one action may rightly cause two messages.
static UNDISTURBED: LazyLock<bool> = LazyLock::new(|| {
    let may = Command::new("chrt").args(["--fifo", "1", "true"]).output();
    may.is_ok_and(|output| output.status.success())
});
