//! Where a subscriber is in the lists of its channels.

/// The positions of one subscriber, in the order of the lists' numbers. Nearly every subscriber has one position, which needs
/// no allocation.
pub(super) enum Positions {
    One([Position; 1]),
    Many(Box<[Position]>),
}

#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) list: u32,
    pub(super) index: u32,
}

impl Positions {
    /// Positions in these lists, without repetitions. The indexes are set later.
    pub(super) fn in_lists(mut lists: impl ExactSizeIterator<Item = u32>) -> Self {
        let position = |list| Position { list, index: 0 };
        if lists.len() == 1
            && let Some(list) = lists.next()
        {
            return Self::One([position(list)]);
        }
        let mut many: Box<[Position]> = lists.map(position).collect();
        many.sort_unstable_by_key(|position| position.list);
        Self::Many(many)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Position> {
        match self {
            Self::One(one) => one.iter(),
            Self::Many(many) => many.iter(),
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Position> {
        match self {
            Self::One(one) => one.iter_mut(),
            Self::Many(many) => many.iter_mut(),
        }
    }

    /// The position in this list.
    pub(super) fn in_list(&mut self, list: u32) -> Option<&mut Position> {
        match self {
            Self::One([one]) => Some(one).filter(|one| one.list == list),
            Self::Many(many) => {
                let place = many.binary_search_by_key(&list, |position| position.list);
                Some(&mut many[place.ok()?])
            }
        }
    }

    /// Adds a position, unless there is one in this list. Returns whether it was added.
    pub(super) fn add(&mut self, new: Position) -> bool {
        self.change(|many| {
            let place = many.binary_search_by_key(&new.list, |position| position.list);
            place.map_err(|place| many.insert(place, new)).is_err()
        })
    }

    /// Removes the position in this list.
    pub(super) fn remove(&mut self, list: u32) -> Option<Position> {
        self.change(|many| {
            let place = many.binary_search_by_key(&list, |position| position.list);
            Some(many.remove(place.ok()?))
        })
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Vec<Position>) -> T) -> T {
        let mut many = match std::mem::replace(self, Self::Many(Box::default())) {
            Self::One(one) => one.to_vec(),
            Self::Many(many) => many.into_vec(),
        };
        let result = change(&mut many);
        *self = Self::Many(many.into());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(positions: &Positions) -> Vec<u32> {
        positions.iter().map(|position| position.list).collect()
    }

    #[test]
    fn stay_in_order_when_lists_come_and_go() {
        let mut positions = Positions::in_lists([7, 3, 5].into_iter());
        assert_eq!(lists(&positions), [3, 5, 7]);
        let new = Position { list: 4, index: 9 };
        assert!(positions.add(new));
        assert!(!positions.add(new), "it is there already");
        assert_eq!(lists(&positions), [3, 4, 5, 7]);
        assert_eq!(positions.in_list(4).unwrap().index, 9);
        assert!(positions.remove(5).is_some());
        assert!(positions.remove(5).is_none());
        assert!(positions.in_list(5).is_none());
        assert_eq!(lists(&positions), [3, 4, 7]);
    }

    #[test]
    fn one_position_needs_no_allocation() {
        assert_eq!(size_of::<Positions>(), 16);
        let one = Positions::in_lists([7].into_iter());
        assert!(matches!(one, Positions::One(_)));
    }
}
