//! Publishes by libcomet as C programs do. `publisher.c` is compiled here against the built library.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{Outcome, Publish};

pub struct Library {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Library {
    /// Compiles the program in `directory`. `library` is the path of libcomet.so.
    ///
    /// # Errors
    /// When there is no C compiler, or when the library does not match the header.
    pub fn compile(directory: &Path, library: &Path) -> Result<PathBuf> {
        let program = directory.join("publisher");
        for name in ["libcomet.so", "libcomet.so.1"] {
            symlink(library.canonicalize()?, directory.join(name))?;
        }
        fs::write(
            directory.join("comet.h"),
            include_str!("../../../../include/comet.h"),
        )?;
        let source = directory.join("publisher.c");
        fs::write(&source, include_str!("../../publisher.c"))?;
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(directory);
        cc.arg(&source).arg("-o").arg(&program).arg("-L");
        cc.arg(directory).arg("-lcomet");
        let output = cc.output().context("cannot run cc")?;
        if !output.status.success() {
            bail!("{cc:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(program)
    }

    /// Starts the compiled program.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start(program: &Path, dsn: &str) -> Result<Self> {
        let directory = program.parent().context("it is in a directory")?;
        let mut child = Command::new(program)
            .arg(dsn)
            .env("LD_LIBRARY_PATH", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the C program")?;
        Ok(Self {
            input: child.stdin.take().context("it is piped")?,
            output: BufReader::new(child.stdout.take().context("it is piped")?),
            child,
        })
    }
}

impl Publish for Library {
    fn publish(&mut self, channel: &str, data: &str, key: &str) -> Outcome {
        let mut reply = String::new();
        let asked = writeln!(self.input, "{channel} {key} {data}");
        let read = asked.and_then(|()| self.output.read_line(&mut reply));
        match reply.trim_end().split_once(' ') {
            Some(("ok", id)) => id
                .parse()
                .map_or(Outcome::Unknown, |id| Outcome::Taken(Some(id))),
            Some(("refused", why)) => Outcome::Refused(why.into()),
            _ => match reply.trim_end() {
                "away" => Outcome::Away,
                "unknown" => Outcome::Unknown,
                other => Outcome::Refused(format!("the C program said {other:?} ({read:?})")),
            },
        }
    }

    fn has_keys(&self) -> bool {
        true
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
