//! A short run of the delivery checker against the real daemon, and against nchan if it is installed.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod built;

use std::time::Duration;

use comet_torture::{
    random::Random,
    scenario::{self, Disturbance, Outcome, Scale},
    server::{self, Comet, Nchan, Server},
    target::Target,
};

const SEED: u64 = 1;

fn check(target: &Target, server: &mut dyn Server, disturbance: Disturbance) -> Outcome {
    let scale = Scale {
        time: Duration::from_millis(1500),
        subscribers: 2,
        publishers: 3,
        channels: 2,
        rate: 50,
        size: 200,
        seed: SEED,
    };
    let transports = target.kind.transports();
    let outcome = scenario::run(target, transports, disturbance, &scale, Some(server)).unwrap();
    for (transport, figures) in &outcome.figures {
        let what = format!("{transport}: {figures:?} {:?}", outcome.examples);
        assert!(figures.due > 0 && !figures.faulty(), "{what}");
        assert_eq!(figures.due, figures.delivered + figures.told, "{what}");
    }
    assert_eq!(outcome.figures.len(), transports.len());
    assert!(outcome.acknowledged > 0);
    outcome
}

fn comet(more: &str) -> Comet {
    let config = &format!("[http]\npublish = true\n{more}");
    let mut random = Random::new(SEED, "server");
    let mut comet = Comet::prepare(&built::daemon(), config, &mut random).unwrap();
    comet.start().unwrap();
    comet.wait().unwrap();
    comet
}

#[test]
fn comet_keeps_its_word_to_clients_that_are_cut_off_slow_or_passing_and_over_restarts() {
    let mut comet = comet("");
    let target = comet.target();
    let calm = check(&target, &mut comet, Disturbance::Calm);
    for (transport, figures) in &calm.figures {
        assert_eq!((figures.told, figures.gaps), (0, 0), "{transport}");
    }
    let cuts = check(&target, &mut comet, Disturbance::Cuts);
    assert!(cuts.cuts > 0 && cuts.reconnects > 0, "{cuts:?}");
    check(&target, &mut comet, Disturbance::Slow);
    check(&target, &mut comet, Disturbance::Churn);
    let restarts = check(&target, &mut comet, Disturbance::Restarts);
    assert!(restarts.restarts > 0, "{restarts:?}");
    for (transport, figures) in &restarts.figures {
        assert_eq!(figures.told, 0, "{transport}: its log has everything");
    }
}

/// nchan's protocol does not report gaps, so the history has room for all messages.
#[test]
fn comet_keeps_its_word_to_clients_of_nchan() {
    let mut comet = comet("[history]\nmessages = 10000\n[compat.nchan]\ntimeout = \"1s\"\n");
    let target = comet.nchan_target();
    for disturbance in [Disturbance::Cuts, Disturbance::Slow, Disturbance::Restarts] {
        check(&target, &mut comet, disturbance);
    }
}

#[test]
fn nchan_is_understood_where_it_is_installed() {
    let Some(nginx) = server::find() else {
        eprintln!("left out: apt-get install nginx libnginx-mod-nchan");
        return;
    };
    let mut random = Random::new(SEED, "nchan");
    let mut nchan = Nchan::start(nginx, 1000, &mut random).unwrap();
    let target = nchan.target();
    check(&target, &mut nchan, Disturbance::Calm);
    let cuts = check(&target, &mut nchan, Disturbance::Cuts);
    assert!(cuts.cuts > 0 && cuts.reconnects > 0, "{cuts:?}");
}
