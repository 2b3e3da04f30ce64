use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::Path,
};

use comet_client::Spool as Publisher;
use comet_proto::{ChannelName, Cursor};

use super::*;
use crate::{
    broker::Local,
    hub::{HistoryConfig, Hub},
};

struct Fixture {
    root: tempfile::TempDir,
    spool: Spool,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
}

fn fixture(config: &str) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let (hub, metrics) = (
        Hub::new(HistoryConfig::default(), 1),
        Arc::new(Metrics::default()),
    );
    let config = Config::parse(config).unwrap();
    let path = root.path().join("spool");
    let spool = Spool::open(path, &config, Local::new(hub.clone()), metrics.clone()).unwrap();
    Fixture {
        root,
        spool,
        hub,
        metrics,
    }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("spool").join(name)
    }

    fn put(&self, name: &str, line: &str) {
        fs::write(self.path(name), line).unwrap();
    }

    async fn publish(&mut self) -> Vec<String> {
        self.spool.publish().await;
        self.data()
    }

    fn data(&self) -> Vec<String> {
        let news = [ChannelName::parse("news").unwrap()];
        let messages = self.hub.since(&news, Cursor(0)).messages;
        let data = messages
            .iter()
            .map(|m| String::from_utf8(m.data.to_vec()).unwrap());
        data.collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "limits" && name != ".lock")
            .collect();
        names.sort();
        names
    }
}

fn line(data: &str) -> String {
    format!("{{\"op\":\"publish\",\"channel\":\"news\",\"data\":\"{data}\"}}\n")
}

#[tokio::test]
async fn publishes_in_the_order_of_the_names_and_removes_the_files() {
    let mut f = fixture("");
    let mut publisher = Publisher::open(&f.path("")).unwrap();
    let expected: Vec<String> = (0..90).map(|i| i.to_string()).collect();
    for data in &expected {
        publisher.put(line(data).as_bytes()).unwrap();
    }
    assert_eq!(f.publish().await, expected);
    assert_eq!((f.files(), f.metrics.published_spool.get()), (vec![], 90));
    f.put("b.msg1", &line("b"));
    f.put("a.msg1", &line("a"));
    assert_eq!(f.publish().await[90..], ["a", "b"]);
}

#[tokio::test]
async fn the_key_or_else_the_name_of_the_file_prevents_a_second_publish() {
    let mut f = fixture("");
    let keyed = "{\"op\":\"publish\",\"channel\":\"news\",\"data\":\"keyed\",\"key\":\"k\"}\n";
    for _ in 0..2 {
        f.put("a.msg1", &line("hand-made"));
        f.put("b.msg1", keyed);
        f.put("c.msg1", keyed);
        assert_eq!(f.publish().await, ["hand-made", "keyed"]);
        assert!(f.files().is_empty());
    }
}

#[tokio::test]
async fn invalid_files_are_renamed_and_the_others_are_published() {
    let mut f = fixture("[socket]\nmax_line = 1024");
    let long = "x".repeat(121);
    let bad = [
        ("a-text.msg1", "hello\n".to_owned()),
        ("b-half.msg1", line("x").trim_end().to_owned()),
        ("c-two.msg1", line("x") + &line("y")),
        ("d-op.msg1", "{\"op\":\"status\"}\n".to_owned()),
        ("e-empty.msg1", String::new()),
        (
            "f-channel.msg1",
            "{\"op\":\"publish\",\"channel\":\"a/b\"}\n".to_owned(),
        ),
        ("g-large.msg1", line(&"x".repeat(1024))),
        (&(long + "12345678.msg1"), line("no key fits")),
    ];
    for (name, content) in &bad {
        f.put(name, content);
    }
    f.put("h-good.msg1", &line("good"));
    f.put(".unfinished.msg1", &line("half"));
    f.put("other", "not ours");
    assert_eq!(f.publish().await, ["good"]);
    let mut expected: Vec<String> = bad
        .iter()
        .map(|(name, _)| format!("{name}.refused"))
        .collect();
    expected.extend([".unfinished.msg1".into(), "other".into()]);
    expected.sort();
    assert_eq!(f.files(), expected);
    assert_eq!(f.metrics.spool_refused.get(), 8);
    assert_eq!(f.publish().await, ["good"], "once");
}

#[tokio::test]
async fn nothing_is_read_through_a_link_or_another_kind_of_file() {
    let mut f = fixture("");
    let secret = f.root.path().join("secret");
    fs::write(&secret, line("secret")).unwrap();
    symlink(&secret, f.path("a.msg1")).unwrap();
    fs::hard_link(&secret, f.path("b.msg1")).unwrap();
    fs::create_dir(f.path("c.msg1")).unwrap();
    nix::unistd::mkfifo(&f.path("d.msg1"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(f.path("e.msg1")).unwrap();
    symlink("/dev/zero", f.path("f.msg1")).unwrap();
    assert!(f.publish().await.is_empty());
    let aside = ["a", "b", "c", "d", "e", "f"].map(|name| format!("{name}.msg1.refused"));
    assert_eq!(f.files(), aside);
    assert_eq!(fs::read_to_string(&secret).unwrap(), line("secret"));
}

#[tokio::test]
async fn only_files_of_allowed_owners_are_published() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    const NOBODY: u32 = 65_534;
    let rule = |who: &str| format!("[[channel]]\nprefix = \"ne\"\nsocket = [{who}]");
    let lists = |spool: &str, socket: &str| {
        format!("[spool]\nallow = [{spool}]\n[socket]\nallow = [{socket}]")
    };
    let nobody = "\"user:65534\"";
    let cases = [
        (String::new(), vec!["theirs", "root's"]),
        (lists("", "\"user:0\""), vec!["root's"]),
        (lists("", nobody), vec!["theirs"]),
        (lists(nobody, "\"user:0\""), vec!["theirs"]),
        (lists("\"user:0\"", "\"any\""), vec!["root's"]),
        (rule("\"user:0\""), vec!["root's"]),
        (rule(nobody), vec!["theirs"]),
        (rule(""), vec![]),
    ];
    for (config, taken) in cases {
        let mut f = fixture(&config);
        f.put("a.msg1", &line("theirs"));
        chown(f.path("a.msg1"), Some(NOBODY), None).unwrap();
        f.put("b.msg1", &line("root's"));
        assert_eq!(f.publish().await, taken, "{config}");
        assert_eq!(f.files().len(), 2 - taken.len(), "{config}");
    }
}

#[tokio::test]
async fn a_second_daemon_waits_until_the_first_has_stopped() {
    let mut f = fixture("");
    let config = Config::default();
    let open = |f: &Fixture| {
        Spool::open(
            f.path("").join("."),
            &config,
            Local::new(f.hub.clone()),
            f.metrics.clone(),
        )
        .unwrap()
    };
    let mut second = open(&f);
    f.put("a.msg1", &line("a"));
    second.publish().await;
    assert!(f.data().is_empty());
    f.spool.directory = None;
    second.check_directory();
    second.publish().await;
    assert_eq!(f.data(), ["a"]);
}

#[tokio::test]
async fn a_directory_that_was_replaced_is_found() {
    let mut f = fixture("");
    fs::remove_dir_all(f.path("")).unwrap();
    f.spool.check_directory();
    f.put("a.msg1", &line("a"));
    assert_eq!(f.publish().await, ["a"]);
}

#[tokio::test]
async fn the_newest_thousand_refused_files_are_kept() {
    let mut f = fixture("");
    f.put(".young.msg1", "half");
    for i in 0..1003 {
        f.put(&format!("{i:04}.msg1.refused"), "");
    }
    f.spool.check_directory();
    let files = f.files();
    assert_eq!(files.len(), 1001);
    assert_eq!(files[..2], [".young.msg1", "0003.msg1.refused"]);
}

#[tokio::test]
async fn entries_that_others_planted_at_the_daemons_names_are_replaced() {
    type Plant = fn(&Path);
    let plants: [(&str, Plant); 6] = [
        ("a file", |path| fs::write(path, "x").unwrap()),
        ("a folder", |path| fs::create_dir(path).unwrap()),
        ("a full folder", |path| {
            fs::create_dir_all(path.join("full/of")).unwrap()
        }),
        ("a link", |path| symlink("/etc/passwd", path).unwrap()),
        ("a link to nothing", |path| {
            symlink("nothing", path).unwrap()
        }),
        ("a FIFO", |path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()
        }),
    ];
    for (what, plant) in plants {
        for name in [".lock", "limits"] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("spool");
            fs::create_dir(&path).unwrap();
            plant(&path.join(name));
            let (hub, metrics) = (Hub::new(HistoryConfig::default(), 1), Arc::default());
            let config = format!("[spool]\ndir = \"{}\"\nmax_files = 7", path.display());
            let config = Config::parse(&config).unwrap();
            let spool = Spool::open(path.clone(), &config, Local::new(hub), metrics).unwrap();
            assert!(spool.directory.is_some(), "{what} at {name}");
            let limits = fs::read_to_string(path.join("limits")).unwrap();
            assert_eq!(limits, "67108864 7\n", "{what} at {name}");
        }
    }
    assert!(fs::read_to_string("/etc/passwd").unwrap().contains("root"));
}

#[tokio::test]
async fn an_existing_directory_gets_a_mode_that_protects_messages() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    for (before, after) in [
        (0o777, 0o1777),
        (0o2770, 0o3770),
        (0o070, 0o1770),
        (0o700, 0o700),
    ] {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("spool");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(before)).unwrap();
        let config = Config::default();
        let hub = Hub::new(HistoryConfig::default(), 1);
        let spool = Spool::open(path.clone(), &config, Local::new(hub), Arc::default()).unwrap();
        assert!(spool.directory.is_some());
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        assert_eq!(mode, after, "{before:o} became {mode:o}");
    }
}

/// A publisher who knows the name of a refused file of another user must not be able to replace that file.
#[tokio::test]
async fn a_refused_file_never_replaces_another() {
    let mut f = fixture("");
    for content in ["of one user", "of another", "of a third"] {
        f.put("a.msg1", content);
        f.publish().await;
    }
    let files = f.files();
    let mut kept: Vec<_> = files
        .iter()
        .map(|name| fs::read_to_string(f.path(name)).unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["of a third", "of another", "of one user"]);
    let is_refused = |name: &String| name.ends_with(".refused");
    assert!(files.iter().all(is_refused), "{files:?}");
    assert_eq!(
        fs::read_to_string(f.path("a.msg1.refused")).unwrap(),
        "of one user"
    );
}

/// These entries have the names of messages, and the usual new name with `.refused` is too long or taken.
#[tokio::test]
async fn a_refused_file_that_cannot_be_renamed_does_not_block_the_spool() {
    let mut f = fixture("");
    let longest = "l".repeat(250) + ".msg1";
    f.put(&longest, "no message");
    fs::create_dir_all(f.path("folder.msg1/full/of")).unwrap();
    f.put("taken.msg1", "no message");
    fs::create_dir_all(f.path("taken.msg1.refused/full/of")).unwrap();
    fs::create_dir(f.path("both.msg1")).unwrap();
    f.put("both.msg1.refused", "");
    f.put("-.msg1", "no message");
    f.put(".msg1", "hidden");
    let odd = OsStr::from_bytes(b"\xff\n\x1b[31m.msg1");
    fs::write(f.path("").join(odd), line("no key fits")).unwrap();
    f.put("zz.msg1", &line("good"));
    assert_eq!(f.publish().await, ["good"]);
    let entries = fs::read_dir(f.path("")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let stay: Vec<_> = names
        .filter(|name| name.as_bytes().ends_with(b".msg1") && name != ".msg1")
        .collect();
    assert!(stay.is_empty() && f.spool.stuck.is_empty(), "{stay:?}");
}

#[tokio::test]
async fn a_removed_lock_file_is_created_again() {
    let mut f = fixture("");
    fs::remove_file(f.path(".lock")).unwrap();
    f.spool.check_directory();
    assert!(f.path(".lock").is_file());
    f.put("a.msg1", &line("a"));
    assert_eq!(f.publish().await, ["a"]);
}

#[test]
fn a_configured_directory_that_cannot_be_used_is_an_error() {
    let (hub, metrics) = (
        Hub::new(HistoryConfig::default(), 1),
        Arc::new(Metrics::default()),
    );
    let open = |config: &str| {
        let config = Config::parse(config).unwrap();
        let path = Path::new("/no/such/spool").to_owned();
        Spool::open(path, &config, Local::new(hub.clone()), metrics.clone())
    };
    let error = open("[spool]\ndir = \"/no/such/spool\"")
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "cannot create directory /no/such/spool: No such file or directory"
    );
    assert!(open("").is_ok_and(|spool| spool.directory.is_none() && spool.failure_logged));
}
