//! The path of the daemon's Unix socket, by a rule that daemon and clients share.

use std::{
    env,
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

/// The system's socket.
pub const SYSTEM_SOCKET: &str = "/run/comet/comet.sock";

/// Longest path that a Unix socket address holds, in bytes (`unix(7)`: 108 with the final NUL).
pub const MAX_PATH: usize = 107;

/// Why a socket path was refused. The text fits after "cannot use socket: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathError {
    /// The path is empty.
    #[error("socket path may not be empty")]
    Empty,
    /// The path contains a NUL byte, which ends a path in C.
    #[error("socket path may not contain a NUL byte")]
    Nul,
    /// The path is longer than [`MAX_PATH`].
    #[error("socket path of {0} bytes is over the limit of {MAX_PATH}")]
    TooLong(usize),
}

/// The socket's path: `explicit` (a flag, a DSN), else `COMET_SOCKET` if it is not empty, else
/// `/run/comet/comet.sock` where that directory exists and may be entered, else `$XDG_RUNTIME_DIR/comet.sock`
/// if that is an absolute path, and with none of these `/run/comet/comet.sock` again.
///
/// The directory of that last path need not exist: the daemon creates it if it may, and a client reports that
/// it cannot connect. The rule checks the right to enter the directory, not the right to write to it, so that the daemon
/// and a client with fewer rights find the same path.
///
/// # Errors
/// Says which rule the path breaks.
pub fn socket_path(explicit: Option<&Path>) -> Result<PathBuf, SocketPathError> {
    let directory = Path::new(SYSTEM_SOCKET).parent().expect("a file's path");
    let usable = directory.is_dir() && access(directory, AccessFlags::X_OK).is_ok();
    choose(explicit, |name| env::var_os(name), usable)
}

fn choose(
    explicit: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
    system: bool,
) -> Result<PathBuf, SocketPathError> {
    if let Some(path) = explicit {
        return check(path.to_owned());
    }
    if let Some(path) = variable("COMET_SOCKET").filter(|path| !path.is_empty()) {
        return check(path.into());
    }
    let runtime = variable("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|directory| !system && directory.is_absolute());
    check(runtime.map_or_else(|| SYSTEM_SOCKET.into(), |d| d.join("comet.sock")))
}

fn check(path: PathBuf) -> Result<PathBuf, SocketPathError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        Err(SocketPathError::Empty)
    } else if bytes.contains(&0) {
        Err(SocketPathError::Nul)
    } else if bytes.len() > MAX_PATH {
        Err(SocketPathError::TooLong(bytes.len()))
    } else {
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(explicit: Option<&str>, comet: &str, xdg: &str, system: bool) -> String {
        let variable = |name: &str| match name {
            "COMET_SOCKET" => Some(comet.into()),
            "XDG_RUNTIME_DIR" => Some(xdg.into()),
            _ => None,
        };
        let path = choose(explicit.map(Path::new), variable, system).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    #[test]
    fn an_explicit_path_wins_over_the_environment_and_the_default() {
        assert_eq!(chosen(Some("x.sock"), "/c", "/run/user/1", true), "x.sock");
        assert_eq!(chosen(None, "/c", "/run/user/1", true), "/c");
        assert_eq!(chosen(None, "", "/run/user/1", true), SYSTEM_SOCKET);
        assert_eq!(
            chosen(None, "", "/run/user/1", false),
            "/run/user/1/comet.sock"
        );
        assert_eq!(chosen(None, "", "relative", false), SYSTEM_SOCKET);
        assert_eq!(choose(None, |_| None, false), Ok(SYSTEM_SOCKET.into()));
    }

    #[test]
    fn names_the_broken_rule() {
        use SocketPathError as E;
        let long = "x".repeat(108);
        for (path, error) in [("", E::Empty), ("a\0b", E::Nul), (&long, E::TooLong(108))] {
            assert_eq!(socket_path(Some(Path::new(path))), Err(error), "{path:?}");
        }
    }
}
