//! A short run of the crash test. `make torture` kills the daemon 5,000 times.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod built;

use comet_torture::crash::{self, Plan};

fn plan(seed: u64) -> Plan {
    Plan {
        program: built::daemon(),
        library: built::library(),
        seed,
        kills: 200,
        round: 50,
        config: crash::CONFIG.into(),
    }
}

#[test]
fn what_was_acknowledged_survives_200_kills() {
    let survived = crash::run(&plan(1)).unwrap_or_else(|error| panic!("{error:?}"));
    println!("{survived:?}");
    assert_eq!(survived.kills, 200);
    assert!(survived.early > 0 && survived.early < 200, "{survived:?}");
    assert!(survived.acknowledged > 200, "{survived:?}");
}

#[test]
fn a_log_that_was_harmed_is_read_as_far_as_it_goes() {
    let torn = crash::tear(&plan(2), 15).unwrap_or_else(|error| panic!("{error:?}"));
    println!("{torn:?}");
    assert_eq!((torn.appended, torn.cut, torn.changed), (5, 5, 5));
    assert!(torn.told + torn.unknowable > 0, "{torn:?}");
}
