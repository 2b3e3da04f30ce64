//! Reads the bodies of requests that hyper parsed, within the limits.

use std::{error::Error, time::Duration};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{
    h2::streams,
    refusal::{Reason, Refusal},
    route::Content,
    site::Site,
};
use crate::connection::memory::Hold;

/// What is known of a body before it is read.
pub(super) fn content(body: &Incoming) -> Content<'static> {
    match body.is_end_stream() {
        true => Content::Empty,
        false if body.size_hint().lower() > 0 => Content::Some,
        false => Content::Unknown,
    }
}

/// Reads a body until it is known whether the body is empty. It may be empty although chunks or frames announce it.
pub(super) async fn look(site: &Site, mut body: Incoming) -> Result<Content<'static>, Refusal> {
    let time = site.config.body_time;
    let look = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            if frame.data_ref().is_some_and(|data| !data.is_empty()) {
                return Ok(Content::Some);
            }
        }
        Ok(Content::Empty)
    };
    timeout(time, look)
        .await
        .unwrap_or_else(|_| Err(late(time)))
}

fn broken(error: &hyper::Error) -> Refusal {
    let cause = error
        .source()
        .map_or_else(String::new, |e| format!(": {e}"));
    Refusal::bad("body", format!("body cannot be read: {error}{cause}"))
}

fn late(time: Duration) -> Refusal {
    let message = format!("the body was not complete after {time:?}");
    Refusal::new(Reason::Timeout, message)
}

/// Reads the whole body, within the limits of size and time.
pub(super) async fn read(site: &Site, body: &mut Incoming) -> Result<Vec<u8>, Refusal> {
    let (max, time) = (site.config.max_body, site.config.body_time);
    if body.size_hint().lower() > max as u64 {
        return Err(too_large(max));
    }
    timeout(time, collect(site, body, max))
        .await
        .unwrap_or_else(|_| Err(late(time)))
}

async fn collect(site: &Site, body: &mut Incoming, max: usize) -> Result<Vec<u8>, Refusal> {
    let (mut data, mut hold) = (Vec::new(), Hold::default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let Ok(piece) = frame.into_data() else {
            continue; // trailers
        };
        if piece.len() > max - data.len() {
            return Err(too_large(max));
        }
        if !piece.is_empty() {
            streams::note_upload();
        }
        data.extend_from_slice(&piece);
        hold.grow_to(data.capacity());
        if site.ceiling.is_reached(&site.metrics) {
            return Err(Refusal::no_memory());
        }
    }
    Ok(data)
}

fn too_large(max: usize) -> Refusal {
    let message = format!("body is over the limit of {max} bytes");
    Refusal::new(Reason::BodyTooLarge, message)
}
