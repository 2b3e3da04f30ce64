//! The texts that pages get: JSON objects whose `data` is a string, nearly always with JSON in it.

use base64::{Engine, engine::general_purpose::STANDARD};
use comet_proto::{ChannelName, Message};
use serde_json::{Map, Value, json};

use super::app::name_in_app;
use crate::{
    presence::{Member, Members, PresenceChange},
    session::dialect::Frames,
};

/// The event of a message without a label.
const UNLABELLED: &str = "message";

/// The attribute with the socket id of the page that must not get the message.
pub(super) const EXCLUDED: &str = "pusher-socket";

/// The event of the internal message that ends the connections of a user.
pub(super) const TERMINATE: &str = "terminate";

/// Appends an event. `data`: the text that the page's library parses as JSON.
pub(super) fn write_event(event: &str, channel: Option<&str>, data: &str, out: &mut Frames) {
    let mut json = b"{\"event\":".to_vec();
    write_string(event, &mut json);
    if let Some(channel) = channel {
        json.extend_from_slice(b",\"channel\":");
        write_string(channel, &mut json);
    }
    json.extend_from_slice(b",\"data\":");
    write_string(data, &mut json);
    json.push(b'}');
    out.text(&json);
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a Vec takes a string");
}

/// Appends `pusher:error`. Codes: Pusher's documentation, "WebSocket protocol", section "Error codes".
pub(super) fn write_error(code: u16, message: &str, channel: Option<&str>, out: &mut Frames) {
    let data = json!({"code": code, "message": message}).to_string();
    write_event("pusher:error", channel, &data, out);
}

/// The data of `pusher_internal:subscription_succeeded` for a presence channel: its members, one entry for each user.
pub(super) fn presence_data(members: &Members) -> String {
    let users = members.list.iter().map(|present| &present.member);
    let ids: Vec<&str> = users.clone().map(|member| &**member.id()).collect();
    let info = |member: &Member| {
        let info = member
            .info()
            .and_then(|info| serde_json::from_str(info).ok());
        info.unwrap_or(Value::Null)
    };
    let hash: Map<String, Value> = users
        .map(|member| (member.id().to_string(), info(member)))
        .collect();
    json!({"presence": {"count": ids.len(), "ids": ids, "hash": hash}}).to_string()
}

/// Appends the refusal of a subscription. pusher-js passes it to the page's handlers of this channel.
pub(super) fn write_subscription_error(channel: &str, status: u16, error: &str, out: &mut Frames) {
    let kind = if status == 401 { "AuthError" } else { "Error" };
    let data = json!({"type": kind, "error": error, "status": status}).to_string();
    write_event("pusher:subscription_error", Some(channel), &data, out);
}

/// Appends a message for a reader of `readable`, once for each of its channels that the reader reads.
pub(super) fn write_message(message: &Message, readable: &[ChannelName], out: &mut Frames) {
    let channel = &message.channels[0];
    if let Some(presence) = channel.presence_of() {
        return write_presence_change(presence, message, out);
    }
    if channel.is_internal() {
        if let Some(channel) = channel_of_client_events(channel) {
            write_client_event(&channel, message, out);
        }
        return;
    }
    for channel in message.visible(readable) {
        write_channel_event(&name_in_app(channel), message, out);
    }
}

/// Appends an event of the application or of another interface.
pub(super) fn write_channel_event(channel: &str, message: &Message, out: &mut Frames) {
    let event = match message.name.as_str() {
        "" => UNLABELLED,
        name => name,
    };
    match str::from_utf8(&message.data) {
        Ok(data) => write_event(event, Some(channel), data, out),
        Err(_) => write_event(event, Some(channel), &STANDARD.encode(&message.data), out),
    }
}

fn write_presence_change(channel: &str, message: &Message, out: &mut Frames) {
    let name = name_in_app(channel);
    match PresenceChange::of(message) {
        Some((PresenceChange::Joined(member), _)) => {
            let mut data = json!({"user_id": &**member.id()});
            let info = member
                .info()
                .and_then(|info| serde_json::from_str(info).ok());
            if let Some(info) = info {
                data["user_info"] = info;
            }
            let data = data.to_string();
            write_event("pusher_internal:member_added", Some(&name), &data, out);
        }
        Some((PresenceChange::Left(member), _)) => {
            let data = json!({"user_id": &**member.id()}).to_string();
            write_event("pusher_internal:member_removed", Some(&name), &data, out);
        }
        Some((PresenceChange::Counted, _)) | None => {}
    }
}

/// What the internal channel of a channel's client events begins with.
const CLIENT_EVENTS: &str = ".pusher.client.";

/// The internal channel with the client events of a channel.
pub(super) fn client_events_of(channel: &ChannelName) -> Option<ChannelName> {
    ChannelName::internal(&format!("{CLIENT_EVENTS}{channel}")).ok()
}

fn channel_of_client_events(channel: &ChannelName) -> Option<ChannelName> {
    ChannelName::parse(channel.as_str().strip_prefix(CLIENT_EVENTS)?).ok()
}

/// Appends an event of another page. Its data is any JSON and not a string, because pages send it so.
fn write_client_event(channel: &ChannelName, message: &Message, out: &mut Frames) {
    let mut json = b"{\"event\":".to_vec();
    write_string(message.name.as_str(), &mut json);
    json.extend_from_slice(b",\"channel\":");
    write_string(&name_in_app(channel), &mut json);
    json.extend_from_slice(b",\"data\":");
    json.extend_from_slice(&message.data);
    if let Some(user) = attribute(message, USER) {
        json.extend_from_slice(b",\"user_id\":");
        write_string(user, &mut json);
    }
    json.push(b'}');
    out.text(&json);
}

/// The attribute with the id of the user whose page has sent a client event.
pub(super) const USER: &str = "pusher-user";

/// The value of an attribute of the message.
pub(super) fn attribute<'a>(message: &'a Message, key: &str) -> Option<&'a str> {
    let mut pairs = message.attributes.as_ref()?.iter();
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    Some(value)
}
