use super::*;
use crate::source::files::events::Event::{self, *};

const SECOND: i64 = 1_000_000_000;

fn events(list: &[Event]) -> Events {
    let mut events = Events::default();
    list.iter().for_each(|event| events.add(*event));
    events
}

/// An empty file, changed for the last time at this time.
fn file(changed: i64) -> FileState {
    FileState {
        version: FileVersion {
            device: 1,
            inode: 2,
            changed,
        },
        modified: changed,
        size: 0,
        mode: 0o100644,
        uid: 0,
        gid: 0,
        links: 1,
    }
}

fn published(state: FileState) -> Known {
    Known {
        state,
        fate: Fate::Published,
        settled: true,
    }
}

fn observed(state: FileState) -> Known {
    Known {
        fate: Fate::Observed,
        ..published(state)
    }
}

fn unsettled(state: FileState) -> Known {
    Known {
        settled: false,
        ..published(state)
    }
}

#[test]
fn nothing_is_published_before_the_writer_closes() {
    for list in [&[Created][..], &[Modified], &[Created, Modified], &[Gone]] {
        assert_eq!(
            decide(None, events(list), &file(1), false),
            Verdict::Remember,
            "{list:?}"
        );
    }
}

#[test]
fn the_event_that_completes_a_change_publishes_at_once() {
    let written = FileState { size: 5, ..file(1) };
    for (list, now) in [
        (&[Attributes][..], file(1)),
        (&[Closed], file(1)),
        (&[MovedTo], file(1)),
        (&[Modified, Closed], file(1)),
        (&[Created, Closed, Attributes], file(1)),
        (&[Created, Attributes, Closed], file(1)),
        (&[Created, Modified, Closed], written),
    ] {
        assert_eq!(
            decide(None, events(list), &now, false),
            Verdict::Publish,
            "{list:?}"
        );
        let before = published(file(0));
        assert_eq!(
            decide(Some(&before), events(list), &now, false),
            Verdict::Publish,
            "{list:?}"
        );
    }
}

#[test]
fn a_state_is_published_once() {
    for list in [
        &[Closed][..],
        &[Attributes],
        &[MovedTo],
        &[Modified, Closed],
        &[Created],
    ] {
        let known = published(file(1));
        assert_eq!(
            decide(Some(&known), events(list), &file(1), false),
            Verdict::Drop,
            "{list:?}"
        );
    }
}

#[test]
fn a_state_that_was_only_observed_is_published() {
    let known = observed(file(1));
    assert_eq!(
        decide(Some(&known), events(&[Closed]), &file(1), false),
        Verdict::Publish
    );
    assert_eq!(
        decide(Some(&known), events(&[Attributes]), &file(1), false),
        Verdict::Publish
    );
}

#[test]
fn with_coarse_time_stamps_only_a_close_adds_nothing() {
    let known = unsettled(file(1));
    assert_eq!(
        decide(Some(&known), events(&[Closed]), &file(1), false),
        Verdict::Drop
    );
    for list in [
        &[Attributes][..],
        &[Modified, Closed],
        &[MovedTo],
        &[Attributes, Closed],
    ] {
        assert_eq!(
            decide(Some(&known), events(list), &file(1), false),
            Verdict::Publish,
            "{list:?}"
        );
    }
}

#[test]
fn a_new_empty_file_waits_for_the_times_that_php_sets() {
    let created = events(&[Created, Closed]);
    assert_eq!(decide(None, created, &file(1), false), Verdict::Wait);
    assert_eq!(decide(None, created, &file(1), true), Verdict::Publish);
    let touched = created.then(events(&[Attributes]));
    assert_eq!(decide(None, touched, &file(1), false), Verdict::Publish);
}

#[test]
fn times_set_while_a_writer_has_the_file_open_wait_for_the_close() {
    for list in [
        &[Modified, Attributes][..],
        &[Created, Attributes],
        &[Closed, Modified],
    ] {
        let list = events(list);
        assert_eq!(
            decide(None, list, &file(1), false),
            Verdict::Wait,
            "{list:?}"
        );
        assert_eq!(
            decide(None, list, &file(1), true),
            Verdict::Publish,
            "{list:?}"
        );
    }
}

#[test]
fn a_change_of_mode_owner_or_links_is_not_published() {
    let chmod = FileState {
        mode: 0o100600,
        ..file(2)
    };
    let chown = FileState { uid: 33, ..file(2) };
    let chgrp = FileState { gid: 33, ..file(2) };
    let link = FileState {
        links: 2,
        ..file(2)
    };
    for now in [chmod, chown, chgrp, link] {
        let now = FileState { modified: 1, ..now };
        for known in [published(file(1)), observed(file(1))] {
            let verdict = |list| decide(Some(&known), events(list), &now, false);
            assert_eq!(verdict(&[Attributes]), Verdict::Attributes, "{now:?}");
            assert_eq!(
                verdict(&[Closed, Attributes]),
                Verdict::Attributes,
                "{now:?}"
            );
            assert_eq!(verdict(&[Closed]), Verdict::Drop, "{now:?}");
        }
        // With more than that, they are.
        let known = published(file(1));
        for list in [
            &[Modified, Closed, Attributes][..],
            &[MovedTo, Attributes],
            &[Created, Closed, Attributes],
        ] {
            assert_eq!(
                decide(Some(&known), events(list), &now, false),
                Verdict::Publish,
                "{list:?}"
            );
        }
        let now = FileState { modified: 2, ..now };
        assert_eq!(
            decide(Some(&known), events(&[Attributes]), &now, false),
            Verdict::Publish
        );
    }
}

#[test]
fn a_change_of_mode_or_owner_of_a_refused_file_is_published() {
    let refused = Known {
        fate: Fate::Refused,
        ..published(file(1))
    };
    let chmod = FileState {
        mode: 0o100600,
        modified: 1,
        ..file(2)
    };
    assert_eq!(
        decide(Some(&refused), events(&[Attributes]), &chmod, false),
        Verdict::Publish
    );
    assert_eq!(
        decide(Some(&refused), events(&[Closed]), &file(1), false),
        Verdict::Drop
    );
    assert_eq!(
        decide_by_state(Some(&refused), &chmod, 9, false),
        Verdict::Publish
    );
}

#[test]
fn a_change_that_keeps_time_and_content_is_not_published() {
    let labelled = FileState {
        modified: 1,
        ..file(2)
    };
    for known in [published(file(1)), observed(file(1))] {
        let verdict = |list| decide(Some(&known), events(list), &labelled, false);
        assert_eq!(verdict(&[Attributes]), Verdict::Attributes);
        assert_eq!(verdict(&[Attributes, Closed]), Verdict::Attributes);
        assert_eq!(verdict(&[Closed]), Verdict::Drop);
        assert_eq!(verdict(&[MovedTo]), Verdict::Publish);
        assert_eq!(verdict(&[Modified, Closed]), Verdict::Publish);
        let scanned = decide_by_state(Some(&known), &labelled, 0, false);
        assert_eq!(scanned, Verdict::Attributes);
    }
    let older = FileState {
        modified: 0,
        ..file(2)
    };
    let verdict = decide(
        Some(&published(file(1))),
        events(&[Attributes]),
        &older,
        false,
    );
    assert_eq!(verdict, Verdict::Publish, "an older time is a new one, too");
}

/// A touch in the step in which the file was read leaves the same modification time.
#[test]
fn with_coarse_time_stamps_attributes_are_ignored_only_after_the_step() {
    let after = |nanoseconds| FileState {
        modified: SECOND + 1,
        ..file(SECOND + 1 + nanoseconds)
    };
    for (nanoseconds, expected) in [
        (0, Verdict::Publish),
        (4_000_000, Verdict::Publish),
        (30_000_000, Verdict::Attributes),
    ] {
        let known = unsettled(file(SECOND + 1));
        let now = after(nanoseconds);
        let verdict = decide(Some(&known), events(&[Attributes]), &now, false);
        assert_eq!(verdict, expected, "after {nanoseconds} ns");
    }
}

#[test]
fn attributes_of_another_file_do_not_count() {
    let mut other = FileState {
        mode: 0o100600,
        modified: 1,
        ..file(2)
    };
    other.version.inode = 3;
    assert_eq!(
        decide(
            Some(&published(file(1))),
            events(&[Attributes]),
            &other,
            false
        ),
        Verdict::Publish
    );
}

#[test]
fn a_scan_publishes_files_that_changed_since() {
    assert_eq!(decide_by_state(None, &file(5), 5, false), Verdict::Publish);
    assert_eq!(decide_by_state(None, &file(4), 5, false), Verdict::Drop);
    assert_eq!(
        decide_by_state(Some(&published(file(4))), &file(5), 9, false),
        Verdict::Publish
    );
    assert_eq!(
        decide_by_state(Some(&published(file(5))), &file(5), 0, false),
        Verdict::Drop
    );
    assert_eq!(
        decide_by_state(Some(&observed(file(5))), &file(5), 0, false),
        Verdict::Drop
    );
    let chmod = FileState {
        mode: 0o100600,
        modified: 4,
        ..file(5)
    };
    assert_eq!(
        decide_by_state(Some(&published(file(4))), &chmod, 0, false),
        Verdict::Attributes
    );
}

#[test]
fn a_scan_publishes_unfinished_writes_and_unsettled_states() {
    assert_eq!(decide_by_state(None, &file(4), 5, true), Verdict::Publish);
    assert_eq!(
        decide_by_state(Some(&observed(file(4))), &file(4), 5, true),
        Verdict::Publish
    );
    assert_eq!(
        decide_by_state(Some(&unsettled(file(4))), &file(4), 5, false),
        Verdict::Publish
    );
}

#[test]
fn time_stamps_settle_after_their_step() {
    let fine = file(7 * SECOND + 1);
    assert!(!fine.settled(7 * SECOND + 10_000_000));
    assert!(fine.settled(7 * SECOND + 30_000_000));
    let whole_seconds = file(7 * SECOND);
    assert!(!whole_seconds.settled(8 * SECOND));
    assert!(whole_seconds.settled(10 * SECOND));
    assert!(!file(i64::MAX - 1).settled(i64::MAX));
}
