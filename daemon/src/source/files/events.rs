//! The events of one name, and what several of them mean together.

/// An event of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The file was created or linked.
    Created,
    /// Content was written or truncated.
    Modified,
    /// A writer closed the file.
    Closed,
    /// Its times, mode, owner or links changed.
    Attributes,
    /// A file was moved to this name.
    MovedTo,
    /// The file was deleted or moved away.
    Gone,
}

/// All events of a name since it was last handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) created: bool,
    pub(super) modified: bool,
    pub(super) closed: bool,
    pub(super) attributes: bool,
    pub(super) moved_to: bool,
    /// The name was given to another file; the other fields are about the last file.
    pub(super) replaced: bool,
    /// Whether a writer has the file open: created or modified, and not closed since. `None`: none of these events came.
    pub(super) open: Option<bool>,
}

impl Events {
    /// The events of a file that was written and closed.
    pub(super) const WRITTEN: Self = Self {
        created: false,
        modified: true,
        closed: true,
        attributes: false,
        moved_to: false,
        replaced: false,
        open: Some(false),
    };

    pub(super) fn add(&mut self, event: Event) {
        match event {
            Event::Created => {
                self.created = true;
                self.open = Some(true);
            }
            Event::Modified => {
                self.modified = true;
                self.open = Some(true);
            }
            Event::Closed => {
                self.closed = true;
                self.open = Some(false);
            }
            Event::Attributes => self.attributes = true,
            Event::MovedTo => {
                *self = Self {
                    moved_to: true,
                    replaced: true,
                    ..Self::default()
                }
            }
            Event::Gone => {
                *self = Self {
                    replaced: true,
                    ..Self::default()
                }
            }
        }
    }

    /// Joins these events with later ones.
    pub(super) fn then(self, later: Self) -> Self {
        if later.replaced {
            return later;
        }
        Self {
            created: self.created || later.created,
            modified: self.modified || later.modified,
            closed: self.closed || later.closed,
            attributes: self.attributes || later.attributes,
            moved_to: self.moved_to || later.moved_to,
            replaced: self.replaced,
            open: later.open.or(self.open),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(list: &[Event]) -> Events {
        let mut events = Events::default();
        list.iter().for_each(|event| events.add(*event));
        events
    }

    #[test]
    fn remembers_whether_a_writer_has_it_open() {
        use Event::*;
        assert_eq!(events(&[Attributes]).open, None);
        assert_eq!(events(&[Created, Attributes]).open, Some(true));
        assert_eq!(events(&[Created, Closed, Attributes]).open, Some(false));
        assert_eq!(events(&[Modified, Closed, Modified]).open, Some(true));
    }

    #[test]
    fn forgets_what_happened_to_a_file_that_lost_its_name() {
        use Event::*;
        assert_eq!(events(&[Created, Modified, Gone]), events(&[Gone]));
        assert_eq!(events(&[Modified, MovedTo]), events(&[MovedTo]));
        let install = events(&[Closed, Gone, Created, Modified]);
        assert!(install.replaced && install.created && !install.closed);
    }

    #[test]
    fn joins_as_if_all_had_come_at_once() {
        use Event::*;
        let all = [Created, Modified, Closed, Attributes, MovedTo, Gone];
        for first in all {
            for second in all {
                for third in all {
                    let at_once = events(&[first, second, third]);
                    assert_eq!(events(&[first]).then(events(&[second, third])), at_once);
                    assert_eq!(events(&[first, second]).then(events(&[third])), at_once);
                }
            }
        }
    }
}
