//! Who is there: the members of the pipes `track_…`, and the users who are online (`user_status_N`). Both are presence
//! (`crate::presence`), so a page that is loaded again within the grace time neither leaves nor comes.

use comet_proto::{ChannelName, Message};
use serde_json::{Value, json};

use super::{
    super::UserId,
    PageDialect, answers,
    command::TRACK,
    envelope::{Data, Envelope},
    seconds,
};
use crate::{
    access::permission::ReadPermission,
    api,
    http::site::Site,
    presence::{Member, PresenceChange, Seat},
    session::{Session, dialect::Frames},
};

/// The beginning of the pipes that tell whether a user is online.
const STATUS: &str = "user_status_";

impl PageDialect {
    /// If the pipe tells who comes and goes: subscribes to that, and becomes a member of the pipe.
    pub(super) fn follow(&mut self, pipe: &ChannelName, session: &mut Session) {
        let is_tracked = pipe.starts_with(TRACK);
        if !is_tracked && !pipe.starts_with(STATUS) {
            return;
        }
        if is_tracked {
            // First, so that the page does not see itself come.
            let seat = enter(pipe, &self.member(), session);
            self.tracked.push((pipe.clone(), seat));
        }
        if let Some(changes) = pipe.presence() {
            let added = session.subscribe(&ReadPermission::internal(changes), None);
            added.expect("internal channels are not counted");
        }
    }

    /// Ends what [`PageDialect::follow`] has begun.
    pub(super) fn unfollow(&mut self, pipe: &ChannelName, session: &mut Session) {
        if let Some(changes) = pipe.presence() {
            session.unsubscribe(&changes);
        }
        self.tracked.retain(|(tracked, _)| tracked != pipe);
    }

    /// The browser as a member. Several tabs of a browser are one member.
    fn member(&self) -> Member {
        let user = self.user.map_or(0, answers::number);
        let info = json!({"user_id": user, "uuid": self.uuid});
        Member::new(&format!("{user}.{}", self.uuid), Some(&info)).expect("a short id")
    }

    /// Writes that a member comes or goes.
    pub(super) fn write_change(&self, channel: &ChannelName, message: &Message, out: &mut Frames) {
        let Some(pipe) = channel.presence_of() else {
            return;
        };
        let (comes, member) = match PresenceChange::of(message) {
            Some((PresenceChange::Joined(member), _)) => (true, member),
            Some((PresenceChange::Left(member), _)) => (false, member),
            _ => return,
        };
        let (event, data) = match pipe.strip_prefix(STATUS) {
            Some(user) if *user != **member.id() => return, // a member by another protocol
            Some(_) => {
                let status = if comes { "online" } else { "offline" };
                (status, Data::Text(status))
            }
            None => {
                let event = if comes {
                    "subscription"
                } else {
                    "unsubscription"
                };
                (event, Data::Json(as_json(&member)))
            }
        };
        let envelope = Envelope {
            data,
            event,
            message_send_time: seconds(message),
            pipe,
            ..Envelope::default()
        };
        self.form.write(envelope, out);
    }
}

/// Makes a user online as long as the seat is kept.
pub(super) fn go_online(user: UserId, session: &Session) -> Seat {
    let pipe = ChannelName::parse(&format!("{STATUS}{user}")).expect("a short name");
    let member = Member::new(&user.to_string(), None).expect("a short id");
    enter(&pipe, &member, session)
}

/// The members of a pipe.
pub(super) fn list(pipe: &ChannelName, site: &Site) -> Value {
    let members = site.presence.members(pipe, None).list;
    members
        .iter()
        .map(|present| as_json(&present.member))
        .collect()
}

fn enter(pipe: &ChannelName, member: &Member, session: &Session) -> Seat {
    let site = session.http().site();
    let grace = api::rights(&site).grace(pipe);
    Seat::enter(&site.presence, pipe, member, grace)
}

/// A member as the script expects it. A member by another protocol has no user here.
fn as_json(member: &Member) -> Value {
    let info = member
        .info()
        .and_then(|info| serde_json::from_str(info).ok());
    info.filter(|info: &Value| info["user_id"].is_u64() && info["uuid"].is_string())
        .unwrap_or_else(|| json!({"user_id": 0, "uuid": &**member.id()}))
}
