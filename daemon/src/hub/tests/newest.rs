//! The newest messages of a channel.

use super::*;

fn newest(hub: &Hub, name: &str, count: usize) -> Vec<u64> {
    let messages = hub.newest(&channel(name), count);
    messages.iter().map(|message| message.id).collect()
}

#[test]
fn the_newest_messages_are_a_window_of_the_history() {
    let hub = hub(HistoryConfig::default(), 1);
    assert_eq!(newest(&hub, "a", 2), [0; 0]);
    let sent: Vec<u64> = (0..3)
        .map(|_| {
            NOW.set(NOW.get() + 200 * SECOND);
            hub.publish(message(&channel("a"), b""))
        })
        .collect();
    hub.publish(message(&channel("b"), b""));
    assert_eq!(newest(&hub, "a", 2), sent[1..]);
    assert_eq!(newest(&hub, "a", 9), sent);
    assert_eq!(newest(&hub, "a", 0), [0; 0]);
    // The first message expires after ten minutes.
    NOW.set(NOW.get() + 300 * SECOND);
    assert_eq!(newest(&hub, "a", 9), sent[1..]);
}
