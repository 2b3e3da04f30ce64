//! Takes connections, as many as the limit allows.

use std::{io::ErrorKind, net::SocketAddr, rc::Rc, time::Duration};

use hyper::{StatusCode, header::RETRY_AFTER};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

use super::{Worker, answer::Refusal, connection::Conn};

/// How long accepting pauses when the machine has no descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(listener: &TcpListener, worker: &Rc<Worker>) {
    let mut warned = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                take(stream, peer, worker);
                warned = false;
            }
            // The client gave up between its SYN and our accept.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                if !warned {
                    warn!(%error, "cannot accept connections; those that are open go on");
                    warned = true;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn take(stream: TcpStream, _peer: SocketAddr, worker: &Rc<Worker>) {
    let (site, metrics) = (&worker.site, &worker.site.metrics);
    if metrics.http_connections.get() >= site.max_connections {
        metrics.http_refused.add(1);
        let message = format!(
            "more than {} connections are open; try again later",
            site.max_connections
        );
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "connections", message)
            .with(RETRY_AFTER, "5");
        // As far as it goes without waiting; then closed.
        let _ = stream.try_write(&refusal.into_bytes());
        return;
    }
    let _ = stream.set_nodelay(true);
    metrics.http_connections.add(1);
    let mut conns = worker.conns.borrow_mut();
    let entry = conns.vacant_entry();
    let key = entry.key();
    let conn = Conn::new(stream, worker);
    entry.insert(conn.clone());
    drop(conns);
    let open = Open {
        worker: worker.clone(),
        key,
    };
    tokio::task::spawn_local(async move {
        let _open = open;
        conn.serve().await;
    });
}

/// The connection's place among the worker's, given back also when its task panics.
struct Open {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.conns.borrow_mut().remove(self.key);
        self.worker.site.metrics.http_connections.sub(1);
    }
}
