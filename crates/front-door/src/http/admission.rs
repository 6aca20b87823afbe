//! Rate limits and quotas: by address, by subject, and for all clients together.
//!
//! A refusal costs one look-up. A request that costs more than a small one is charged more of the same share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use sha2::{Digest, Sha256};

use crate::settings::FrontDoorSettings;

/// After this many new addresses, those without recent requests are forgotten.
const FORGET_EVERY: usize = 4_096;
/// The most clients that are counted separately. All others share one quota, so that nobody can fill the memory with
/// addresses.
const MOST_CLIENTS: usize = 100_000;

/// The key by which a client is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// The address. For IPv6 it is the network of 64 bits, which a provider assigns to a single customer.
    Address(IpAddr),
    /// The digest of the token's subject: a subject may be long, and keys should be small.
    Subject([u8; 16]),
}

impl Client {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        })
    }

    /// The caller with this subject, from any address.
    pub(crate) fn named(subject: &str) -> Self {
        let mut short = [0; 16];
        for (byte, of_digest) in short.iter_mut().zip(Sha256::digest(subject)) {
            *byte = of_digest;
        }
        Self::Subject(short)
    }

    /// All clients that come when too many are known.
    const REST: Self = Self::Address(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
}

/// The most that may be open at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    pub(crate) of_all: usize,
    pub(crate) of_address: usize,
    pub(crate) of_subject: usize,
}

/// Default numbers of subscriptions that one client may have open at once.
const SUBSCRIPTIONS_OF_AN_ADDRESS: usize = 16_000;
const SUBSCRIPTIONS_OF_A_SUBJECT: usize = 1_000;
/// Bounds on the bytes of large answers that slow clients have not read. The same bounds apply to bodies that clients
/// send slowly or never complete.
const BYTES_OF_ALL: usize = 256 * 1024 * 1024;
const BYTES_OF_AN_ADDRESS: usize = 128 * 1024 * 1024;
const BYTES_OF_A_SUBJECT: usize = 64 * 1024 * 1024;

impl Most {
    /// The most subscriptions that may be open at once.
    pub(crate) fn subscriptions(settings: &FrontDoorSettings) -> Self {
        let set = settings.max_subscriptions_per_client;
        Self {
            of_all: usize::MAX,
            of_address: set.unwrap_or(SUBSCRIPTIONS_OF_AN_ADDRESS),
            of_subject: set.unwrap_or(SUBSCRIPTIONS_OF_A_SUBJECT),
        }
    }

    /// The most requests that may be in flight at once. Slow senders leave room for others.
    pub(crate) fn in_flight(settings: &FrontDoorSettings) -> Self {
        let (of_all, set) = (settings.max_in_flight, settings.max_in_flight_per_client);
        Self {
            of_all,
            of_address: set.unwrap_or(of_all.div_ceil(2)),
            of_subject: set.unwrap_or(of_all.div_ceil(4)),
        }
    }

    /// The most bytes of large answers that may wait for their clients. `largest` is the size of the largest answer.
    pub(crate) fn answer_bytes(largest: usize) -> Self {
        Self {
            of_all: BYTES_OF_ALL.max(largest),
            of_address: BYTES_OF_AN_ADDRESS.max(largest),
            of_subject: BYTES_OF_A_SUBJECT.max(largest),
        }
    }

    /// The most bytes of bodies that may still be arriving. `largest` is the size of the largest body.
    pub(crate) fn body_bytes(largest: usize) -> Self {
        Self::answer_bytes(largest)
    }
}

/// Counts what is open, for each client and for all of them.
#[derive(Debug, Clone)]
pub(crate) struct Counter(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    /// The gauge that shows the total, if there is one.
    gauge: Option<&'static str>,
    most: Most,
    all: AtomicUsize,
    of_client: Mutex<HashMap<Client, usize>>,
}

/// One or several open items. They are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    counts: Arc<Counts>,
    client: Client,
    count: usize,
}

impl Counter {
    pub(crate) fn new(gauge: impl Into<Option<&'static str>>, most: Most) -> Self {
        let gauge = gauge.into();
        // The gauge exists from the start. A series that only begins with the first item would look as if it were
        // missing.
        if let Some(gauge) = gauge {
            metrics::gauge!(gauge).increment(0.0);
        }
        Self(Arc::new(Counts {
            gauge,
            most,
            all: AtomicUsize::new(0),
            of_client: Mutex::default(),
        }))
    }

    /// Admits one more item of this client, unless the bound is reached.
    pub(crate) fn admit(&self, client: Client) -> Option<Counted> {
        self.admit_many(client, 1)
    }

    /// Admits this many more items of this client, unless the bound is reached.
    pub(crate) fn admit_many(&self, client: Client, count: usize) -> Option<Counted> {
        self.0.take(client, count).then(|| Counted {
            counts: Arc::clone(&self.0),
            client,
            count,
        })
    }
}

impl Counts {
    /// Counts this many more items of a client. Returns whether the bound permits it.
    fn take(&self, client: Client, count: usize) -> bool {
        let most = match client {
            Client::Address(_) => self.most.of_address,
            Client::Subject(_) => self.most.of_subject,
        };
        let mut of_client = self
            .of_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let all = self.all.load(Ordering::Relaxed).saturating_add(count);
        let open = of_client.get(&client).copied().unwrap_or_default();
        let open = open.saturating_add(count);
        if all > self.most.of_all || open > most {
            return false;
        }
        of_client.insert(client, open);
        self.all.store(all, Ordering::Relaxed);
        if let Some(gauge) = self.gauge {
            metrics::gauge!(gauge).increment(shown(count));
        }
        true
    }
}

impl Counted {
    /// Adds this many more items, which are counted as long as this lives. Returns whether the bound permits it.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let may = self.counts.take(self.client, more);
        if may {
            self.count += more;
        }
        may
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut of_client = self
            .counts
            .of_client
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = of_client.get_mut(&self.client) {
            *open -= self.count;
            if *open == 0 {
                of_client.remove(&self.client);
            }
        }
        self.counts.all.fetch_sub(self.count, Ordering::Relaxed);
        if let Some(gauge) = self.counts.gauge {
            metrics::gauge!(gauge).decrement(shown(self.count));
        }
    }
}

/// A number as the value of a gauge.
#[allow(clippy::cast_precision_loss)]
fn shown(count: usize) -> f64 {
    count as f64
}

/// The rate limit: requests per second of each client.
#[derive(Debug)]
pub(crate) struct Rate {
    limiter: DefaultKeyedRateLimiter<Client>,
    clock: DefaultClock,
    /// The most that a single charge may cost, in requests. It is a third of a burst, so that a request, its body and
    /// its document together are possible.
    dearest: u32,
    since_forgotten: AtomicUsize,
}

impl Rate {
    pub(crate) fn new(settings: &FrontDoorSettings) -> Self {
        Self {
            limiter: RateLimiter::keyed(Quota::per_second(settings.rate_limit)),
            clock: DefaultClock::default(),
            dearest: settings.rate_limit.get() / 3,
            since_forgotten: AtomicUsize::new(0),
        }
    }

    /// Charges one request to this client.
    ///
    /// # Errors
    /// How long it takes until one request is possible again.
    pub(crate) fn take(&self, client: Client) -> Result<(), Duration> {
        if self.since_forgotten.fetch_add(1, Ordering::Relaxed) >= FORGET_EVERY {
            self.since_forgotten.store(0, Ordering::Relaxed);
            if self.limiter.len() > FORGET_EVERY {
                self.limiter.retain_recent();
                self.limiter.shrink_to_fit();
            }
        }
        self.limiter
            .check_key(&self.known(client))
            .map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Charges this client for work that costs as much as this many requests.
    ///
    /// # Errors
    /// How long it takes until this many are possible.
    pub(crate) fn take_more(&self, client: Client, requests: u32) -> Result<(), Duration> {
        let Some(requests) = NonZeroU32::new(requests.min(self.dearest)) else {
            return Ok(());
        };
        match self.limiter.check_key_n(&self.known(client), requests) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(until.wait_time_from(self.clock.now())),
            // The charge exceeds what a burst permits. A third of a burst never does.
            Err(_) => Err(Duration::from_secs(1)),
        }
    }

    fn known(&self, client: Client) -> Client {
        if self.limiter.len() > MOST_CLIENTS {
            Client::REST
        } else {
            client
        }
    }
}

/// The share of one client. It pays for what a request costs beyond a small one.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    rate: Arc<Rate>,
    client: Client,
}

impl Share {
    pub(crate) fn new(rate: &Arc<Rate>, client: Client) -> Self {
        Self {
            rate: Arc::clone(rate),
            client,
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client
    }

    /// Charges for work that costs as much as this many requests.
    ///
    /// # Errors
    /// How long it takes until this many are possible.
    pub(crate) fn pay(&self, requests: u32) -> Result<(), Duration> {
        self.rate.take_more(self.client, requests)
    }
}

/// This many bytes of a body or document cost as much as one request.
const BYTES_OF_A_REQUEST: usize = 4 * 1024;

/// The cost of this many bytes, in requests. The first few bytes are included in the request.
pub(crate) fn cost_of_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes / BYTES_OF_A_REQUEST).unwrap_or(u32::MAX)
}

/// The message for a client that sends requests too fast.
pub(crate) const TOO_FAST: &str = "requests come faster than this port takes them of one client";

/// Whole seconds, at least one, as in `Retry-After`.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::num::NonZeroU32;

    use super::*;

    fn client(text: &str) -> Client {
        Client::of(text.parse().unwrap())
    }

    #[test]
    fn each_client_and_all_together_have_a_bound_and_what_ends_makes_room() {
        let most = Most {
            of_all: 3,
            of_address: 2,
            of_subject: 1,
        };
        let counter = Counter::new("test", most);
        let (one, other) = (client("10.0.0.1"), client("10.0.0.2"));
        let first = counter.admit(one).unwrap();
        let _second = counter.admit(one).unwrap();
        assert!(counter.admit(one).is_none());
        let third = counter.admit(other).unwrap();
        assert!(counter.admit(other).is_none());
        drop(first);
        let known = counter.admit(Client::named("7")).unwrap();
        assert!(counter.admit(one).is_none());
        drop((known, third));
        let _known = counter.admit(Client::named("7")).unwrap();
        assert!(counter.admit(Client::named("7")).is_none());
        assert!(counter.admit(one).is_some());
    }

    #[test]
    fn a_client_that_is_refused_is_not_remembered_and_several_are_counted_as_many() {
        let most = Most::answer_bytes(1_000);
        let counter = Counter::new("test", most);
        let one = client("10.0.0.1");
        assert!(counter.admit_many(one, most.of_address + 1).is_none());
        assert!(counter.0.of_client.lock().unwrap().is_empty());
        let half = counter.admit_many(one, most.of_address / 2).unwrap();
        let _other = counter.admit_many(one, most.of_address / 2).unwrap();
        assert!(counter.admit(one).is_none());
        drop(half);
        assert!(counter.admit(one).is_some());
        assert!(
            counter
                .admit_many(client("10.0.0.2"), most.of_address)
                .is_some()
        );
        assert!(Most::answer_bytes(usize::MAX).of_subject == usize::MAX);
    }

    #[test]
    fn requests_of_one_client_leave_room_for_those_of_others() {
        let settings = FrontDoorSettings {
            max_in_flight: 8,
            ..FrontDoorSettings::default()
        };
        let counter = Counter::new("test", Most::in_flight(&settings));
        let taken = |client| std::iter::from_fn(|| counter.admit(client)).collect::<Vec<_>>();
        let slow = taken(client("10.0.0.1"));
        assert_eq!(slow.len(), 4);
        let known = taken(Client::named("7"));
        assert_eq!(known.len(), 2);
        assert_eq!(taken(client("10.0.0.2")).len(), 2);
        let set = FrontDoorSettings {
            max_in_flight_per_client: Some(8),
            ..settings
        };
        assert_eq!(Most::in_flight(&set).of_address, 8);
    }

    #[test]
    fn a_client_is_its_address_or_its_network() {
        assert_eq!(client("::ffff:10.0.0.1"), client("10.0.0.1"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(Client::named("7"), Client::named("7"));
        assert_ne!(Client::named("7"), Client::named("8"));
    }

    #[test]
    fn who_asks_too_often_is_told_when_to_come_again_and_others_are_not() {
        let rate = Rate::new(&FrontDoorSettings {
            rate_limit: NonZeroU32::new(5).unwrap(),
            ..FrontDoorSettings::default()
        });
        let refused = (0..20)
            .filter_map(|_| rate.take(client("10.0.0.1")).err())
            .last()
            .unwrap();
        assert_eq!(whole_seconds(refused), 1);
        assert!(rate.take(client("10.0.0.2")).is_ok());
    }

    #[test]
    fn what_costs_much_is_paid_as_so_many_requests_and_never_more_than_can_be_had() {
        let rate = Arc::new(Rate::new(&FrontDoorSettings {
            rate_limit: NonZeroU32::new(100).unwrap(),
            ..FrontDoorSettings::default()
        }));
        let share = |text| Share::new(&rate, client(text));
        let one = share("10.0.0.1");
        assert_eq!(one.pay(0), Ok(()));
        for _ in 0..3 {
            assert_eq!(one.pay(30), Ok(()));
        }
        // The rest is less than that. Light requests still pass.
        assert!(one.pay(30).unwrap_err() < Duration::from_secs(1));
        assert!(rate.take(one.client()).is_ok());
        assert_eq!(share("10.0.0.2").pay(u32::MAX), Ok(()));
        assert_eq!(cost_of_bytes(4_095), 0);
        assert_eq!(cost_of_bytes(1 << 20), 256);
    }
}
