//! Checks what a server delivers: `make check-delivery`, docs/delivery.md.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use comet_torture::{
    random::Random,
    report,
    scenario::{self, Disturbance, Scale},
    server::{self, Comet, Foreign, Nchan, Server},
    target::{Kind, Target, Transport},
};

/// Check whether a server loses, doubles or reorders messages, and tells what it could not keep
///
/// Exits with 1 when it loses without a word, doubles, reorders or damages any, with 2 when it cannot be checked.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  comet-check-delivery comet                              Comet as a child, with its defaults
  comet-check-delivery nchan                              nginx with nchan (Debian's packages) as a child
  comet-check-delivery comet --as nchan                   Comet's interface for clients of nchan
  comet-check-delivery comet --at 127.0.0.1:2061          one that runs; publishing by HTTP has to be on
  comet-check-delivery nchan --at [::1]:80 --disturb cuts,restarts --restart 'systemctl restart nginx'
  comet-check-delivery sse --at example.org:3000 --sse '/events?channel={}' --publish '/channels/{}'")]
struct Arguments {
    /// What it speaks
    kind: Kind,
    /// Speak to Comet in this other protocol; Comet needs the table [compat.nchan]
    #[arg(long = "as", value_name = "KIND", value_parser = nchan_only)]
    dialect: Option<Kind>,
    /// Where it listens (HTTP, no TLS) [default: it is started here]
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// A shell command that restarts it; without one, a server that was not started here is not restarted
    #[arg(long, value_name = "COMMAND", requires = "at")]
    restart: Option<String>,
    /// Comet's Unix socket: every other publisher uses it
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// [default: all that the server is known to have]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    transports: Vec<Transport>,
    /// [default: all]
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    disturb: Vec<Disturbance>,
    /// How long each disturbance lasts
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Of each transport
    #[arg(long, value_name = "N", default_value_t = 4)]
    subscribers: usize,
    #[arg(long, value_name = "N", default_value_t = 4)]
    publishers: usize,
    #[arg(long, value_name = "N", default_value_t = 2)]
    channels: usize,
    /// Messages a second of each publisher
    #[arg(long, value_name = "N", default_value_t = 50)]
    rate: u32,
    /// Bytes of a message; sixty times as many where clients are slow
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    size: usize,
    /// Messages that a channel keeps, of a server that is started here
    #[arg(long, value_name = "N", default_value_t = 100)]
    keep: usize,
    /// Repeats the choices of a run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What is missing is a fault also where a gap was told
    #[arg(long)]
    strict: bool,
    /// Paths, with {} for the channel [default: as in bench/peers/nchan.conf]
    #[arg(long, value_name = "PATH")]
    poll: Option<String>,
    #[arg(long, value_name = "PATH")]
    sse: Option<String>,
    #[arg(long, value_name = "PATH")]
    websocket: Option<String>,
    #[arg(long, value_name = "PATH")]
    publish: Option<String>,
    /// A line that each request gets, such as "Authorization: Bearer ..."
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Comet's program [default: the one beside this]
    #[arg(long, value_name = "PATH")]
    comet: Option<PathBuf>,
    /// Further settings (TOML) of a Comet that is started here; @root@ is its directory
    #[arg(long, value_name = "TOML", default_value = "")]
    config: String,
    /// Writes the figures to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("comet-check-delivery: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the checks. Returns whether all of them passed.
fn run(arguments: &Arguments) -> Result<bool> {
    if arguments.dialect.is_some() && arguments.kind != Kind::Comet {
        bail!("--as is for comet alone");
    }
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64,
    };
    let scale = Scale {
        time: Duration::from_secs(arguments.seconds),
        subscribers: arguments.subscribers.max(1),
        publishers: arguments.publishers.max(1),
        channels: arguments.channels.max(1),
        rate: arguments.rate,
        size: arguments.size,
        seed,
    };
    let (target, mut server) = find(arguments, &mut Random::new(seed, "server"))?;
    let restarts = match &server {
        Some(server) => server.restarts_by(),
        None => "none: no --restart".into(),
    };
    println!(
        "{} at {}, seed {seed}; restarts: {restarts}\n",
        target.kind, target.addr
    );
    let transports = match arguments.transports.as_slice() {
        [] => target.kind.transports(),
        some => some,
    };
    let mut outcomes = Vec::new();
    for disturbance in disturbances(arguments, server.is_some())? {
        let server: Option<&mut dyn Server> = match &mut server {
            Some(server) => Some(&mut **server),
            None => None,
        };
        let outcome = scenario::run(&target, transports, disturbance, &scale, server);
        outcomes.push(outcome.with_context(|| format!("under {:?}", disturbance.name()))?);
    }
    let name = target.kind.to_string();
    println!("{}", report::table(&name, &outcomes));
    print!("{}", report::lines(&outcomes));
    for example in outcomes.iter().flat_map(|outcome| &outcome.examples) {
        println!("  {example}");
    }
    if let Some(path) = &arguments.json {
        report::write_json(&name, &outcomes, path)?;
    }
    let faulty = report::faulty(&outcomes, arguments.strict);
    println!("{}", if faulty { "FAULTS" } else { "no faults" });
    Ok(!faulty)
}

fn disturbances(arguments: &Arguments, restarts: bool) -> Result<Vec<Disturbance>> {
    use Disturbance::{All, Calm, Churn, Cuts, Restarts, Slow};
    if !arguments.disturb.is_empty() {
        if !restarts && arguments.disturb.contains(&Restarts) {
            bail!(
                "--disturb restarts needs --restart COMMAND for a server that was not started here"
            );
        }
        return Ok(arguments.disturb.clone());
    }
    let all = [Calm, Cuts, Slow, Churn, Restarts, All];
    let wanted = all.into_iter().filter(|d| restarts || *d != Restarts);
    Ok(wanted.collect())
}

type Found = (Target, Option<Box<dyn Server>>);

fn find(arguments: &Arguments, random: &mut Random) -> Result<Found> {
    let (mut target, server) = match &arguments.at {
        Some(at) => running(arguments, at)?,
        None => start(arguments, random)?,
    };
    let paths = [
        (&mut target.poll, &arguments.poll),
        (&mut target.sse, &arguments.sse),
        (&mut target.websocket, &arguments.websocket),
        (&mut target.publish, &arguments.publish),
    ];
    for (path, given) in paths {
        if let Some(given) = given {
            path.clone_from(given);
        }
    }
    for header in &arguments.header {
        target.fields.push_str(header.trim());
        target.fields.push_str("\r\n");
    }
    if arguments.socket.is_some() {
        target.socket.clone_from(&arguments.socket);
    }
    Ok((target, server))
}

fn running(arguments: &Arguments, at: &str) -> Result<Found> {
    let addr: SocketAddr = at
        .to_socket_addrs()
        .with_context(|| format!("--at {at}: HOST:PORT is needed"))?
        .next()
        .with_context(|| format!("--at {at}: no such host"))?;
    let foreign = |command: &String| -> Box<dyn Server> {
        let command = command.clone();
        Box::new(Foreign { command, addr })
    };
    let server = arguments.restart.as_ref().map(foreign);
    let target = match arguments.dialect {
        Some(_) => Target::nchan_of_comet(addr),
        None => Target::new(arguments.kind, addr),
    };
    Ok((target, server))
}

/// Parses the only dialect.
fn nchan_only(text: &str) -> Result<Kind, String> {
    match text {
        "nchan" => Ok(Kind::Nchan),
        _ => Err("only nchan is known".into()),
    }
}

fn start(arguments: &Arguments, random: &mut Random) -> Result<Found> {
    match arguments.kind {
        Kind::Sse => bail!("--at HOST:PORT says where the server is"),
        Kind::Nchan => {
            let nginx = server::find();
            let nginx = nginx
                .context("not installed: apt-get install nginx libnginx-mod-nchan, or --at")?;
            let nchan = Nchan::start(nginx, arguments.keep, random)?;
            Ok((nchan.target(), Some(Box::new(nchan))))
        }
        Kind::Comet => {
            let program = match &arguments.comet {
                Some(program) => program.clone(),
                None => std::env::current_exe()?.with_file_name("comet"),
            };
            let (more, keep) = (&arguments.config, arguments.keep);
            let mut config =
                format!("{more}\n[http]\npublish = true\n[history]\nmessages = {keep}\n");
            if arguments.dialect.is_some() {
                config.push_str("[compat.nchan]\ntimeout = \"5s\"\n");
            }
            let mut comet = Comet::prepare(&program, &config, random)?;
            comet.start()?;
            comet.wait()?;
            let target = match arguments.dialect {
                Some(_) => comet.nchan_target(),
                None => comet.target(),
            };
            Ok((target, Some(Box::new(comet))))
        }
    }
}
