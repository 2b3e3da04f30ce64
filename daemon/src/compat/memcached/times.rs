//! The values of channels: the second of the last message, as NovComet compares it with the time at which a page last saw
//! a change.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use comet_proto::ChannelName;

/// The number of values after which those that are not needed any more are removed.
const MANY: usize = 1024;

/// Gives a value to the last message of each channel. Of one channel a later message has a larger value, also if both
/// messages were published in the same second. So whoever compares values misses no message.
#[derive(Default)]
pub(super) struct MessageTimes(Mutex<Values>);

#[derive(Default)]
struct Values {
    of: HashMap<ChannelName, Value>,
    /// The number of values at which the next ones are removed.
    many: usize,
}

struct Value {
    /// The id of the message.
    id: u64,
    second: u64,
}

impl MessageTimes {
    /// The value of a channel whose last message has this id. `now`: the present second.
    pub(super) fn of(&self, channel: &ChannelName, id: u64, now: u64) -> u64 {
        let second = id / 1_000_000;
        let mut values = self.lock();
        match values.of.get_mut(channel) {
            Some(known) if known.id >= id => known.second,
            Some(known) => {
                *known = Value {
                    id,
                    second: second.max(known.second + 1),
                };
                known.second
            }
            // The value is stored only as long as the next message may have the same second.
            None if second < now => second,
            None => {
                values.insert(channel.clone(), Value { id, second }, now);
                second
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().expect("no code panics holding it")
    }
}

impl Values {
    fn insert(&mut self, channel: ChannelName, value: Value, now: u64) {
        if self.of.len() >= self.many.max(MANY) {
            // A message that is published now has a larger second than these.
            self.of.retain(|_, value| value.second >= now);
            self.many = 2 * self.of.len();
        }
        self.of.insert(channel, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn name(text: &str) -> ChannelName {
        ChannelName::parse(text).unwrap()
    }

    #[test]
    fn a_later_message_has_a_larger_value() {
        let times = MessageTimes::default();
        let value = |id, now| times.of(&name("a"), id, now);
        assert_eq!(value(100 * SECOND, 100), 100);
        assert_eq!(value(100 * SECOND, 100), 100);
        assert_eq!(value(100 * SECOND + 1, 100), 101);
        assert_eq!(value(100 * SECOND + 2, 100), 102);
        assert_eq!(value(101 * SECOND, 101), 103);
        assert_eq!(value(200 * SECOND, 200), 200);
        assert_eq!(times.of(&name("b"), 100 * SECOND, 100), 100);
    }

    #[test]
    fn values_of_earlier_seconds_need_no_memory() {
        let times = MessageTimes::default();
        for second in 0..10_000 {
            times.of(&name(&format!("c{second}")), second * SECOND, second);
        }
        assert!(times.lock().of.len() <= MANY);
        for channel in 0..10_000 {
            times.of(&name(&format!("c{channel}")), 5 * SECOND, 20_000);
        }
        assert!(
            times.lock().of.len() <= MANY,
            "an old message is not stored"
        );
    }
}
