//! Follows all manuals from the first page on, as a new user does, on one machine.

use std::process::Command;

use crate::{
    machine::Machine,
    publishing::{self, Site},
    service, wait_for,
};

pub(crate) const README: &str = "README.md";
pub(crate) const OPERATIONS: &str = "docs/operations.md";
pub(crate) const PHP: &str = "php-ext-example/README.md";

#[test]
fn the_manuals_lead_to_a_site_that_works() {
    let Some(machine) = Machine::start() else {
        return;
    };
    // Debian starts these services when their packages are installed.
    machine.run("systemctl enable --now --quiet nginx php8.2-fpm");
    link_the_release(&machine);

    try_the_demo(&machine);
    service::install(&machine);
    let site = Site(&machine);
    publishing::set_up(&site);
    publishing::php_in_three_ways(&site);
    publishing::each_way(&site);
    publishing::while_the_daemon_is_away(&site);
    publishing::spool_that_survives_a_reboot(&site);
    publishing::tokens(&site);
    service::first_boot(&site);
    service::mistakes(&site);
    publishing::directory_of_its_own(&site);
    service::other_directory(&site);
    service::upgrade(&site);
    service::other_address(&site);
    service::uninstall(&machine);
    assert_eq!(machine.not_run(), [""; 0], "these blocks were not run");
}

/// The manuals use the paths of a release build. Links make these paths lead to the build of these tests.
fn link_the_release(machine: &Machine) {
    machine.run(
        "built=${CARGO_TARGET_DIR:-$PWD/target}
         [ $PROFILE = release ] || for name in comet php-ext; do
             mkdir -p target/release target/php-ext
             ln -sfn \"$built/$PROFILE/comet\" target/release/comet
             rm -rf target/php-ext/release
             ln -sfn \"$built/php-ext/$PROFILE\" target/php-ext/release
         done",
    );
}

/// The first page of README.md, as root, because root installs the service afterwards.
fn try_the_demo(machine: &Machine) {
    // Builds now, so that the demo starts quickly even on a busy machine.
    machine.run("make build");
    machine.begin("demo", machine.block(README, "demo"));
    wait_for("the demo", || {
        let (succeeded, state) = machine.attempt("curl -fsS http://127.0.0.1:2061/healthz");
        if !succeeded {
            let (running, _) = machine.attempt("systemctl is-active --quiet demo");
            assert!(running, "{state}\n{}", machine.printed("demo"));
        }
        succeeded.then_some(())
    });
    machine.begin("stream", machine.block(README, "stream"));
    wait_for("the stream", || {
        machine.printed("stream").contains("retry:").then_some(())
    });
    machine.manual(README, "six lines");
    wait_for("the last message", || {
        let printed = machine.printed("stream");
        printed.contains("from curl").then_some(())
    });
    let printed = machine.printed("stream");
    for text in ["", "from the shell", "by and by", "from PHP", "from curl"] {
        let message = format!("\"data\":\"{text}\"");
        assert!(printed.contains(&message), "{message}: {printed}");
    }
    machine.run("systemctl stop stream && systemctl stop demo"); // by SIGINT, as Ctrl-C does
}

/// Checks at least the syntax of the scripts, on systems where no container can be started.
#[test]
fn the_shell_understands_the_blocks() {
    for block in crate::markdown::MANUALS
        .iter()
        .flat_map(|manual| crate::markdown::blocks(manual))
    {
        if block.language == "sh" {
            crate::run(Command::new("sh").args(["-n", "-c", &block.text]));
        }
    }
}
