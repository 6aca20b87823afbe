//! A deposed primary that does not know that it is deposed. It is cut off from the other nodes, and answers clients
//! that reach only it, with the data that it had. It accepts writes that no majority will ever have, and acknowledges
//! none of them.

use std::time::Duration;

use super::db::Db;
use crate::chance::Chance;

/// How long it waits for a majority before it reports that there is none: the `wtimeout` of the adapter, in
/// nanoseconds.
const PATIENCE: u64 = 5_000_000_000;

/// The connection of a process to a database, identified by a number. While there are two primaries, the connection
/// alone decides which one the process reaches. A process that has seen the newer one does not go back, because the
/// driver compares the numbers of their elections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection(pub u64);

/// When a primary was cut off, and how long it believed that it was the primary. In nanoseconds since the world began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deposition {
    /// The number of its election.
    pub epoch: u64,
    /// When it was cut off. Since then it gets no writes of the others.
    pub since: u64,
    /// When it steps down.
    pub until: u64,
}

impl Deposition {
    /// Until when this connection treats it as the primary. It is `since` if it never does.
    fn taken_for_primary_until(&self, connection: Connection) -> u64 {
        let mut chance = Chance::new(connection.0 ^ self.epoch.rotate_left(32));
        if chance.happens(600) {
            let lasts = chance.below(self.until - self.since + 1);
            self.since + lasts
        } else {
            self.since
        }
    }

    /// Whether this connection treats it as the primary now.
    pub(super) fn holds(&self, connection: Connection, now: u64) -> bool {
        now >= self.since && now < self.taken_for_primary_until(connection).min(self.until)
    }

    /// Whether this connection treated it as the primary at any time since `time`.
    pub(super) fn held_since(&self, connection: Connection, time: u64) -> bool {
        let last = self.taken_for_primary_until(connection).min(self.until);
        last > self.since && last >= time
    }

    /// After what time a write that arrives now fails.
    pub(super) fn gives_up_after(&self, now: u64) -> Duration {
        Duration::from_nanos(PATIENCE.min(self.until.saturating_sub(now)))
    }
}

/// The data of a deposed primary.
pub(super) struct Deposed<A> {
    pub deposition: Deposition,
    /// Its own data, including writes that no majority has.
    pub primary: Db<A>,
    /// The data that it knows to be on a majority.
    pub majority: Db<A>,
    /// Whether it has data that it does not know to be on a majority.
    pub is_ahead: bool,
}
