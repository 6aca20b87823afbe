//! Request bodies that are being received or wait to be parsed.
//!
//! There is a bound for all of them together and one for each client. A client that starts many large bodies and
//! completes none only fills its own share.

use super::admission::{Client, Counted, Counter};

/// A body of up to this many bytes is not counted. Nearly all bodies are this small.
const SMALL: usize = 16 * 1024;
/// Beyond that it is counted in steps of this many bytes.
const STEP: usize = 64 * 1024;
/// The message for a client whose body has no room.
pub(crate) const TOO_MUCH_ARRIVING: &str = "bodies that are still arriving, of all or of this client, are as large as what is held: let some end, and send this one again";

/// There is no room for more of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// The most bytes that count for one body if the largest body has `body` bytes: the received ones and the decoded ones.
pub(crate) fn largest(body: usize) -> usize {
    body.saturating_mul(2).saturating_add(STEP)
}

/// The buffered bytes of one body. They are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Arriving {
    bodies: Counter,
    client: Client,
    counted: Option<Counted>,
    bytes: usize,
}

impl Arriving {
    /// Starts to count a body of this client.
    pub(crate) fn new(bodies: &Counter, client: Client) -> Self {
        Self {
            bodies: bodies.clone(),
            client,
            counted: None,
            bytes: 0,
        }
    }

    /// Counts this many bytes in total, if they are many. The count never shrinks.
    ///
    /// # Errors
    /// When the client, or all clients together, have too many bytes.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let wanted = bytes.div_ceil(STEP).saturating_mul(STEP);
        if bytes <= SMALL || wanted <= self.bytes {
            return Ok(());
        }
        let more = wanted - self.bytes;
        let is_counted = match &mut self.counted {
            Some(counted) => counted.grow(more),
            None => {
                self.counted = self.bodies.admit_many(self.client, more);
                self.counted.is_some()
            }
        };
        if !is_counted {
            return Err(NoRoom);
        }
        self.bytes = wanted;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::admission::Most;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn who_begins_many_large_bodies_fills_a_share_and_what_ends_makes_room() {
        let most = Most {
            of_all: 5 * STEP,
            of_address: 3 * STEP,
            of_subject: 2 * STEP,
        };
        let bodies = Counter::new("test", most);
        let begun = |address, bytes| {
            let mut body = Arriving::new(&bodies, client(address));
            body.hold(bytes).map(|()| body)
        };
        let mut slow = begun("10.0.0.1", SMALL + 1).unwrap();
        slow.hold(STEP).unwrap();
        slow.hold(2 * STEP).unwrap();
        slow.hold(1).unwrap();
        let last = begun("10.0.0.1", STEP).unwrap();
        assert_eq!(slow.hold(2 * STEP + 1), Err(NoRoom));
        assert_eq!(begun("10.0.0.1", STEP).err(), Some(NoRoom));
        // Small bodies and those of others still pass, as long as the common bound permits.
        assert!(begun("10.0.0.1", SMALL).is_ok());
        let _other = begun("10.0.0.2", 2 * STEP).unwrap();
        assert_eq!(begun("10.0.0.3", STEP).err(), Some(NoRoom));
        drop(last);
        slow.hold(3 * STEP).unwrap();
        drop(slow);
        assert!(begun("10.0.0.1", 3 * STEP).is_ok());
    }

    #[test]
    fn the_largest_body_of_one_client_has_room_when_it_is_decoded() {
        for body in [1, 1 << 20, 1 << 30] {
            let bodies = Counter::new("test", Most::body_bytes(largest(body)));
            let mut arriving = Arriving::new(&bodies, Client::named("7"));
            assert_eq!(arriving.hold(2 * body), Ok(()));
        }
    }
}
