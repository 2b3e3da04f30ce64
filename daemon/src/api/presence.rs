//! Presence over HTTP: `/presence/NAME`, and `presence=1` on a subscription.

use std::{cell::RefCell, iter, sync::Arc, time::Duration};

use comet_proto::{ChannelName, Cursor, Message};
use hyper::StatusCode;

use super::parameters;
use crate::{
    access::Caller,
    http::{answer::Answer, refusal::Refusal, route::Route},
    hub::Backlog,
    presence::{Member, Presence, Seat},
    transport::{AddHeader, Channels, End, Format, Kind, Status},
};

/// Answers with the members of a channel.
pub(super) fn members(caller: &Caller<'_>, name: &str) -> Result<Route, Refusal> {
    let channels = parameters::channels(name)?;
    let [channel] = &*channels else {
        return Err(Refusal::bad(
            "channels",
            "only one channel may be asked for",
        ));
    };
    caller.may_read(&channels)?;
    let after = caller.query.filled("after");
    if after.is_some_and(|after| after.len() > Member::MAX_ID) {
        return Err(Refusal::bad("after", "after is the id of a member"));
    }
    let members = caller.site.presence.members(channel, after);
    let body = format!("{{{}}}", members.json_fields());
    Ok(Route::Answer(Answer::new(
        StatusCode::OK,
        "application/json",
        body,
    )))
}

/// With `presence=1`, adds the presence messages of the channels, and makes the client a member when a connection holds its
/// subscription.
pub(super) fn add(
    caller: &Caller<'_>,
    channels: Channels,
    format: Box<dyn Format>,
) -> Result<(Channels, Box<dyn Format>), Refusal> {
    if !parameters::presence(caller.query)? {
        return Ok((channels, format));
    }
    let member = caller.member(&channels)?;
    let format = match member {
        None => format,
        Some(member) => Box::new(MemberFormat {
            format,
            presence: caller.site.presence.clone(),
            member,
            channels: channels
                .iter()
                .map(|channel| (channel.clone(), caller.rights.grace(channel)))
                .collect(),
            seats: RefCell::default(),
        }),
    };
    let with_presence = channels.iter().flat_map(|channel| {
        let presence = channel.presence();
        iter::once(channel.clone()).chain(presence)
    });
    Ok((with_presence.collect::<Vec<_>>().into(), format))
}

/// The format of a subscription whose client is a member of its channels. The client leaves the channels when the subscription
/// ends and drops its format. So a subscription without presence needs no memory for it.
struct MemberFormat {
    format: Box<dyn Format>,
    presence: Arc<dyn Presence>,
    member: Member,
    /// The channels, with their grace times.
    channels: Box<[(ChannelName, Duration)]>,
    /// Empty before a connection holds the subscription.
    seats: RefCell<Box<[Seat]>>,
}

impl Format for MemberFormat {
    fn kind(&self) -> Kind {
        self.format.kind()
    }

    fn begin(&self) {
        let channels = self.channels.iter();
        let seats = channels
            .map(|(channel, grace)| Seat::enter(&self.presence, channel, &self.member, *grace));
        self.seats.replace(seats.collect());
    }

    fn headers(&self, cursor: Cursor, messages: &[Arc<Message>], add: AddHeader<'_>) {
        self.format.headers(cursor, messages, add);
    }

    fn opening(&self, cursor: Cursor, out: &mut Vec<u8>) {
        self.format.opening(cursor, out);
    }

    fn news(&self, backlog: &Backlog, out: &mut Vec<u8>) {
        self.format.news(backlog, out);
    }

    fn nothing(&self, cursor: Cursor, out: &mut Vec<u8>) -> Status {
        self.format.nothing(cursor, out)
    }

    fn deleted(&self, channel: &ChannelName, cursor: Cursor, out: &mut Vec<u8>) -> Option<Status> {
        self.format.deleted(channel, cursor, out)
    }

    fn end(&self, end: &End<'_>, out: &mut Vec<u8>) -> Status {
        self.format.end(end, out)
    }
}
