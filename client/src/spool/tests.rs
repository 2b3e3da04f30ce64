use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
};

use super::*;

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn spool() -> (tempfile::TempDir, PathBuf, Spool) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("comet.spool");
    let spool = Spool::open(&path).unwrap();
    (root, path, spool)
}

#[test]
fn the_spool_is_beside_the_socket_unless_a_path_is_set() {
    let path = |socket: &str| spool_path(None, Path::new(socket));
    assert_eq!(
        path("/run/comet/comet.sock"),
        Path::new("/run/comet/comet.spool")
    );
    assert_eq!(path("/run/x.y"), Path::new("/run/x.y.spool"));
    assert_eq!(path("comet"), Path::new("comet.spool"));
    let named = spool_path(Some(Path::new("/a")), Path::new("/run/comet.sock"));
    assert_eq!(named, Path::new("/a"));
}

#[test]
fn message_files_are_complete_ordered_and_readable_only_by_the_daemon() {
    let (_root, path, mut spool) = spool();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o3770);
    let put: Vec<String> = (0..50)
        .map(|i| spool.put(format!("{i}\n").as_bytes()).unwrap())
        .collect();
    assert_eq!(names(&path), put, "names sort as they were put");
    for (i, name) in put.iter().enumerate() {
        assert_eq!(
            fs::read_to_string(path.join(name)).unwrap(),
            format!("{i}\n")
        );
        assert_eq!(
            fs::metadata(path.join(name)).unwrap().mode() & 0o7777,
            0o640
        );
    }
    assert_eq!(spool.get(&put[7]).unwrap(), b"7\n");
    spool.remove(&put[7]);
    assert!(!spool.has(&put[7]) && spool.has(&put[8]) && spool.get(&put[7]).is_none());
}

#[test]
fn a_full_spool_refuses_messages_until_it_has_room_again() {
    let (_root, path, mut spool) = spool();
    spool.limits = SpoolLimits {
        bytes: 10,
        files: 3,
    };
    let first = spool.put(b"1\n").unwrap();
    spool.put(b"2\n").unwrap();
    assert!(matches!(
        spool.put(b"3456789\n"),
        Err(SpoolError::Full { .. })
    ));
    spool.put(b"3\n").unwrap();
    let text = spool.put(b"4\n").unwrap_err().to_string();
    assert!(
        text.ends_with("is full: 3 messages of 6 bytes in all"),
        "{text}"
    );
    assert_eq!(names(&path).len(), 3);
    spool.remove(&first);
    spool.put(b"4\n").unwrap();
    let text = spool
        .put(&vec![b'x'; MAX_LINE + 1])
        .unwrap_err()
        .to_string();
    assert!(text.contains("1048577 bytes as a line"), "{text}");
}

#[test]
fn clients_obey_the_limits_that_the_daemon_wrote() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("spool");
    let limits = SpoolLimits { bytes: 5, files: 7 };
    let fd = make_spool(&path).unwrap();
    write_spool_limits(&fd, limits).unwrap();
    write_spool_limits(&fd, limits).unwrap();
    assert_eq!(Spool::open(&path).unwrap().limits, limits);
    for nonsense in ["", "5", "5 x\n", "-1 2\n"] {
        fs::write(path.join(SPOOL_LIMITS), nonsense).unwrap();
        assert_eq!(Spool::open(&path).unwrap().limits, SpoolLimits::default());
    }
    fs::remove_file(path.join(SPOOL_LIMITS)).unwrap();
    symlink("/etc/passwd", path.join(SPOOL_LIMITS)).unwrap();
    assert_eq!(Spool::open(&path).unwrap().limits, SpoolLimits::default());
}

#[test]
fn limits_are_written_even_if_another_entry_has_their_name() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("spool");
    let fd = make_spool(&path).unwrap();
    let limits = SpoolLimits { bytes: 5, files: 7 };
    for folder in ["limits", "limits/full"] {
        let _ = fs::remove_file(path.join(SPOOL_LIMITS));
        fs::create_dir_all(path.join(folder)).unwrap();
        write_spool_limits(&fd, limits).unwrap();
        assert_eq!(Spool::open(&path).unwrap().limits, limits, "{folder}");
    }
}

/// Another user who watches the directory can take a message's name when its temporary file appears.
#[test]
fn a_name_that_another_user_takes_first_is_replaced_by_another() {
    let (_root, path, mut spool) = spool();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for entry in fs::read_dir(&path).unwrap().flatten() {
                    let name = entry.file_name().into_string().unwrap();
                    if let Some(name) = name.strip_prefix('.') {
                        let _ = fs::create_dir_all(path.join(name).join("full"));
                    }
                }
            }
        });
        let line = vec![b'x'; 256 << 10];
        let put: Vec<_> = (0..200)
            .map(|_| spool.put(&line).map(|name| path.join(name).is_file()))
            .collect();
        stop.store(true, Ordering::Relaxed);
        assert!(
            put.iter().all(|put| matches!(put, Ok(true))),
            "{:?}",
            put.iter().find(|put| put.is_err())
        );
    });
}

#[test]
fn files_of_other_users_neither_count_nor_are_read() {
    const NOBODY: u32 = 65_534;
    if !geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let (_root, path, mut spool) = spool();
    spool.limits = SpoolLimits {
        bytes: 100,
        files: 3,
    };
    for number in 0..10 {
        let theirs = path.join(format!("{number}.msg1"));
        File::create(&theirs).unwrap().set_len(100 << 20).unwrap();
        chown(&theirs, Some(NOBODY), None).unwrap();
    }
    let name = spool.put(b"mine\n").unwrap();
    assert!(spool.has(&name));
    // The daemon takes the file, and another user creates a file with the same name.
    fs::remove_file(path.join(&name)).unwrap();
    fs::write(path.join(&name), "theirs\n").unwrap();
    chown(path.join(&name), Some(NOBODY), None).unwrap();
    assert!(!spool.has(&name) && spool.get(&name).is_none());
}

#[test]
fn errors_name_the_path_and_the_reason() {
    let root = tempfile::tempdir().unwrap();
    let text = |path: &Path| Spool::open(path).unwrap_err().to_string();
    let (real, link) = (root.path().join("real"), root.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    assert!(
        text(&link).starts_with("cannot open directory"),
        "{}",
        text(&link)
    );
    let missing = text(Path::new("/proc/1/no/such"));
    assert!(missing.starts_with("cannot "), "{missing}");
    fs::write(root.path().join("file"), "").unwrap();
    let file = text(&root.path().join("file"));
    assert!(file.ends_with("file: Not a directory"), "{file}");
}

/// A directory that belongs to this user and group. `None`: only root can give directories away.
fn given_to(user: u32, group: u32) -> Option<(tempfile::TempDir, PathBuf)> {
    if !geteuid().is_root() {
        println!("skipped: only root can give files away");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("spool");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(user), Some(group)).unwrap();
    Some((root, path))
}

#[test]
fn a_directory_of_another_user_is_used_only_where_not_every_user_could_create_it() {
    let Some((root, path)) = given_to(65_534, 65_534) else {
        return;
    };
    Spool::open(&path).unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
    let text = Spool::open(&path).unwrap_err().to_string();
    assert!(
        text.contains("belongs to user 65534, and any user could have created it"),
        "{text}"
    );
}

#[test]
fn a_message_file_gets_the_group_of_the_directory() {
    let Some((_root, path)) = given_to(65_534, 65_533) else {
        return;
    };
    let name = Spool::open(&path).unwrap().put(b"x\n").unwrap();
    assert_eq!(fs::metadata(path.join(name)).unwrap().gid(), 65_533);
}
