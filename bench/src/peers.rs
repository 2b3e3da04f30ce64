//! Starts the other servers: real programs from Debian's packages with the settings in bench/peers. Each runs in the
//! foreground as a child of the bench, with its own directory and its own ports.

mod programs;
mod stage;
#[cfg(test)]
mod tests;

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{kind::Kind, started::Started};
use programs::{FPM, NCHAN};
use stage::Stage;

/// Starts a server and waits until it answers. The inner error says why the server is left out.
pub(crate) fn start(kind: Kind) -> Result<Result<Started, String>> {
    /// Attempts, because another program may take a port that was free a moment ago.
    const ATTEMPTS: usize = 3;
    if let Some(missing) = missing(kind) {
        return Ok(Err(missing));
    }
    let mut attempt = 1;
    loop {
        let started = match kind {
            Kind::Nchan => nchan(),
            Kind::Pushpin => pushpin(),
            Kind::Php => php(),
            Kind::Comet | Kind::Floor => bail!("{} is none of the others", kind.name()),
        };
        match started {
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            last => return last.map(Ok),
        }
    }
}

/// The version of what is measured, for readers who want to repeat it. Empty if the server is not installed.
pub(crate) fn version(kind: Kind) -> String {
    if missing(kind).is_some() {
        return String::new();
    }
    let found = match kind {
        Kind::Nchan => vec![programs::nginx(), programs::package(NCHAN)],
        Kind::Pushpin => ["pushpin", "condure", "zurl"]
            .map(programs::version)
            .to_vec(),
        Kind::Php => vec![programs::php(), programs::nginx()],
        Kind::Comet | Kind::Floor => Vec::new(),
    };
    let found: Vec<String> = found.into_iter().flatten().collect();
    found.join(", ")
}

/// What the server needs: a program or a file, and Debian's package that has it.
fn needed(kind: Kind) -> &'static [(&'static str, &'static str)] {
    const NGINX: (&str, &str) = ("nginx", "nginx");
    match kind {
        Kind::Comet | Kind::Floor => &[],
        Kind::Nchan => &[NGINX, (NCHAN_MODULE, NCHAN)],
        Kind::Pushpin => &[
            NGINX,
            ("pushpin", "pushpin"),
            ("condure", "condure"),
            ("zurl", "zurl"),
        ],
        Kind::Php => &[NGINX, (FPM, "php-fpm")],
    }
}

const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

fn missing(kind: Kind) -> Option<String> {
    let needed = needed(kind).iter();
    let missing: Vec<&str> = needed
        .filter(|(name, _)| programs::find(name).is_none())
        .map(|(_, package)| *package)
        .collect();
    let text = || {
        format!(
            "{} is not installed: apt-get install {}",
            kind.name(),
            missing.join(" ")
        )
    };
    (!missing.is_empty()).then(text)
}

fn nchan() -> Result<Started> {
    let mut stage = Stage::new()?;
    let [addr] = stage.ports(["port"])?;
    let settings = stage.write("nchan.conf", include_str!("../peers/nchan.conf"))?;
    stage.nginx(&settings)?;
    stage.wait(addr, "/ready")?;
    Ok(stage.started(addr, addr))
}

fn pushpin() -> Result<Started> {
    let mut stage = Stage::new()?;
    let [addr, publish, _] = stage.ports(["port", "publish", "origin"])?;
    let origin = stage.write("origin.conf", include_str!("../peers/pushpin-origin.conf"))?;
    stage.nginx(&origin)?;
    stage.leave_uncounted();

    let zurl = stage.write("zurl.conf", include_str!("../peers/pushpin-zurl.conf"))?;
    let settings = stage.write("pushpin.conf", include_str!("../peers/pushpin.conf"))?;
    stage.write("routes", "* 127.0.0.1:@origin@\n")?;
    // Both programs accept a value only after "=". With --merge-output all logs are in the bench's log file.
    let configured = |program: &str, file: &Path| {
        let mut command = Command::new(program);
        command.arg(format!("--config={}", file.display()));
        command
    };
    stage.run("zurl", configured("zurl", &zurl).arg("--loglevel=1"))?;
    stage.run(
        "pushpin",
        configured("pushpin", &settings).arg("--merge-output"),
    )?;
    stage.wait_for_port(publish)?;
    // A stream passes through all processes of Pushpin, and its head is sent at once.
    stage.wait(addr, "/sse/ready")?;
    Ok(stage.started(addr, publish))
}

fn php() -> Result<Started> {
    let mut stage = Stage::new()?;
    let [addr] = stage.ports(["port"])?;
    stage.write("lazy.php", include_str!("../peers/lazy.php"))?;
    let settings = stage.write("fpm.conf", include_str!("../peers/lazy-fpm.conf"))?;
    let mut fpm = Command::new(programs::find(FPM).unwrap_or_default());
    // php-fpm needs this option to run as root. Only root can read the server's directory.
    fpm.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]);
    stage.run("fpm", fpm.arg(settings))?;
    let settings = stage.write("nginx.conf", include_str!("../peers/lazy-nginx.conf"))?;
    stage.nginx(&settings)?;
    stage.wait(addr, "/ready")?;
    Ok(stage.started(addr, addr))
}
