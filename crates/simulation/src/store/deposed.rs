//! A primary that was deposed and does not know it: cut off from the others, it answers whoever reaches it alone, with what it had then. It
//! takes writes that no majority will ever have, and acknowledges none of them.

use std::time::Duration;

use super::db::Db;
use crate::chance::Chance;

/// How long it waits for a majority before it says that it has none: the `wtimeout` of the adapter, in nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

/// A process's connection to a database, by a number of its own. Which primary it reaches while there are two depends on that alone: a process that
/// has seen the newer one does not go back, for the driver compares the numbers of their elections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection(pub u64);

/// When a primary was cut off, and how long it believed to be the one. In nanoseconds since the world began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deposition {
    /// Its election.
    pub epoch: u64,
    /// When it was cut off: since then it hears of nothing that the others do.
    pub since: u64,
    /// When it steps down.
    pub until: u64,
}

impl Deposition {
    /// Until when this connection takes it for the primary; `since` where it never does.
    fn taken_for_primary_until(&self, connection: Connection) -> u64 {
        let mut chance = Chance::new(connection.0 ^ self.epoch.rotate_left(32));
        if chance.happens(600) {
            let lasts = chance.below(self.until - self.since + 1);
            self.since + lasts
        } else {
            self.since
        }
    }

    /// Whether this connection takes it for the primary now.
    pub(super) fn holds(&self, connection: Connection, now: u64) -> bool {
        now >= self.since && now < self.taken_for_primary_until(connection).min(self.until)
    }

    /// Whether this connection took it for the primary at any time since this one.
    pub(super) fn held_since(&self, connection: Connection, time: u64) -> bool {
        let last = self.taken_for_primary_until(connection).min(self.until);
        last > self.since && last >= time
    }

    /// After how long a write that arrives now is given up.
    pub(super) fn gives_up_after(&self, now: u64) -> Duration {
        Duration::from_nanos(PATIENCE.min(self.until.saturating_sub(now)))
    }
}

/// What such a primary has.
pub(super) struct Deposed<A> {
    pub deposition: Deposition,
    /// Its own state, with what no majority has.
    pub primary: Db<A>,
    /// What it knows a majority to have.
    pub majority: Db<A>,
    /// Whether it has anything that it does not know a majority to have.
    pub is_ahead: bool,
}
