//! HTTP/1 on a connection. Plain requests are served directly from the read buffer; hyper serves all other requests, in a task.
//! A waiting poll or stream needs only this object.

mod chunks;
pub(crate) mod framing;
pub(crate) mod head;
pub(super) mod hyper;
mod plain;
mod reading;
pub(super) mod refusing;

use std::{io::ErrorKind, rc::Rc};

use bytes::Bytes;

use self::hyper::{AfterHyper, Served};
use super::{
    Http, h2,
    hold::{HeldSubscription, HoldStep},
    refusal::Refusal,
    switching::Switching,
    upgraded::Upgraded,
};
use crate::{
    connection::{Conn, Input, Protocol, Step, Then, due_in, memory::Hold},
    hub::subscriber::Feed,
    worker::Due,
};
use framing::{Framing, is_no_request, without_line_ends};
use plain::PlainAnswer;
use reading::{RequestStart, read_head};

/// Bytes that hyper uses for one HTTP/1 request.
const REQUEST_BYTES: usize = 16 << 10;

/// HTTP/1 on one connection: between two requests, or with a waiting subscription.
pub(in crate::http) struct Http1 {
    http: Rc<Http>,
    held: Option<HeldSubscription>,
}

impl Http1 {
    /// Before the first request.
    pub(in crate::http) fn new(http: Rc<Http>) -> Self {
        Self { http, held: None }
    }

    /// With a subscription that a request has asked for.
    pub(in crate::http) fn holding(http: Rc<Http>, held: HeldSubscription) -> Self {
        let held = Some(held);
        Self { http, held }
    }

    /// Serves the next request.
    fn serve(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        match input.read() {
            Ok(1..) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return self.idle(conn),
            Ok(0) | Err(_) => return Step::Close,
        }
        let worker = conn.worker();
        if !worker.is_stopping()
            && let Some((served, length)) = plain::serve(&self.http, input.bytes())
        {
            input.consume(length);
            return match served {
                PlainAnswer::Poll(ask) => {
                    let held = self.held.insert(HeldSubscription::new(&self.http, ask));
                    let progress = held.go_on(&self.http, conn);
                    match progress {
                        HoldStep::Wait(_) => worker.parked.add(),
                        _ => worker.parked.reset(),
                    }
                    self.go_on(conn, input, progress)
                }
                PlainAnswer::Answer(answer, close) => {
                    worker.parked.reset();
                    Step::Write(answer, then(close))
                }
                PlainAnswer::Published(answer, close) => {
                    worker.parked.reset();
                    Step::Task(Box::pin(
                        async move { Step::Write(answer.await, then(close)) },
                    ))
                }
            };
        }
        let (conn, http, input) = (conn.clone(), self.http.clone(), input.take());
        Step::Task(Box::pin(serve(conn, http, input)))
    }

    /// The step for the subscription's progress within [`Protocol::input`].
    fn go_on(&mut self, conn: &Conn, input: &Input<'_>, progress: HoldStep) -> Step {
        let has_more = !input.bytes().is_empty() || conn.has_bytes();
        match progress {
            HoldStep::LastAnswer(answer, close) if has_more => {
                self.step(HoldStep::Answer(answer, close), Then::Again)
            }
            progress => self.step(progress, Then::Again),
        }
    }

    /// The step between two requests, when the next request has not arrived yet.
    fn idle(&self, conn: &Conn) -> Step {
        match conn.worker().is_stopping() {
            true => Step::End,
            false => Step::Wait(due_in(conn, self.http.site().config.idle)),
        }
    }

    /// What to do after an answer outside of [`Protocol::input`].
    fn after_answer(&self, conn: &Conn) -> Then {
        // A request may have arrived that epoll will not report again.
        match conn.has_input() {
            true => Then::Again,
            false => Then::Wait(due_in(conn, self.http.site().config.idle)),
        }
    }

    /// The step for the subscription's progress. `next`: what follows after the answer of a poll.
    fn step(&mut self, progress: HoldStep, next: Then) -> Step {
        match progress {
            HoldStep::Wait(due) => Step::Wait(due),
            HoldStep::Piece(piece, then) => Step::Write(piece, then),
            HoldStep::Answer(answer, close) => {
                self.release();
                Step::Write(answer, if close { Then::End } else { next })
            }
            HoldStep::LastAnswer(bytes, _) | HoldStep::End(bytes) => {
                self.release();
                Step::Write(bytes, Then::End)
            }
            HoldStep::Broken => Step::Close,
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            held.release(&self.http);
        }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        self.release();
    }
}

impl Protocol for Http1 {
    fn input(&mut self, conn: &Rc<Conn>, input: &mut Input<'_>) -> Step {
        match &mut self.held {
            Some(held) => {
                let progress = held.input(&self.http, conn);
                self.go_on(conn, input, progress)
            }
            None => self.serve(conn, input),
        }
    }

    fn news(&mut self, conn: &Rc<Conn>, feed: &mut Feed<'_>) -> Step {
        let Some(held) = &mut self.held else {
            return Step::Wait(conn.due());
        };
        let progress = held.news(&self.http, conn, feed);
        self.follow(conn, progress)
    }

    fn time(&mut self, conn: &Rc<Conn>) -> Step {
        let Some(held) = &mut self.held else {
            return Step::Close; // the client has sent no request for too long
        };
        let progress = held.time(&self.http, conn);
        self.follow(conn, progress)
    }

    fn farewell(&mut self, conn: &Rc<Conn>) -> Step {
        match &mut self.held {
            Some(held) => {
                let bytes = held.farewell(&self.http);
                self.step(HoldStep::End(bytes), Then::End)
            }
            // A request that has arrived is still answered, even if epoll has not reported it yet.
            None => {
                conn.expect_input();
                Step::Write(Bytes::new(), Then::Again)
            }
        }
    }

    fn changed(&mut self, conn: &Conn) -> Option<Due> {
        self.held.as_mut()?.changed(&self.http, conn)
    }
}

impl Http1 {
    /// The step after new messages or a time-out.
    fn follow(&mut self, conn: &Conn, progress: HoldStep) -> Step {
        let next = match progress {
            HoldStep::Answer(..) => {
                // While messages are delivered, the thread must not delay the handling of polls.
                conn.worker().parked.reset();
                self.after_answer(conn)
            }
            _ => Then::Again,
        };
        self.step(progress, next)
    }
}

/// What follows after an answer.
fn then(close: bool) -> Then {
    match close {
        true => Then::End,
        false => Then::Again,
    }
}

/// Serves the request that begins with `input` and is not plain, and perhaps further requests after it.
async fn serve(conn: Rc<Conn>, http: Rc<Http>, input: Bytes) -> Step {
    let (input, framing) = match Box::pin(read_head(&conn, &http, input)).await {
        RequestStart::Http1(input, framing) => (input, framing),
        RequestStart::Http2(input) => {
            Box::pin(h2::serve(conn, http, input)).await;
            return Step::Close;
        }
        RequestStart::EmptyLines => return Step::Write(Bytes::new(), Then::Again),
        RequestStart::Refused(refusal) => {
            return Step::Write(refusal.into_bytes(&http.site().origins), Then::End);
        }
        RequestStart::Closed => return Step::Close,
    };
    let _hold = Hold::new(REQUEST_BYTES);
    if http.is_full() {
        let refusal = Refusal::no_memory().asked_by(&http.site(), &input);
        return Step::Write(refusal.into_bytes(&http.site().origins), Then::End);
    }
    let unannounced = has_unannounced_body(&conn, &framing, &input);
    match self::hyper::serve(conn.clone(), http.clone(), input, framing, unannounced).await {
        Served::Closed => Step::End,
        Served::Refused(answer) => Step::Write(answer, Then::End),
        Served::Answered(rest) => {
            conn.leave_input(rest);
            Step::Write(Bytes::new(), Then::Again)
        }
        Served::Left(AfterHyper::Upgrade(upgrade, site), rest) => {
            // The client may not send frames before our 101. If the settings have changed meanwhile, they must decide about
            // the request again.
            if !rest.is_empty() || !Rc::ptr_eq(&site, &http.site()) {
                return Step::End;
            }
            let protocol = (upgrade.open)(&http, &conn);
            Step::Become(Box::new(Switching::new(&upgrade.handshake, protocol)))
        }
        Served::Left(AfterHyper::Subscription(mut ask), rest) => {
            conn.leave_input(rest);
            let handshake = ask.subscription.handshake.take();
            let held = HeldSubscription::new(&http, ask);
            Step::Become(match handshake {
                Some(handshake) => Box::new(Upgraded::new(http, held, handshake)),
                None => Box::new(Http1::holding(http, held)),
            })
        }
    }
}

/// Whether a body follows a `POST` without a length. HTTP/1.0 allows one request per connection, so all following bytes count
/// as a body. In HTTP/1.1 the following bytes count as a body if they cannot begin a request.
fn has_unannounced_body(conn: &Conn, framing: &Framing, input: &[u8]) -> bool {
    let Some(mut behind) = framing.behind_bare_post(input) else {
        return false;
    };
    let mut chunk = [0; 16];
    if behind.is_empty() {
        let read = conn.peek(&mut chunk).unwrap_or(0);
        behind = &chunk[..read];
    }
    match framing.is_http_10() {
        true => !without_line_ends(behind).is_empty(),
        false => is_no_request(behind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_small() {
        // A block of 96 bytes.
        assert!(size_of::<Http1>() <= 88, "{} bytes", size_of::<Http1>());
    }
}
