//! A site as an administrator sets it up with the files of php-ext-example: php-fpm with one worker of www-data behind
//! nginx. nginx passes /ch/ to the daemon.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    super::support::{Daemon, PATIENCE, library_dir, repository, run, wait_for},
    extension,
};

/// How php-fpm reaches libcomet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    /// Not at all.
    Nothing,
    /// By fpm/pool.conf.
    Easy,
    /// By fpm/strict.ini.
    Strict,
    /// By the extension, without FFI.
    Extension,
}

pub(super) struct Site {
    root: TempDir,
    /// The servers, stopped in this order.
    servers: Vec<Child>,
}

impl Site {
    /// Starts the site. PHP publishes to `socket`, and nginx passes browsers' requests to `daemon`.
    pub(super) fn start(setup: Setup, daemon: &Daemon, root: TempDir, socket: &Path) -> Self {
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let mut site = Self {
            root,
            servers: Vec::new(),
        };
        site.install();
        site.start_fpm(setup, socket);
        site.start_nginx(daemon);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Copies the files as they are in /usr/local/share/comet.
    fn install(&self) {
        fs::create_dir_all(self.path("share/php")).unwrap();
        let php = repository().join("php-ext-example");
        for name in [
            "src",
            "examples",
            "autoload.php",
            "preload.php",
            "comet_ffi.h",
            "README.md",
        ] {
            let mut copy = Command::new("cp");
            run(copy
                .arg("-R")
                .arg(php.join(name))
                .arg(self.path("share/php")));
        }
    }

    /// Adds a page to the site.
    pub(super) fn page(&self, name: &str, code: &str) {
        fs::write(self.path("share/php/examples/web").join(name), code).unwrap();
    }

    fn start_fpm(&mut self, setup: Setup, socket: &Path) {
        let mut pool = format!(
            "[global]\nerror_log = {log}\n[www]\nuser = www-data\ngroup = www-data\nlisten = {listen}\n\
             listen.mode = 0666\npm = static\npm.max_children = 1\nenv[COMET_SOCKET] = {socket}\n",
            log = self.path("fpm.log").display(),
            listen = self.path("fpm.sock").display(),
            socket = socket.display(),
        );
        let ini = match setup {
            Setup::Nothing => String::new(),
            Setup::Easy => {
                pool += &example("fpm/pool.conf");
                String::new()
            }
            Setup::Strict => {
                let share = self.path("share");
                replaced(
                    &example("fpm/strict.ini"),
                    "/usr/local/share/comet",
                    share.to_str().unwrap(),
                )
            }
            Setup::Extension => format!("extension = {}\n", extension().display()),
        };
        fs::create_dir(self.path("conf.d")).unwrap();
        fs::write(self.path("conf.d/30-comet.ini"), ini).unwrap();
        fs::write(self.path("fpm.conf"), pool).unwrap();
        let mut fpm = Command::new("php-fpm8.2");
        fpm.arg("--nodaemonize")
            .arg("--fpm-config")
            .arg(self.path("fpm.conf"));
        // The empty element stands for PHP's default directory.
        fpm.env(
            "PHP_INI_SCAN_DIR",
            format!(":{}", self.path("conf.d").display()),
        );
        fpm.env("LD_LIBRARY_PATH", library_dir());
        self.serve(&mut fpm, "fpm");
    }

    fn start_nginx(&mut self, daemon: &Daemon) {
        let site = [
            ("127.0.0.1:2061", daemon.addr.clone()),
            (
                "listen 80;",
                format!("listen unix:{};", self.path("nginx.sock").display()),
            ),
            (
                "/usr/local/share/comet/php/examples/web",
                self.path("share/php/examples/web").display().to_string(),
            ),
            (
                "/run/php/php8.2-fpm.sock",
                self.path("fpm.sock").display().to_string(),
            ),
        ];
        let site = site.iter().fold(example("nginx.conf"), |site, (from, to)| {
            replaced(&site, from, to)
        });
        fs::write(self.path("site.conf"), site).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", self.path(kind).display()))
            .concat();
        let main = format!(
            "user www-data;\npid {pid};\nerror_log {log};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}include {site};\n}}\n",
            pid = self.path("nginx.pid").display(),
            log = self.path("nginx.log").display(),
            site = self.path("site.conf").display(),
        );
        fs::write(self.path("nginx.conf"), main).unwrap();
        let mut nginx = Command::new("nginx");
        nginx
            .args(["-g", "daemon off;", "-e"])
            .arg(self.path("nginx.log"));
        nginx.arg("-c").arg(self.path("nginx.conf"));
        self.serve(&mut nginx, "nginx");
    }

    /// Starts a server and waits until it listens on NAME.sock.
    fn serve(&mut self, server: &mut Command, name: &str) {
        let output = fs::File::create(self.path(&format!("{name}.out"))).unwrap();
        server
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut child = server.spawn().unwrap();
        let socket = self.path(&format!("{name}.sock"));
        wait_for(name, || {
            if let Some(status) = child.try_wait().unwrap() {
                let (log, output) = (
                    self.path(&format!("{name}.log")),
                    self.path(&format!("{name}.out")),
                );
                let said = [log, output]
                    .map(|file| fs::read_to_string(file).unwrap_or_default())
                    .concat();
                panic!("{name}: {status}\n{said}");
            }
            UnixStream::connect(&socket).ok()
        });
        self.servers.insert(0, child);
    }

    /// Sends a request to nginx.
    pub(super) fn ask(&self, request: &str) -> Answer {
        let mut stream = UnixStream::connect(self.path("nginx.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        Answer(stream)
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    /// Sends a GET that accepts this media type.
    pub(super) fn get_as(&self, accept: &str, path: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        ))
    }

    /// Submits examples/web/form.php.
    pub(super) fn submit(&self, text: &str) -> String {
        let body = format!("text={text}");
        let answer = self.ask(&format!(
            "POST /form.php HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        ));
        answer.all()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // After SIGTERM the master processes end their workers.
            let _ = kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM);
            let _ = server.wait();
        }
    }
}

/// An answer that is still being received.
pub(super) struct Answer(UnixStream);

impl Answer {
    /// Reads the whole answer, until the server closes.
    pub(super) fn all(mut self) -> String {
        let mut text = Vec::new();
        self.0.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Reads until `text` has arrived. The answer may continue afterwards.
    pub(super) fn until(&mut self, text: &str) -> String {
        let mut so_far = String::new();
        while !so_far.contains(text) {
            let mut byte = [0];
            let n = self.0.read(&mut byte).unwrap();
            assert_eq!(n, 1, "ended before {text:?}: {so_far}");
            so_far.push(char::from(byte[0]));
        }
        so_far
    }
}

fn example(name: &str) -> String {
    fs::read_to_string(repository().join("php-ext-example").join(name)).unwrap()
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example says {from}");
    text.replace(from, to)
}
