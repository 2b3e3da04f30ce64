//! libFuzzer with the daemon's properties: `COMET_FUZZ=TARGET comet-fuzz FLAGS CORPUS…`; `make fuzz` knows the flags.
#![no_main]

use std::{env, process, sync::LazyLock};

use comet_daemon::fuzz::TARGETS;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = env::var("COMET_FUZZ").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == wanted);
    let Some(target) = target else {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!(
            "comet-fuzz: COMET_FUZZ must name one of: {}",
            known.join(" ")
        );
        process::exit(2);
    };
    target.check
});

fuzz_target!(|bytes: &[u8]| CHECK(bytes));
