//! The commands about the connection itself. Clients send them before they publish or subscribe.

use super::{Arguments, RedisClient, reply, reply::Resp, wrong_number};

/// The version of Redis with these commands, which clients ask for.
const VERSION: &str = "7.0.0";

pub(super) const COMMANDS: [&str; 7] = [
    "CLIENT", "COMMAND", "CONFIG", "ECHO", "INFO", "PING", "SELECT",
];

impl RedisClient {
    pub(super) fn connection_command(
        &mut self,
        name: &str,
        arguments: &Arguments<'_>,
        out: &mut Vec<u8>,
    ) {
        match (name, arguments) {
            ("AUTH", [password] | [_, password]) => match self.authenticate(password) {
                Ok(()) => reply::simple("OK", out),
                Err(reason) => reply::error(reason, out),
            },
            ("HELLO", arguments) => self.hello(arguments, out),
            ("RESET", _) => {
                (self.subscription, self.transaction) = (None, None);
                (self.has_key, self.resp) = (false, Resp::Two);
                self.name = Box::default();
                reply::simple("RESET", out);
            }
            ("SELECT", [_]) => reply::simple("OK", out), // channels are the same in every database
            ("PING", []) if self.is_only_subscribed() => {
                reply::array(2, out);
                reply::bulk("pong", out);
                reply::bulk("", out);
            }
            ("PING", [text]) if self.is_only_subscribed() => {
                reply::array(2, out);
                reply::bulk("pong", out);
                reply::bulk(text, out);
            }
            ("PING", []) => reply::simple("PONG", out),
            ("PING" | "ECHO", [text]) => reply::bulk(text, out),
            ("CLIENT", [command, arguments @ ..]) => self.client_command(command, arguments, out),
            ("INFO", _) => reply::bulk(self.info(), out),
            ("COMMAND", [what, ..]) if what.eq_ignore_ascii_case(b"COUNT") => {
                reply::integer(0, out);
            }
            ("COMMAND", [what, ..]) if what.eq_ignore_ascii_case(b"DOCS") => self.resp.map(0, out),
            ("COMMAND", _) => reply::array(0, out),
            ("CONFIG", [what, ..]) if what.eq_ignore_ascii_case(b"GET") => self.resp.map(0, out),
            ("CONFIG", [_, ..]) => reply::error("ERR settings are in the file of Comet", out),
            _ => reply::error(&wrong_number(name), out),
        }
    }

    /// Checks a password. The name of the user does not matter.
    fn authenticate(&mut self, password: &[u8]) -> Result<(), &'static str> {
        match &self.shared.config.key {
            Some(key) if key.is(password) => {
                self.has_key = true;
                Ok(())
            }
            Some(_) => Err("WRONGPASS invalid username-password pair or user is disabled."),
            None => Err(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct? The password is key under [compat.redis]",
            ),
        }
    }

    /// `HELLO [VERSION [AUTH USER PASSWORD] [SETNAME NAME]]`
    fn hello(&mut self, arguments: &Arguments<'_>, out: &mut Vec<u8>) {
        let resp = match arguments.first().map(|version| &**version) {
            None => self.resp,
            Some(b"2") => Resp::Two,
            Some(b"3") => Resp::Three,
            Some(_) => return reply::error("NOPROTO unsupported protocol version", out),
        };
        let mut options = arguments.get(1..).unwrap_or_default();
        while let [option, values @ ..] = options {
            options = match (&*option.to_ascii_uppercase(), values) {
                (b"AUTH", [_, password, rest @ ..]) => {
                    if let Err(reason) = self.authenticate(password) {
                        return reply::error(reason, out);
                    }
                    rest
                }
                (b"SETNAME", [name, rest @ ..]) => {
                    self.name = (**name).into();
                    rest
                }
                _ => return reply::error("ERR Syntax error in HELLO", out),
            };
        }
        if self.shared.config.key.is_some() && !self.has_key {
            let reason = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                 AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version \
                 at the same time";
            return reply::error(reason, out);
        }
        self.resp = resp;
        self.write_hello(out);
    }

    fn write_hello(&self, out: &mut Vec<u8>) {
        let version = match self.resp {
            Resp::Two => 2,
            Resp::Three => 3,
        };
        self.resp.map(7, out);
        for (key, value) in [("server", "redis"), ("version", VERSION)] {
            reply::bulk(key, out);
            reply::bulk(value, out);
        }
        for (key, value) in [("proto", version), ("id", self.id)] {
            reply::bulk(key, out);
            reply::integer(value, out);
        }
        for (key, value) in [("mode", "standalone"), ("role", "master")] {
            reply::bulk(key, out);
            reply::bulk(value, out);
        }
        reply::bulk("modules", out);
        reply::array(0, out);
    }

    fn client_command(&mut self, command: &[u8], arguments: &Arguments<'_>, out: &mut Vec<u8>) {
        match (&*command.to_ascii_uppercase(), arguments) {
            (b"SETNAME", [name]) if name.len() <= 256 => {
                self.name = (**name).into();
                reply::simple("OK", out);
            }
            (b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH", _) => reply::simple("OK", out),
            (b"GETNAME", []) if self.name.is_empty() => self.resp.null(out),
            (b"GETNAME", []) => reply::bulk(&self.name, out),
            (b"ID", []) => reply::integer(self.id, out),
            (b"INFO" | b"LIST", _) => {
                let name = String::from_utf8_lossy(&self.name);
                reply::bulk(format!("id={} name={name} db=0\n", self.id), out);
            }
            _ => reply::error(
                "ERR CLIENT knows SETNAME, GETNAME, SETINFO, ID, INFO, LIST, NO-EVICT and NO-TOUCH",
                out,
            ),
        }
    }

    fn info(&self) -> String {
        let metrics = &self.client.metrics;
        format!(
            "# Server\r\nredis_version:{VERSION}\r\ncomet_version:{}\r\nredis_mode:standalone\r\nprocess_id:{}\r\n\
             uptime_in_seconds:{}\r\n\r\n# Clients\r\nconnected_clients:{}\r\nmaxclients:{}\r\n\r\n\
             # Stats\r\nrejected_connections:{}\r\npubsub_patterns:0\r\ncomet_published:{}\r\n\r\n# Replication\r\n\
             role:master\r\nconnected_slaves:0\r\n",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            self.shared.started.elapsed().as_secs(),
            metrics.connections.get(),
            self.client.limits.max_connections,
            metrics.refused.get(),
            metrics.published.get(),
        )
    }
}
