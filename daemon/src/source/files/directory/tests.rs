use std::{
    fs,
    io::Write,
    os::unix::fs::{chown, symlink},
    process::Command,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::{sys::stat::mknod, unistd::mkfifo};

use super::*;

/// Ends the other thread, also when this one fails: a scope waits for all of its threads.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

static NEWS: LazyLock<ChannelName> = LazyLock::new(|| ChannelName::parse("news").unwrap());

struct Fixture {
    root: tempfile::TempDir,
    directory: FilesDirectory,
    terms: FileRules,
}

fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let config = Config::parse("[files]\nmax_bytes = 10").unwrap();
    Fixture {
        directory: FilesDirectory::open(root.path()).unwrap(),
        terms: FileRules::new(&config),
        root,
    }
}

impl Fixture {
    fn read(&self, file: &str) -> Result<Box<[u8]>, Unread> {
        self.read_as(file, false, Patience::Some)
    }

    fn read_as(&self, file: &str, written: bool, patience: Patience) -> Result<Box<[u8]>, Unread> {
        let terms = self.terms.of(&NEWS);
        let read = self.directory.read(file.as_ref(), terms, written, patience);
        read.map(|(content, _)| content)
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.root.path().join(file)
    }
}

#[test]
fn reads_up_to_the_limit() {
    let f = fixture();
    for content in ["", "x", "0123456789"] {
        fs::write(f.path("a"), content).unwrap();
        assert_eq!(&*f.read("a").unwrap(), content.as_bytes());
    }
    fs::write(f.path("a"), "0123456789+").unwrap();
    let too_large = FileRefusal::TooLarge { size: 11, max: 10 };
    assert_eq!(f.read("a"), Err(Unread::Refused(too_large)));
    assert_eq!(f.read("b"), Err(Unread::Gone));
}

#[test]
fn refuses_what_is_no_regular_file_without_opening_it() {
    let f = fixture();
    fs::write(f.path("target"), "secret").unwrap();
    symlink(f.path("target"), f.path("link")).unwrap();
    symlink(f.path("nowhere"), f.path("dangling")).unwrap();
    fs::create_dir(f.path("folder")).unwrap();
    mkfifo(&f.path("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(f.path("socket")).unwrap();
    for (file, kind) in [
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("folder", "a directory"),
        ("fifo", "a FIFO"),
        ("socket", "a socket"),
    ] {
        assert_eq!(
            f.read(file),
            Err(Unread::Refused(FileRefusal::Kind(kind))),
            "{file}"
        );
    }
    match mknod(
        &f.path("null"),
        SFlag::S_IFCHR,
        Mode::S_IRWXU,
        nix::sys::stat::makedev(1, 3),
    ) {
        Ok(()) => assert_eq!(
            f.read("null"),
            Err(Unread::Refused(FileRefusal::Kind("a device")))
        ),
        Err(_) => println!("skipped the device: only root may make one"),
    }
}

#[test]
fn takes_nothing_under_a_second_name() {
    let f = fixture();
    fs::write(f.path("a"), "x").unwrap();
    fs::hard_link(f.path("a"), f.path("b")).unwrap();
    assert_eq!(f.read("b"), Err(Unread::Refused(FileRefusal::Links(2))));
    fs::write(f.path("a"), "").unwrap();
    assert_eq!(
        f.read("b"),
        Err(Unread::Refused(FileRefusal::Links(2))),
        "it would tell the channel of b something"
    );
    fs::remove_file(f.path("a")).unwrap();
    assert_eq!(&*f.read("b").unwrap(), b"");
}

#[test]
fn waits_for_a_writer_that_holds_the_lock_unless_told_otherwise() {
    let f = fixture();
    fs::write(f.path("a"), "x").unwrap();
    let writer = File::options().write(true).open(f.path("a")).unwrap();
    let lock = Flock::lock(writer, FlockArg::LockExclusive).unwrap();
    assert_eq!(f.read("a"), Err(Unread::Busy));
    let impatient = f.read_as("a", true, Patience::None);
    assert_eq!(&*impatient.unwrap(), b"x");
    drop(lock);
    assert_eq!(&*f.read("a").unwrap(), b"x");
}

#[test]
fn an_empty_file_is_left_to_its_writer_but_not_to_a_lock_after_a_touch() {
    let f = fixture();
    let file = File::create(f.path("a")).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
    let read = |written| f.read_as("a", written, Patience::Some);
    assert_eq!(read(true), Err(Unread::Busy));
    assert_eq!(read(false), Ok(Box::default()));
    drop(lock);
    assert_eq!(read(true), Ok(Box::default()));
}

#[test]
fn takes_files_of_root_its_own_user_and_those_allowed() {
    let mut terms = fixture().terms;
    terms.own_user = 7;
    let takes = |terms: &FileRules, uid| terms.of(&NEWS).check_owner(uid).is_ok();
    assert_eq!([0, 7, 8].map(|uid| takes(&terms, uid)), [true, true, false]);
    terms.allow = AllowList::parse(["user:8"]).unwrap();
    assert_eq!([8, 9].map(|uid| takes(&terms, uid)), [true, false]);
    terms.allow_any = true;
    assert!(takes(&terms, 9));
}

#[test]
fn a_rule_takes_the_place_of_the_list() {
    let rules = "demo = true\n[files]\nallow = [\"user:8\"]\n\
        [[channel]]\nprefix = \"a.\"\nfiles = [\"user:9\"]\n[[channel]]\nprefix = \"a.b\"\nfiles = []\n";
    let mut terms = FileRules::new(&Config::parse(rules).unwrap());
    terms.own_user = 7;
    let check = |channel: &str, uid| {
        let channel = ChannelName::parse(channel).unwrap();
        terms.of(&channel).check_owner(uid)
    };
    for uid in [0, 7, 8, 9, 10] {
        assert!(
            check("b", uid).is_ok(),
            "demo takes all where no rule is: {uid}"
        );
    }
    assert_eq!([0, 7, 9].map(|uid| check("a.x", uid).is_ok()), [true; 3]);
    assert_eq!(
        check("a.x", 8),
        Err(FileRefusal::Rule {
            uid: 8,
            prefix: "a.".into()
        })
    );
    assert_eq!(
        check("a.b", 9),
        Err(FileRefusal::Rule {
            uid: 9,
            prefix: "a.b".into()
        })
    );
    assert!(check("a.b", 0).is_ok());
}

#[test]
fn follows_no_link_to_a_directory_and_notices_another_one() {
    let f = fixture();
    let (real, link) = (f.path("real"), f.path("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    assert!(FilesDirectory::open(&link).is_err());
    let directory = FilesDirectory::open(&real).unwrap();
    assert!(directory.is_at(&real));
    fs::rename(&real, f.path("moved")).unwrap();
    assert!(!directory.is_at(&real));
    fs::create_dir(&real).unwrap();
    assert!(!directory.is_at(&real));
}

/// What is mounted over a file may say of itself that it is root's.
#[test]
fn takes_nothing_that_is_mounted_over_a_file() {
    let f = fixture();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    for content in ["secret", ""] {
        let (file, source) = (f.path("a"), elsewhere.path().join("a"));
        fs::write(&file, "mine").unwrap();
        fs::write(&source, content).unwrap();
        let mount = |arguments: &[&std::path::Path]| {
            let status = Command::new("mount").args(arguments).status();
            status.is_ok_and(|status| status.success())
        };
        if !mount(&["--bind".as_ref(), &source, &file]) {
            return println!("skipped: may not mount here");
        }
        let read = f.read("a");
        assert!(
            Command::new("umount")
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
        let over = Err(Unread::Refused(FileRefusal::Kind("a mount point")));
        assert_eq!(read, over, "{content:?}");
        assert_eq!(&*f.read("a").unwrap(), b"mine");
    }
}

/// Somebody who may rename here puts another thing at the name, again and again, between any two calls of ours.
#[test]
fn whatever_is_swapped_in_no_byte_of_it_is_read() {
    const EVIL: u32 = 65534;
    let f = fixture();
    let stranger = nix::unistd::geteuid().is_root();
    if !stranger {
        println!("without files of another user: only root may make them");
    }
    fs::write(f.path("secret"), "secret").unwrap();
    let stop = AtomicBool::new(false);
    let step = |n: u64| -> std::io::Result<()> {
        let new = f.path("new");
        match n % 6 {
            0 | 2 => fs::write(&new, "good")?,
            1 if stranger => {
                fs::write(&new, "evil")?;
                chown(&new, Some(EVIL), None)?;
            }
            3 => symlink(f.path("secret"), &new)?,
            4 => fs::hard_link(f.path("secret"), &new)?,
            _ => mkfifo(&new, Mode::S_IRWXU)?,
        }
        fs::rename(&new, f.path("a"))
    };
    let swap = || {
        for n in 0u64.. {
            step(n).unwrap();
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    let (mut read, mut refused) = (0, 0);
    thread::scope(|scope| {
        let swapping = scope.spawn(swap);
        let _stop = StopAtEnd(&stop);
        while read < 5_000 || refused < 5_000 {
            assert!(!swapping.is_finished(), "its thread failed");
            for patience in [Patience::Some, Patience::None] {
                match f.read_as("a", true, patience) {
                    Ok(content) => {
                        assert_eq!(&*content, b"good");
                        read += 1;
                    }
                    Err(Unread::Refused(_)) => refused += 1,
                    Err(_) => {}
                }
            }
        }
    });
}

/// It is given away after its owner was checked, and its new owner writes into it.
#[test]
fn of_a_file_that_is_given_away_no_byte_of_the_new_owner_is_read() {
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: only root may give files away");
    }
    let f = fixture();
    let stop = AtomicBool::new(false);
    let give_away = || {
        while !stop.load(Ordering::Relaxed) {
            let new = f.path("new");
            fs::write(&new, "good").unwrap();
            fs::rename(&new, f.path("a")).unwrap();
            chown(f.path("a"), Some(65534), None).unwrap();
            fs::write(f.path("a"), "evil").unwrap();
        }
    };
    let (mut read, mut refused) = (0, 0);
    thread::scope(|scope| {
        let giving = scope.spawn(give_away);
        let _stop = StopAtEnd(&stop);
        while read < 2_000 || refused < 2_000 {
            assert!(!giving.is_finished(), "its thread failed");
            for patience in [Patience::Some, Patience::None] {
                match f.read_as("a", true, patience) {
                    Ok(content) => {
                        assert!(!content.contains(&b'e'), "{content:?}");
                        read += 1;
                    }
                    Err(Unread::Refused(_)) => refused += 1,
                    Err(_) => {}
                }
            }
        }
    });
}

/// Whatever the size is said to be while it is read, no more than the limit is taken, and no part for the whole.
#[test]
fn of_a_file_that_grows_and_shrinks_all_the_time_no_part_is_taken_for_the_whole() {
    let f = fixture();
    let path = f.path("a");
    fs::write(&path, "").unwrap();
    let stop = AtomicBool::new(false);
    let write = || {
        let mut file = File::options().append(true).open(&path).unwrap();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..4 {
                file.write_all(b"0123").unwrap();
            }
            file.set_len(0).unwrap();
            file.set_len(1 << 40).unwrap(); // costs nothing, and is larger than this machine's memory
            file.set_len(0).unwrap();
        }
    };
    let (mut read, mut refused) = (0, 0);
    thread::scope(|scope| {
        let writing = scope.spawn(write);
        let _stop = StopAtEnd(&stop);
        while read < 2_000 || refused < 2_000 {
            assert!(!writing.is_finished(), "its thread failed");
            match f.read_as("a", true, Patience::None) {
                Ok(content) => {
                    assert!(content.len() <= 10, "{} bytes", content.len());
                    read += 1;
                }
                Err(Unread::Refused(FileRefusal::TooLarge { size, max })) => {
                    assert!(size > max as u64);
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    });
}
