//! Tests the class on the command line: one script has to print the same over FFI and over the extension.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Command,
    thread,
    time::Duration,
};

use super::{
    super::support::{Daemon, library_dir, repository, run, steps},
    BOTH, Over, extension, php,
};

#[test]
fn the_class_is_the_same_over_ffi_and_over_the_extension() {
    let (daemon, spool) = (Daemon::start(), tempfile::tempdir().unwrap());
    let [ffi, extension] = BOTH.map(|over| {
        let mut same = php(over, "same.php");
        run(same.env("TMPDIR", spool.path()).arg(daemon.dsn()))
    });
    assert_eq!(ffi, extension);
    assert!(ffi.ends_with("\nflushed\n"), "{ffi}");
    let binary = ["YQD/", "YQD/", "YQD/", "YQD/"];
    assert_eq!(daemon.data("binary"), binary);
    let each = ["hi", "", "later", "gathered"];
    assert_eq!(
        daemon.data("orders"),
        ["first", "first"],
        "a key of each run"
    );
    assert_eq!(daemon.data("php"), each.repeat(2));
    assert!(ffi.contains("\nNULL\nbool(true)\nbool(true)\n"), "{ffi}");
    assert_eq!(daemon.data("two"), ["both"; 2]);
    assert_eq!(fs::read(daemon.dir().join("file.comet")).unwrap(), b"a\0b");
}

#[test]
fn a_history_that_is_malformed_is_an_exception() {
    let directory = tempfile::tempdir().unwrap();
    for (n, rest) in ["junk", "\"gap\":false}", "\"gap\":false,\"messages\":5}"]
        .iter()
        .enumerate()
    {
        let path = directory.path().join(n.to_string());
        let listener = UnixListener::bind(&path).unwrap();
        let answer = format!("{{\"ok\":true,\"cursor\":\"7\",{rest}\n");
        let server = thread::spawn(move || {
            for _ in BOTH {
                let (client, _) = listener.accept().unwrap();
                for _ in BufReader::new(&client).lines().map_while(Result::ok) {
                    (&client).write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        for over in BOTH {
            let dsn = format!("unix:{}", path.display());
            assert_eq!(
                run(php(over, "malformed.php").arg(dsn)),
                "Comet\\Exception -10: the daemon's answer to history is malformed\n",
                "{over:?} {rest}"
            );
        }
        server.join().unwrap();
    }
}

#[test]
fn a_stopped_daemon_is_a_timeout_and_a_killed_one_is_found_again() {
    for over in BOTH {
        let mut daemon = Daemon::start();
        let dsn = daemon.dsn_within(Duration::from_secs(1));
        steps(php(over, "faults.php").arg(dsn), |line| match line {
            "stop" => daemon.pause(),
            "continue" => daemon.resume(),
            "kill" => daemon.kill(),
            "start" => daemon.go(),
            line => panic!("{line}"),
        });
        // The second message was under way when the wait for its answer ended. It may have arrived.
        let outcomes = [vec!["before", "back"], vec!["before", "stopped", "back"]];
        let data = daemon.data("news");
        assert!(
            outcomes.iter().any(|expected| data == *expected),
            "{over:?}: {data:?}"
        );
    }
}

#[test]
fn while_the_daemon_is_away_messages_wait_in_the_spool_and_keep_their_order() {
    for over in BOTH {
        let mut daemon = Daemon::start();
        let dsn = daemon.dsn_within(Duration::from_secs(5));
        steps(php(over, "spool.php").arg(dsn), |line| match line {
            "stop" => daemon.pause(),
            "continue" => daemon.resume_and_catch_up(),
            "kill" => {
                let before = ["before", "stopped", "stopped, too", "continued"];
                assert_eq!(daemon.data("news"), before, "{over:?}");
                daemon.kill();
            }
            "start" => daemon.go(),
            line => panic!("{line}"),
        });
        let waited = ["nobody", "later", "gathered", "of another object", "back"];
        let data = daemon.data("news");
        assert!(
            data.ends_with(&waited.map(String::from)),
            "{over:?}: {data:?}"
        );
    }
}

#[test]
fn a_fork_never_shares_a_connection_or_a_buffer() {
    for over in BOTH {
        let daemon = Daemon::start();
        run(php(over, "fork.php").arg(daemon.dsn()));
        assert_eq!(
            daemon.data("news"),
            ["parent", "child", "gathered", "parent again"],
            "{over:?}"
        );
    }
}

#[test]
fn a_panic_is_an_exception_and_php_lives_on() {
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&clock);
    run(cc.arg(repository().join("tests/c/clock.c")));
    for over in BOTH {
        let daemon = Daemon::start();
        let mut script = php(over, "panic.php");
        // PHP loads libraries with RTLD_DEEPBIND, which ignores every clock except libc's. If the library is already
        // loaded, PHP uses the loaded one.
        let library = library_dir().join("libcomet.so.1");
        let preload = format!("{}:{}", clock.display(), library.display());
        let output = run(script
            .env("LD_PRELOAD", preload)
            .arg(daemon.dsn())
            .arg(&clock));
        assert_eq!(
            output, "Comet\\Exception -12: fault in libcomet, please report it\n",
            "{over:?}"
        );
        assert_eq!(daemon.data("news"), ["before", "after"], "{over:?}");
    }
}

#[test]
fn the_extensions_own_tests_pass() {
    let daemon = Daemon::start();
    let sources = extension().ancestors().nth(2).unwrap();
    let mut make = Command::new("make");
    make.current_dir(sources)
        .arg("test")
        .env("NO_INTERACTION", "1")
        .env("COMET_SOCKET", daemon.socket());
    let output = run(make.env("LD_LIBRARY_PATH", library_dir()));
    let files = fs::read_dir(repository().join("php-ext-example/ext/tests")).unwrap();
    let count = files
        .filter(|file| {
            file.as_ref()
                .unwrap()
                .path()
                .extension()
                .is_some_and(|e| e == "phpt")
        })
        .count();
    let passed = output
        .lines()
        .find(|line| line.starts_with("Tests passed"))
        .unwrap();
    assert!(
        passed.contains(&format!(": {count:>4} (100.0%)")),
        "{output}"
    );
}

#[test]
fn the_stub_says_what_the_extension_has() {
    // PHP reads both: the stub without the extension, and the extension itself.
    let script = repository().join("tests/php/shape.php");
    let stub = repository().join("php-ext-example/ext/comet.stub.php");
    let mut from_stub = Command::new("php");
    let stub = run(from_stub.arg(&script).arg(stub));
    let native = run(&mut php(Over::Extension, "shape.php"));
    assert_eq!(stub, native);
    assert_eq!(native, run(&mut php(Over::Ffi, "shape.php")));
    assert!(
        native.contains("public publish(string $channel, string $data = '', int $flags = 0, string $name = '', ?string $key = NULL): ?int"),
        "{native}"
    );
}

/// PHP settings of hosting providers, combined with each way to reach the library.
fn careful_setups() -> Vec<(&'static str, Vec<String>)> {
    let package = repository().join("php-ext-example");
    let package = package.display();
    let tests = repository().join("tests/php");
    let basedir = format!("open_basedir={package}:{}", tests.display());
    let disabled = "disable_functions=getenv,is_file,file_exists,function_exists,error_log,trigger_error,putenv,ini_set";
    let preload = [
        "opcache.enable_cli=1".to_owned(),
        "opcache.preload_user=root".to_owned(),
        "ffi.enable=preload".to_owned(),
        format!("opcache.preload={package}/preload.php"),
        format!("ffi.preload={package}/comet_ffi.h"),
    ];
    let extension = format!("extension={}", extension().display());
    let with = |more: &[&str], of: &[String]| {
        let more = more.iter().map(|setting| (*setting).to_owned());
        more.chain(of.iter().cloned()).collect()
    };
    vec![
        ("FFI", with(&["ffi.enable=1"], &[])),
        ("FFI, open_basedir", with(&["ffi.enable=1", &basedir], &[])),
        (
            "FFI, functions disabled",
            with(&["ffi.enable=1", disabled, &basedir], &[]),
        ),
        ("preload", with(&[], &preload)),
        ("preload, open_basedir", with(&[&basedir], &preload)),
        ("preload, functions disabled", with(&[disabled], &preload)),
        ("extension", with(&[&extension], &[])),
        (
            "extension, open_basedir",
            with(&[&extension, &basedir, disabled], &[]),
        ),
    ]
}

#[test]
fn no_warning_and_no_handler_that_throws_fails_a_request() {
    let daemon = Daemon::start();
    for (setup, settings) in careful_setups() {
        let script = repository().join("tests/php/careful.php");
        let mut careful = Command::new("php");
        careful.env("LD_LIBRARY_PATH", library_dir());
        for setting in [
            "error_reporting=-1",
            "display_errors=stderr",
            "assert.exception=1",
        ] {
            careful.args(["-d", setting]);
        }
        for setting in &settings {
            careful.args(["-d", setting]);
        }
        let output = careful.arg(script).arg(daemon.dsn()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text, "published\nsigned\ngone on\n", "{setup}: {errors}");
        assert!(output.status.success(), "{setup}: {errors}");
    }
    let expected = careful_setups().len();
    assert_eq!(daemon.data("careful"), vec!["hi"; expected]);
}

#[test]
fn a_file_of_another_user_is_named_with_its_owner() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can act as another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(directory.path().join("news.comet"), "").unwrap();
    let script = "require $argv[1]; $comet = new Comet\\Client('unix:?dir=' . $argv[2]);
        foreach ([fn () => $comet->touch('news'), fn () => $comet->write('news', '')] as $call) {
            try { $call(); } catch (Comet\\FileException $e) { echo $e->getMessage(), \"\\n\"; }
        }";
    let mut other = Command::new("setpriv");
    other.args([
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "php",
        "-r",
        script,
    ]);
    // Other users may not be allowed to read the checkout.
    let package = directory.path().join("php");
    let mut copy = Command::new("cp");
    run(copy
        .arg("-R")
        .arg(repository().join("php-ext-example"))
        .arg(&package));
    other.arg(package.join("autoload.php"));
    other.arg(directory.path());
    let library = directory.path().join("libcomet.so.1");
    fs::copy(library_dir().join("libcomet.so.1"), &library).unwrap();
    let output = run(other.env("COMET_LIBRARY", library));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 2, "{output}");
    for line in lines {
        assert!(line.contains("(the file belongs to root;"), "{line}");
    }
}

#[test]
fn a_secret_can_be_read_from_its_file_as_it_is() {
    let script = "require $argv[1]; $secret = str_repeat('s', 32);
        foreach ([\"\", \"\\n\", \"\\r\\n\", \"\\n\\n\"] as $end) { $all[] = Comet\\Token::mint($secret . $end, 'k', ['a']); }
        echo count(array_unique($all)), \"\\n\";
        try { Comet\\Token::mint(str_repeat('s', 31) . \"\\n\", 'k'); } catch (Comet\\ArgumentException $e) { echo $e->getMessage(); }";
    let autoload = repository().join("php-ext-example/autoload.php");
    let output = run(Command::new("php").args(["-r", script]).arg(autoload));
    // There are two tokens if the clock's second changes between the first and the last token.
    let (count, refusal) = output.split_once('\n').unwrap();
    assert!(["1", "2"].contains(&count), "{output}");
    assert_eq!(refusal, "secret must have 32 bytes at least");
}

#[test]
fn a_php_without_ffi_and_extension_says_so() {
    let mut bare = Command::new("php");
    bare.arg("-n")
        .arg(repository().join("php-ext-example/examples/cron.php"));
    let output = bare.output().unwrap();
    assert_eq!(output.status.code(), Some(75));
    let text = String::from_utf8_lossy(&output.stderr);
    let manual = repository().join("php-ext-example/README.md");
    let expected = format!(
        "cannot publish: PHP has neither the comet extension nor FFI (see {})\n",
        manual.display()
    );
    assert_eq!(text, expected);
    assert!(manual.is_file());
}

#[test]
fn cron_and_the_shell_publish_as_their_examples_say() {
    let daemon = Daemon::start();
    let examples = repository().join("php-ext-example/examples");
    for over in BOTH {
        let mut cron = php(over, "../../php-ext-example/examples/cron.php");
        assert_eq!(run(cron.env("COMET_SOCKET", daemon.socket())), "");
    }
    for channel in ["load", "load.5", "load.15"] {
        let data = daemon.data(channel);
        assert!(
            data.len() == 2 && data[0].starts_with("{\"load\":"),
            "{channel}: {data:?}"
        );
    }
    let output = php(Over::Ffi, "../../php-ext-example/examples/cron.php")
        .env("COMET_SOCKET", "/nonexistent/comet.sock")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .starts_with("cannot publish: cannot connect to /nonexistent")
    );

    let mut shell = Command::new(examples.join("shell.sh"));
    let path = format!(
        "{}:{}",
        Daemon::program().parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let answers = run(shell
        .arg(daemon.dir())
        .arg(daemon.socket())
        .env("PATH", path));
    let last = super::super::support::wait_for("the files' messages", || {
        // touch and mv follow each other at once, and may become one message.
        let history = daemon.history("news");
        let by_file = history.iter().any(|(_, data)| data == "by file");
        (by_file && history.len() >= 3).then_some(history)
    });
    for (line, data) in answers.lines().zip(["by command", "by socket"]) {
        let id = line
            .trim_start_matches("{\"ok\":true,\"id\":")
            .trim_end_matches('}')
            .parse()
            .unwrap();
        assert!(last.contains(&(id, data.into())), "{line}: {last:?}");
    }
    assert_eq!(answers.lines().count(), 2);
}
