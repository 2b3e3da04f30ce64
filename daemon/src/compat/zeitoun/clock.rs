//! The `backend.php` of the zeitoun clock, which is shown in an iframe.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comet_proto::{Cursor, Message};

use crate::{
    hub::Backlog,
    transport::{AddHeader, End, Format, Kind, Shape, Status},
};

/// The clock: one call at the beginning of each second, without end.
pub(super) struct ClockFormat;

impl Format for ClockFormat {
    fn kind(&self) -> Kind {
        Kind {
            shape: Shape::Stream {
                // Computed again for each wait, so that delays do not add up.
                heartbeat: until_next_second(since_1970()),
            },
            postpones_gap: false,
            form: None,
        }
    }

    fn headers(&self, _: Cursor, _: &[Arc<Message>], add: AddHeader<'_>) {
        add("content-type", b"text/html; charset=utf-8");
    }

    /// The start of the document: the frame uses the `comet` object of its parent page.
    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>clock</title></head>\n<body>\n\
              <script type=\"text/javascript\">var comet = window.parent.comet;</script>\n",
        );
        out.resize(out.len() + 1024, b' ');
        out.push(b'\n');
        self.nothing(cursor, out);
    }

    fn news(&self, _backlog: &Backlog, _out: &mut Vec<u8>) {}

    fn nothing(&self, _cursor: Cursor, out: &mut Vec<u8>) -> Status {
        let seconds = since_1970().as_secs();
        let call = format!(
            "<script type=\"text/javascript\">comet.printServerTime({seconds});</script>\n"
        );
        out.extend_from_slice(call.as_bytes());
        Status::Ok
    }

    /// The protocol cannot say why a stream ends. So the last bytes are one more call.
    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        self.nothing(end.cursor(), out)
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The time until the next second, and slightly more: the system's clock may be slowed down during the wait, and no second may
/// be sent twice.
fn until_next_second(now: Duration) -> Duration {
    const BIT: Duration = Duration::from_millis(2);
    Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into()) + BIT
}
