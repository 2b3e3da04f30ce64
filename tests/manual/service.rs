//! Tests the service under systemd: installed, misconfigured, repaired, upgraded and removed.

use crate::{
    machine::Machine,
    publishing::Site,
    wait_for,
    walk::{OPERATIONS, PHP, README},
};

pub(crate) fn install(machine: &Machine) {
    machine.manual(README, "install");
    machine.manual(OPERATIONS, "service");
    machine.manual(OPERATIONS, "status");
    machine.run("systemctl is-active comet.service comet.socket");
    machine.run("systemctl is-enabled comet.service comet.socket");
    machine.run("systemd-analyze verify /usr/local/lib/systemd/system/comet.service");
    machine.run("getent passwd comet | grep ':/usr/sbin/nologin$'");
    // The manual page that the units name is installed.
    machine.run(
        "for unit in comet.service comet.socket; do
             test -f \"$(systemctl show --value -p Documentation $unit | sed 's|^file:||')\"
         done",
    );
    machine.run(
        "pkg-config --exists comet && readelf -d /usr/local/lib/libcomet.so | grep 'libcomet.so.1'",
    );
}

/// A publisher that starts before the daemon, as after each boot.
pub(crate) fn first_boot(site: &Site) {
    let machine = site.0;
    for prepare in ["systemd-tmpfiles --create", "true"] {
        let cursor = site.cursor("boot");
        machine.manual(OPERATIONS, "stop");
        machine.run(&format!(
            "rm -rf /run/comet; {prepare}; systemctl start comet.socket"
        ));
        // PHP publishes before any HTTP request, because a request would start the daemon.
        site.php("(new Comet\\Client('unix:?timeout_ms=20000'))->publish('boot', 'early');");
        site.reads("boot", &cursor, "early");
    }
}

fn restarts(machine: &Machine) -> u32 {
    let count = machine.run("systemctl show --value -p NRestarts comet");
    count.trim().parse().unwrap()
}

/// A faulty configuration changes nothing on a reload, and no socket is lost on a restart.
pub(crate) fn mistakes(site: &Site) {
    let machine = site.0;
    machine.manual(OPERATIONS, "reload");
    machine.run("cp /etc/comet.toml /tmp/good.toml; echo 'nonsense = 1' >>/etc/comet.toml");
    let text = machine.fails(machine.block(OPERATIONS, "reload"));
    assert!(text.contains("comet.service"), "{text}");
    machine.run("systemctl is-active comet && comet publish still 'goes on'");

    machine.fails("systemctl restart comet");
    wait_for("more starts than systemd's usual limit", || {
        (restarts(machine) > 7).then_some(())
    });
    machine.run("systemctl is-active comet.socket");
    // A client that connects meanwhile is served by the daemon that starts after the repair.
    machine.begin("early", "curl -fsS http://127.0.0.1:2061/healthz");
    machine.run("cp /tmp/good.toml /etc/comet.toml");
    wait_for("the service", || {
        machine.attempt("systemctl is-active comet").0.then_some(())
    });
    wait_for("the early visitor", || {
        machine.printed("early").contains("ok").then_some(())
    });
    machine.run("systemctl restart comet && systemctl is-active comet.socket");
    machine.run("systemctl stop comet.socket comet.service && systemctl start comet");
    machine.run("systemctl is-active comet.socket");
}

/// Keeps the history in a directory that the unit does not name.
pub(crate) fn other_directory(site: &Site) {
    let machine = site.0;
    machine.set("[store]\ndir = \"/srv/comet\"\n");
    machine.run("install -d -o comet -g comet /srv/comet");
    machine.fails("systemctl restart comet");
    let log = machine.run("journalctl --quiet -o cat -u comet -n 5");
    assert!(log.contains("in ReadWritePaths= of the unit"), "{log}");
    machine.manual(OPERATIONS, "other directory");
    let cursor = site.cursor("kept");
    machine.run("comet publish kept 'in /srv' && systemctl restart comet");
    site.reads("kept", &cursor, "in /srv");
    machine.run("ls /srv/comet | grep .");
}

pub(crate) fn upgrade(site: &Site) {
    let machine = site.0;
    machine.run("sha256sum /etc/comet.toml >/tmp/settings");
    let cursor = site.cursor("upgraded");
    machine.manual(OPERATIONS, "upgrade");
    machine.run("sha256sum --check /tmp/settings");
    machine.run("comet publish upgraded 'by the new one'");
    site.reads("upgraded", &cursor, "by the new one");
}

/// The daemon warns that `listen` has no effect beside the socket unit. The manual says where to set the address.
pub(crate) fn other_address(site: &Site) {
    let machine = site.0;
    machine.set("listen = \"127.0.0.1:2062\"\n");
    machine.run("systemctl restart comet && curl -fsS http://127.0.0.1:2061/healthz");
    let log = machine.run("journalctl --quiet -o cat -u comet -n 5");
    assert!(log.contains("listen is not used"), "{log}");
    machine.manual(OPERATIONS, "other address");
    machine.run("curl -fsS http://127.0.0.1:2062/healthz && comet publish moved 'to a new port'");
    machine.fails("curl -fsS http://127.0.0.1:2061/healthz");
    machine.run("rm -r /etc/systemd/system/comet.socket.d");
}

pub(crate) fn uninstall(machine: &Machine) {
    machine.manual(PHP, "strict");
    let text = machine.run("make uninstall 2>&1");
    let strict = "/etc/php/8.2/fpm/conf.d/30-comet.ini";
    for file in [strict, "/etc/nginx/conf.d/comet.conf"] {
        let told = format!("comet: {file} still names files");
        assert!(text.contains(&told), "{text}");
    }
    machine.fails("systemctl is-active comet.service comet.socket");
    machine.run(&format!("rm {strict} && systemctl restart php8.2-fpm"));
    let left = machine.run(
        "find /usr /etc/php /etc/systemd/system -name '*comet*' -newer /tmp/demo.sh \
             ! -path '/etc/systemd/system/comet.service.d*'",
    );
    assert_eq!(left, "", "left behind by make uninstall");
    machine.run("test -f /etc/comet.toml && test -d /var/lib/comet && getent passwd comet");
    machine.run("make uninstall"); // again, with nothing to remove
}
