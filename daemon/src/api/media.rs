//! Decides by the `Accept` header between the two forms of a subscription: the JSON answer of a poll, and an event stream
//! (RFC 9110, section 12.5.1).

use crate::http::request::Request;

/// The media ranges of all `Accept` headers of a request, as far as they concern the two forms.
#[derive(Default)]
pub(crate) struct Accepted {
    json: Preference,
    stream: Preference,
}

/// What the most specific range that matches a form says about this form.
#[derive(Default)]
struct Preference {
    /// 0: no range matches. 1: `*/*`. 2: `type/*`. 3: the form itself.
    precision: u8,
    /// In thousandths.
    weight: u16,
}

const ANY: u8 = 1;
const TYPE: u8 = 2;
const EXACT: u8 = 3;

impl Accepted {
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let mut accepted = Self::default();
        for value in request.values("accept") {
            accepted.add(value);
        }
        accepted
    }

    /// Adds one header's value. Allocates nothing: every poll may have one.
    fn add(&mut self, value: &[u8]) {
        for range in split(value, b',') {
            let mut parts = split(range, b';');
            let name = parts.next().unwrap_or_default().trim_ascii();
            let mut weight = || parts.find_map(weight).unwrap_or(1000);
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match () {
                () if is("text/event-stream") => self.stream.add(EXACT, weight()),
                () if is("text/*") => self.stream.add(TYPE, weight()),
                () if is("application/json") => self.json.add(EXACT, weight()),
                () if is("application/*") => self.json.add(TYPE, weight()),
                () if is("*/*") => {
                    let weight = weight();
                    self.stream.add(ANY, weight);
                    self.json.add(ANY, weight);
                }
                () => {}
            }
        }
    }

    /// Whether the event stream is preferred: it has the larger weight, or the same weight and is named itself.
    pub(crate) fn prefers_stream(&self) -> bool {
        let (stream, json) = (&self.stream, &self.json);
        let is_named = stream.precision == EXACT;
        stream.weight > json.weight || (is_named && stream.weight == json.weight && json.weight > 0)
    }
}

impl Preference {
    /// Adds a range. A more specific range beats the others. Of two equally specific ranges the larger weight counts.
    fn add(&mut self, precision: u8, weight: u16) {
        if (precision, weight) > (self.precision, self.weight) {
            *self = Self { precision, weight };
        }
    }
}

/// Splits the text at the separators that are outside of quotes.
fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |byte| {
        let escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !escaped => is_quoted = !is_quoted,
            b'\\' => is_escaped = is_quoted && !escaped,
            byte => return *byte == separator && !is_quoted,
        }
        false
    })
}

/// Reads `q=` with up to three decimals, in thousandths (section 12.4.2). A weight that breaks this rule counts as 1.
fn weight(parameter: &[u8]) -> Option<u16> {
    let text = str::from_utf8(parameter).ok()?;
    let (name, value) = text.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    let weight: f32 = value.trim().parse().unwrap_or(1.0);
    Some((weight.clamp(0.0, 1.0) * 1000.0).round() as u16) // NaN is 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefers_stream(values: &[&str]) -> bool {
        let mut accepted = Accepted::default();
        for value in values {
            accepted.add(value.as_bytes());
        }
        accepted.prefers_stream()
    }

    #[test]
    fn the_larger_weight_wins_and_with_equal_weights_a_named_event_stream() {
        let streams: &[&[&str]] = &[
            &["text/event-stream"],
            &["TEXT/Event-Stream"],
            &["text/event-stream;charset=utf-8"],
            &["text/event-stream ; q=0.1"],
            &["text/event-stream;q=0.001"],
            &["text/event-stream, application/json"],
            &["application/json", "text/event-stream"],
            &["application/json;q=0.5, text/event-stream;q=0.6"],
            &["text/event-stream;q=0.5;ext=1, application/json;Q=0.4"],
            &["text/event-stream, */*"],
            &["*/*;q=0.5, text/event-stream;q=0.5"],
            &["text/*"],
            &["text/*;q=0.2, application/json;q=0.1"],
            &["application/json;q=0, */*"],
            &["text/html;a=\"text/plain,application/json;\", text/event-stream"],
            &["text/event-stream;q=0, text/event-stream"],
            &["", "text/event-stream"],
        ];
        for values in streams {
            assert!(prefers_stream(values), "{values:?}");
        }
        let polls: &[&[&str]] = &[
            &[],
            &[""],
            &["*/*"],
            &["text/html"],
            &["application/json"],
            &["text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8"],
            &["application/json, text/javascript, */*; q=0.01"],
            &["text/event-stream;q=0"],
            &["text/event-stream;q=0.000, */*"],
            &["text/event-stream; Q = 0"],
            &["text/*, text/event-stream;q=0"],
            &["text/event-stream;q=0.4, application/json;q=0.5"],
            &["text/event-stream;q=0.5", "application/json"],
            &["text/event-stream;q=0.5, application/*"],
            &["text/*, application/json"],
            &["x-text/event-stream"],
            &["text/event-streams"],
            &["text/event-stream2"],
            &["text/html;a=\"x, text/event-stream\""],
            &["text/html;a=\"\\\", text/event-stream\""],
        ];
        for values in polls {
            assert!(!prefers_stream(values), "{values:?}");
        }
    }
}
