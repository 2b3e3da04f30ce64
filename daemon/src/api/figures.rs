//! The figures of the daemon, as `/metrics` shows them.

use crate::{
    connection::memory,
    http::site::Site,
    hub::{Hub, StoreStatus},
    metrics::{Counter, PortMetrics, PortsMetrics},
};

/// The figures in the text format of Prometheus, version 0.0.4.
pub(super) fn metrics(site: &Site, hub: &Hub) -> String {
    let ahead = hub.ahead().as_secs();
    let (m, store, hub) = (&site.metrics, hub.store_status(), hub.status());
    let store = |figure: fn(&StoreStatus) -> u64| store.as_ref().map_or(0, figure);
    let figures = [
        (
            "comet_http_connections",
            "gauge",
            "connections open now, over HTTP and on the ports of other protocols",
            m.http_connections.get(),
        ),
        (
            "comet_http_refused_total",
            "counter",
            "HTTP connections over the limits of connections and their memory",
            m.http_refused.get(),
        ),
        (
            "comet_http_refused_by_address_total",
            "counter",
            "HTTP connections over the limit of their address",
            m.http_refused_by_address.get(),
        ),
        (
            "comet_http_memory_bytes",
            "gauge",
            "bytes of memory that HTTP connections use",
            memory::taken(m),
        ),
        (
            "comet_http_memory_max_bytes",
            "gauge",
            "bytes of memory that HTTP connections may use",
            site.ceiling.bytes(),
        ),
        (
            "comet_http_shed_total",
            "counter",
            "requests refused and slow clients disconnected, because HTTP connections used all of their memory",
            m.http_shed.get(),
        ),
        (
            "comet_http2_broken_total",
            "counter",
            "HTTP/2 connections ended because the client broke the protocol or one of its limits",
            m.http2_broken.get(),
        ),
        (
            "comet_http_accept_pauses_total",
            "counter",
            "pauses of accepting because the machine had no descriptor or memory left",
            m.http_accept_pauses.get(),
        ),
        (
            "comet_http_requests_total",
            "counter",
            "HTTP requests",
            m.http_requests.get(),
        ),
        (
            "comet_subscribers",
            "gauge",
            "open subscriptions",
            m.subscribers.get(),
        ),
        (
            "comet_delivered_total",
            "counter",
            "messages written to subscribers",
            m.delivered.get(),
        ),
        (
            "comet_published_total",
            "counter",
            "messages published",
            hub.published,
        ),
        (
            "comet_published_files_total",
            "counter",
            "messages published by files",
            m.published_files.get(),
        ),
        (
            "comet_published_socket_total",
            "counter",
            "messages published over the Unix socket",
            m.published_socket.get(),
        ),
        (
            "comet_published_spool_total",
            "counter",
            "messages published from the spool",
            m.published_spool.get(),
        ),
        (
            "comet_published_http_total",
            "counter",
            "messages published over HTTP",
            m.published_http.get(),
        ),
        (
            "comet_files_refused_total",
            "counter",
            "files refused",
            m.files_refused.get(),
        ),
        (
            "comet_spool_refused_total",
            "counter",
            "files of the spool refused",
            m.spool_refused.get(),
        ),
        (
            "comet_files_rescans_total",
            "counter",
            "scans of the directory after the first",
            m.files_rescans.get(),
        ),
        (
            "comet_files_polling",
            "gauge",
            "1 while inotify cannot watch the directory, so that the directory is compared every second",
            m.files_polling.get(),
        ),
        (
            "comet_socket_connections",
            "gauge",
            "Unix socket connections open now",
            m.socket_connections.get(),
        ),
        (
            "comet_socket_refused_total",
            "counter",
            "Unix socket connections refused",
            m.socket_refused.get(),
        ),
        (
            "comet_socket_forbidden_total",
            "counter",
            "publishes over the Unix socket that a rule did not allow",
            m.socket_forbidden.get(),
        ),
        (
            "comet_socket_accept_pauses_total",
            "counter",
            "pauses of accepting on the Unix socket because the machine had no descriptor or memory left",
            m.socket_accept_pauses.get(),
        ),
        (
            "comet_channels",
            "gauge",
            "channels with history or subscribers",
            hub.channels as u64,
        ),
        (
            "comet_history_messages",
            "gauge",
            "messages kept",
            hub.messages as u64,
        ),
        (
            "comet_history_bytes",
            "gauge",
            "bytes of memory that the kept messages use",
            hub.bytes as u64,
        ),
        (
            "comet_clock_ahead_seconds",
            "gauge",
            "how far ids are ahead of the clock after it was set back",
            ahead,
        ),
        (
            "comet_store_bytes",
            "gauge",
            "bytes of the log",
            store(|store| store.bytes),
        ),
        (
            "comet_store_failing",
            "gauge",
            "1 while the log cannot be written",
            store(|store| u64::from(store.error.is_some())),
        ),
        (
            "comet_store_rewrites_total",
            "counter",
            "times that the log was rewritten",
            store(|store| store.rewrites),
        ),
    ];
    let lines = figures.map(|(name, kind, help, value)| {
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    });
    lines.concat() + &ports(&m.ports)
}

/// The figures of protocols with a port of their own.
fn ports(metrics: &PortsMetrics) -> String {
    type Figure = fn(&PortMetrics) -> &Counter;
    let figures: [(&str, &str, &str, Figure); 3] = [
        (
            "comet_port_connections",
            "gauge",
            "connections open now on the port of another protocol",
            |port| &port.connections,
        ),
        (
            "comet_port_refused_total",
            "counter",
            "connections on the port of another protocol over a limit",
            |port| &port.refused,
        ),
        (
            "comet_port_published_total",
            "counter",
            "messages published on the port of another protocol",
            |port| &port.published,
        ),
    ];
    let ports = metrics.all();
    if ports.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    for (name, kind, help, figure) in figures {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (protocol, port) in &ports {
            let value = figure(port).get();
            text += &format!("{name}{{protocol=\"{protocol}\"}} {value}\n");
        }
    }
    text
}
