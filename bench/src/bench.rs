//! The settings of one run: which servers take part, and at which scale.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use anyhow::Result;

use crate::{kind::Kind, scale::Scale, server::Server};

/// Comet's configuration. `POST /ch/NAME` may publish, which is off by default. Messages are kept in memory only, as
/// the other servers do.
const CONFIG: &str = "[http]\npublish = true\n[store]\ndurability = \"memory\"\n";

pub(crate) struct Bench {
    /// Path of the daemon's program.
    pub(crate) comet: PathBuf,
    pub(crate) scale: Scale,
    /// The servers that take part. An empty list means all of them.
    pub(crate) only: Vec<Kind>,
    left_out: RefCell<BTreeMap<Kind, String>>,
}

impl Bench {
    pub(crate) fn new(comet: PathBuf, scale: Scale, only: Vec<Kind>) -> Self {
        Self {
            comet,
            scale,
            only,
            left_out: RefCell::default(),
        }
    }

    pub(crate) fn wants(&self, kind: Kind) -> bool {
        self.only.is_empty() || self.only.contains(&kind)
    }

    /// Starts a new server. `None`: the server was not asked for or cannot run here. The reason is printed once.
    pub(crate) fn server(&self, kind: Kind) -> Result<Option<Server>> {
        if !self.wants(kind) || self.left_out.borrow().contains_key(&kind) {
            return Ok(None);
        }
        let started = match kind {
            Kind::Comet => Ok(Server::comet(&self.comet, CONFIG, None)?),
            Kind::Floor => Ok(Server::floor()?),
            Kind::Nchan | Kind::Pushpin | Kind::Php => Server::peer(kind)?,
        };
        Ok(started
            .map_err(|why| {
                eprintln!("{} is left out: {why}", kind.label());
                self.left_out.borrow_mut().insert(kind, why);
            })
            .ok())
    }

    /// Starts those of `kinds` that take part.
    pub(crate) fn servers(&self, kinds: &[Kind]) -> Result<Vec<Server>> {
        let servers = kinds.iter().map(|&kind| self.server(kind));
        servers.filter_map(Result::transpose).collect()
    }

    pub(crate) fn left_out(&self) -> BTreeMap<Kind, String> {
        self.left_out.borrow().clone()
    }
}
