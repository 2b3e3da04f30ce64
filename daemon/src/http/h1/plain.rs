//! Serves plain requests directly from the read buffer, without hyper and without a task. Nearly all requests are plain.

use std::{pin::Pin, rc::Rc};

use bytes::Bytes;

use super::head::{self, no_lines};
use crate::http::{
    Http,
    hold::SubscriptionRequest,
    refusal::Refusal,
    route::{Asked, Content, Route, when_kept},
    writer::Variant,
};

/// What a plain request asked for.
pub(super) enum PlainAnswer {
    Poll(SubscriptionRequest),
    /// The bytes of the answer, and whether the connection closes after the answer.
    Answer(Bytes, bool),
    /// The same, when the published message is kept.
    Published(Pin<Box<dyn Future<Output = Bytes>>>, bool),
}

/// Serves the plain request at the start of `input`, and returns its length as well. `None`: hyper has to serve the
/// request.
pub(super) fn serve(http: &Rc<Http>, input: &[u8]) -> Option<(PlainAnswer, usize)> {
    let site = http.site();
    let mut lines = no_lines();
    let plain = head::plain(input, &mut lines, &site.config)?;
    let request = &plain.request;
    let asked = Asked {
        request,
        content: Content::Whole(plain.body),
        site: &site,
        hub: http.audience.hub(),
    };
    // hyper serves the request again, and the same refusal then gets the form that the client understands.
    let route = site.routes.route(&asked).ok()?;
    let variant = Variant {
        close: request.wants_close(),
        chunked: true,
        cors: site.origins.of_request(request),
    };
    let outcome = match route {
        Route::Hold(subscription) if subscription.format.kind().is_poll() => {
            PlainAnswer::Poll(SubscriptionRequest {
                subscription,
                variant,
                site: site.clone(),
            })
        }
        Route::Answer(answer) if !http.is_full() => {
            PlainAnswer::Answer(http.answer_bytes(&site, &answer, variant), variant.close)
        }
        Route::Published(receipt, answer) => match receipt.now() {
            Some(outcome) => {
                let refuse = |reason| Refusal::not_kept(&reason).into_answer();
                let answer = outcome.map_or_else(refuse, answer);
                PlainAnswer::Answer(http.answer_bytes(&site, &answer, variant), variant.close)
            }
            None => {
                let (site, http) = (site.clone(), http.clone());
                let answer = async move {
                    let answer = when_kept(receipt, answer).await;
                    http.answer_bytes(&site, &answer, variant)
                };
                PlainAnswer::Published(Box::pin(answer), variant.close)
            }
        },
        Route::Hold(_) | Route::Upgrade(_) | Route::Answer(_) | Route::Look | Route::Body(_) => {
            return None;
        }
    };
    site.metrics.http_requests.add(1);
    Some((outcome, plain.length))
}
