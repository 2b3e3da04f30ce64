//! Tests publishing in each way that the manuals name, and reading through nginx.

use serde_json::Value;

use crate::{
    machine::Machine,
    wait_for,
    walk::{OPERATIONS, PHP},
};

/// The machine with the site that the manuals set up.
pub(crate) struct Site<'a>(pub(crate) &'a Machine);

impl Site<'_> {
    /// Sends a request through nginx. Returns the body of the answer.
    fn get(&self, path: &str, flags: &str) -> String {
        let request = "curl --fail-with-body -sS --max-time 60 -H 'Host: example.org'";
        self.0
            .run(&format!("{request} {flags} 'http://127.0.0.1{path}'"))
    }

    fn poll(&self, channel: &str, parameters: &str, flags: &str) -> Value {
        let answer = self.get(&format!("/ch/{channel}?{parameters}"), flags);
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
    }

    pub(crate) fn cursor(&self, channel: &str) -> String {
        let answer = self.poll(channel, "wait=0", "");
        answer["cursor"].as_str().unwrap().into()
    }

    /// Checks that a browser with the cursor `cursor` gets this message, however long it has to wait.
    pub(crate) fn reads(&self, channel: &str, cursor: &str, data: &str) {
        let mut cursor = cursor.to_string();
        let mut all = Vec::new();
        wait_for(&format!("{data:?} on {channel}"), || {
            let answer = self.poll(channel, &format!("since={cursor}&wait=20"), "");
            cursor = answer["cursor"].as_str().unwrap().into();
            assert_ne!(answer["gap"], true, "{answer}");
            all.extend(answer["messages"].as_array().unwrap().clone());
            all.iter()
                .any(|message| message["data"] == data)
                .then_some(())
        });
    }

    /// Publishes by this script, and checks that a browser gets this message.
    fn publishes(&self, channel: &str, script: &str, data: &str) {
        let cursor = self.cursor(channel);
        self.0.run(script);
        self.reads(channel, &cursor, data);
    }

    /// Submits examples/web/form.php. Returns the outcome of the publish.
    fn submit(&self, text: &str) -> String {
        let answer = self.get("/form.php", &format!("-i --data-urlencode 'text={text}'"));
        let mut lines = answer.lines();
        let id = lines.find_map(|line| line.strip_prefix("X-Message-Id: "));
        id.unwrap_or_else(|| panic!("{answer}")).trim().into()
    }

    /// Runs PHP code as www-data, with the class loaded.
    pub(crate) fn php(&self, code: &str) -> String {
        self.0.run(&format!(
            "cat >/tmp/code.php <<'END'\n<?php\nrequire_once '/usr/local/share/comet/php/autoload.php';\n{code}\nEND\n\
             chmod 644 /tmp/code.php\n\
             setpriv --reuid=www-data --regid=www-data --init-groups php -d display_errors=stderr /tmp/code.php"
        ))
    }

    fn restart(&self) {
        self.0.run("systemctl restart comet");
    }
}

/// Sets up nginx with Debian's default site beside the site, and adds php-fpm's user to the group.
pub(crate) fn set_up(site: &Site) {
    let machine = site.0;
    machine.run("test -e /etc/nginx/sites-enabled/default");
    machine.manual(PHP, "nginx");
    machine.set_as(PHP, "hosts");
    machine.run("systemctl reload comet");
    machine.manual(OPERATIONS, "group");
    machine.manual(PHP, "group");
    machine.set_as(OPERATIONS, "allow");
    machine.run("systemctl reload comet");
    machine.manual(PHP, "command line");
    // The other examples and the sources must not be served as pages.
    for path in ["/cron.php", "/shell.sh", "/../cron.php", "/src/Client.php"] {
        machine.fails(&format!(
            "curl --path-as-is -fsS -H 'Host: example.org' http://127.0.0.1{path}"
        ));
    }
}

/// Tests the three set-ups of php-fpm through nginx, each on a new configuration.
pub(crate) fn php_in_three_ways(site: &Site) {
    let machine = site.0;
    let sample = format!("$json = '{{}}';\n{}", machine.block(PHP, "publish"));
    machine.run("cp -a /etc/php /tmp/php");
    for way in ["easy", "strict", "extension"] {
        machine.run("rm -rf /etc/php && cp -a /tmp/php /etc/php");
        machine.manual(PHP, way);
        machine.manual(PHP, "through nginx");
        let cursor = site.cursor("news");
        let id = site.submit(way);
        assert!(id.parse::<u64>().is_ok(), "{way}: {id}");
        site.reads("news", &cursor, way);
        let cursor = site.cursor("news");
        site.php(&sample);
        site.reads("news", &cursor, "hello");
    }
    let information = machine.run("php --ri comet");
    assert!(
        information.contains("=> /usr/local/lib/libcomet.so.1"),
        "{information}"
    );
    let extension = machine.run("readelf -d \"$(php-config --extension-dir)/comet.so\"");
    assert!(
        !extension.contains("RUNPATH") && !extension.contains("RPATH"),
        "{extension}"
    );
    machine.manual(PHP, "extension's tests");
}

/// Tests the ways to publish that need no PHP library, and the examples.
pub(crate) fn each_way(site: &Site) {
    let machine = site.0;
    let examples = "/usr/local/share/comet/php/examples";
    site.publishes("touched", "touch /dev/shm/touched.comet", "");
    site.publishes("written", "echo file >/dev/shm/written.comet", "file\n");
    site.publishes("command", "comet publish command line", "line");
    site.publishes("news", &format!("{examples}/shell.sh"), "by socket");
    let cursor = site.cursor("load");
    machine.run(&format!(
        "setpriv --reuid=www-data --regid=www-data --init-groups php {examples}/cron.php"
    ));
    assert!(!site.poll("load", &format!("since={cursor}&wait=20"), "")["messages"][0].is_null());

    machine.fails("curl -fsS -d no http://127.0.0.1:2061/ch/posted");
    machine.set("[http]\npublish = true\n");
    machine.run("systemctl reload comet");
    site.publishes(
        "posted",
        "curl -fsS -d 'by HTTP' http://127.0.0.1:2061/ch/posted",
        "by HTTP",
    );
    machine
        .run("sed -i 's/^publish = true/#publish = true/' /etc/comet.toml; systemctl reload comet");
}

pub(crate) fn while_the_daemon_is_away(site: &Site) {
    let machine = site.0;
    let (news, away) = (site.cursor("news"), site.cursor("away"));
    machine.manual(OPERATIONS, "stop");
    assert_eq!(site.submit("from the spool"), "spooled");
    machine.run("comet publish away 'from the shell' --spool; touch /dev/shm/missed.comet");
    machine.run("systemctl start comet.socket comet.service");
    site.reads("news", &news, "from the spool");
    site.reads("away", &away, "from the shell");
    site.reads("missed", &away, "");
}

pub(crate) fn spool_that_survives_a_reboot(site: &Site) {
    let machine = site.0;
    machine.manual(OPERATIONS, "spool");
    machine.set_as(OPERATIONS, "/var/spool/comet");
    site.restart();
    let cursor = site.cursor("rebooted");
    machine.manual(OPERATIONS, "stop");
    site.php(
        "$comet = new Comet\\Client('unix:?spool=/var/spool/comet');
         exit($comet->publish('rebooted', 'by and by') === null && $comet->spooled() ? 0 : 1);",
    );
    machine.run("rm -rf /run/comet; systemd-tmpfiles --create; ls /var/spool/comet | grep msg1");
    machine.run("systemctl start comet.socket comet.service");
    site.reads("rebooted", &cursor, "by and by");
}

pub(crate) fn tokens(site: &Site) {
    let machine = site.0;
    machine.manual(OPERATIONS, "secret");
    machine.set_as(OPERATIONS, "secret_file");
    site.restart();
    machine.fails("comet subscribe --url http://127.0.0.1:2061 user.7.mail");
    let token = site.php(&format!(
        "$id = 7;\n{}\necho Comet\\Token::mint($secret, '2026-11', ['user.7.*'], history: true);",
        machine.block(PHP, "mint")
    ));
    machine.run("comet publish user.7.mail 'for 7'");
    let flags = format!("-H 'Authorization: Bearer {}'", token.trim());
    let answer = site.poll("user.7.mail", "since=0&wait=20", &flags);
    assert_eq!(answer["messages"][0]["data"], "for 7", "{answer}");
}

pub(crate) fn directory_of_its_own(site: &Site) {
    let machine = site.0;
    machine.manual(OPERATIONS, "directory");
    machine.set_as(OPERATIONS, "/run/comet-files");
    site.restart();
    let cursor = site.cursor("own");
    site.php("(new Comet\\Client('unix:?dir=/run/comet-files'))->write('own', 'by www-data');");
    site.reads("own", &cursor, "by www-data");
}
