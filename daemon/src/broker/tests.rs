//! When messages are acknowledged, for each durability, on a disk that fails on request.

use comet_proto::{ChannelName, EventName};

use super::*;
use crate::{
    hub::{HistoryConfig, Hub, LogSettings, Publisher, PublisherKey},
    store::{Durability, OnError, fake::FakeDisk, fake::Fault},
};
use std::sync::Arc;

pub(crate) struct Fixture {
    pub(crate) disk: FakeDisk,
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<Local>,
}

impl Fixture {
    pub(crate) fn new(durability: Durability, on_error: OnError) -> Self {
        let disk = FakeDisk::default();
        let hub = match durability {
            Durability::Memory => Hub::new(HistoryConfig::default(), 1),
            _ => open(&disk, durability, on_error),
        };
        let broker = Local::new(hub.clone());
        Self { disk, hub, broker }
    }

    /// The hub after a restart.
    fn reopened(&self) -> Arc<Hub> {
        open(&self.disk, Durability::Process, OnError::Deliver)
    }

    pub(crate) fn publish(&self, source: SourceKind, key: Option<&str>) -> Receipt {
        let publisher = Publisher::User(1);
        self.broker.publish(
            source,
            NewMessage {
                channels: ChannelName::parse("news").unwrap().into(),
                name: EventName::default(),
                data: Box::default(),
                attributes: None,
                key: key.map(|key| PublisherKey { publisher, key }),
            },
        )
    }
}

fn open(disk: &FakeDisk, durability: Durability, on_error: OnError) -> Arc<Hub> {
    let settings = LogSettings {
        durability,
        on_error,
        rewrite_bytes: 1 << 40,
        boot: 1,
    };
    let disk = Arc::new(disk.clone());
    let history = HistoryConfig::default();
    Hub::open(history, 1, disk, &settings).unwrap().0
}

#[test]
fn without_a_log_a_message_is_acknowledged_at_once() {
    let f = Fixture::new(Durability::Memory, OnError::Refuse);
    assert!(f.broker.acknowledges_at_once());
    let receipt = f.publish(SourceKind::Client, None);
    assert_eq!(receipt.now().unwrap().unwrap(), f.hub.last().0);
    assert!(receipt.keep_soon());
}

#[test]
fn with_process_the_first_question_keeps_all_messages() {
    let f = Fixture::new(Durability::Process, OnError::Deliver);
    assert!(f.broker.acknowledges_at_once());
    let receipts: Vec<_> = (0..3)
        .map(|_| f.publish(SourceKind::Client, None))
        .collect();
    let last = f.hub.last().0;
    assert!(!f.hub.has_kept(receipts[0].id().unwrap()), "nobody asked");
    assert_eq!(receipts[2].now().unwrap().unwrap(), last);
    f.disk.fail(Fault::Broken, 0, 9);
    for receipt in receipts {
        assert_eq!(receipt.now().unwrap().ok(), receipt.id());
    }
}

#[tokio::test]
async fn with_disk_a_publisher_waits_until_the_log_is_synced() {
    let f = Fixture::new(Durability::Disk, OnError::Deliver);
    assert!(!f.broker.acknowledges_at_once());
    let receipt = f.publish(SourceKind::Client, None);
    assert!(receipt.now().is_none());
    let keeping = f.hub.start_log_threads().unwrap();
    let id = receipt.outcome().await.unwrap();
    assert_eq!(receipt.now().unwrap().unwrap(), id);
    f.disk.fail(Fault::Broken, 0, 9);
    let receipt = f.publish(SourceKind::Client, None);
    let error = receipt.outcome().await.unwrap_err();
    assert!(matches!(error, NotKept::Published(_)), "{error}");
    f.disk.heal();
    keeping.stop().unwrap();
    assert!(receipt.keep_soon(), "kept before the end");
}

#[test]
fn a_message_that_cannot_be_kept_is_published_and_not_acknowledged() {
    let f = Fixture::new(Durability::Process, OnError::Deliver);
    f.disk.fail(Fault::Full, 0, 9);
    for _ in 0..2 {
        let receipt = f.publish(SourceKind::Client, None);
        assert!(receipt.refusal().is_none());
        let error = receipt.now().unwrap().unwrap_err();
        assert!(matches!(error, NotKept::Published(_)), "{error}");
        assert!(!receipt.keep_soon());
        assert_eq!(receipt.id(), Some(f.hub.last().0));
        assert!(!f.broker.acknowledges_at_once());
    }
}

#[test]
fn messages_of_clients_are_refused_while_the_store_fails_and_those_of_files_are_not() {
    let f = Fixture::new(Durability::Process, OnError::Refuse);
    f.disk.fail(Fault::Broken, 0, usize::MAX);
    let first = f.publish(SourceKind::Client, None);
    assert!(first.now().unwrap().is_err(), "nobody knew that it fails");
    let before = f.hub.last();
    let refused = f.publish(SourceKind::Client, None);
    assert!(matches!(refused.refusal(), Some(NotKept::Refused(_))));
    assert!(refused.now().unwrap().is_err() && !refused.keep_soon());
    assert_eq!((refused.id(), f.hub.last()), (None, before));
    let touched = f.publish(SourceKind::File, None);
    assert!(touched.refusal().is_none() && f.hub.last() > before);
    f.disk.heal();
    // A full or broken disk may have left a half-written record, so the log has to be written anew first.
    f.hub.rewrite_log().unwrap();
    assert!(f.publish(SourceKind::Client, None).now().unwrap().is_ok());
    for receipt in [first, touched] {
        assert_eq!(receipt.now().unwrap().ok(), receipt.id());
    }
}

#[test]
fn a_repeated_message_has_the_outcome_of_the_first_one() {
    let f = Fixture::new(Durability::Process, OnError::Deliver);
    f.disk.fail(Fault::Broken, 0, 1);
    let first = f.publish(SourceKind::Client, Some("key"));
    assert!(first.now().unwrap().is_err());
    let repeated = f.publish(SourceKind::Client, Some("key"));
    assert_eq!(repeated.id(), first.id());
    assert_eq!(repeated.now().unwrap().ok(), first.id());
    assert_eq!(f.hub.status().published, 1);
}

#[test]
fn a_deleted_channel_stays_empty_after_a_restart() {
    let f = Fixture::new(Durability::Process, OnError::Deliver);
    let news = ChannelName::parse("news").unwrap();
    f.publish(SourceKind::Client, None);
    let receipt = f.broker.delete(&news);
    assert_eq!(receipt.now().unwrap().ok(), Some(f.hub.last().0));
    let restarted = f.reopened();
    assert!(f.hub.channel_facts(&news).is_none());
    assert!(restarted.channel_facts(&news).is_none());
    // There is nothing left to delete.
    let before = f.hub.last();
    assert!(f.broker.delete(&news).now().unwrap().is_ok());
    assert_eq!(f.hub.last(), before);
}
