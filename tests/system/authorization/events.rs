//! Events of subscriptions, each by the rights of its own subscriber. `self` gets its own events while orders of others
//! change. Where several subscribers have the same selection, each one sees only what its own token allows.

use std::time::Duration;

use serde_json::{Value, json};

use super::{FORBIDDEN, LAST_NAME, OTHER, OWN, PLACE, World, order, verdict};
use crate::support::{Client, Subscription, Transport, poll};

// Documents without string literals: only responses to such selections are rendered once for all authorized
// subscribers.
const UPDATED: &str = "subscription { orderUpdated { order { id customer { id } } } }";
const FEED: &str =
    "subscription { orderFeed { ... on OrderUpdate { order { id customer { id } } } } }";
const SNAPSHOT: &str = "subscription { orderFeed(snapshot: true) {
    ... on OrderSnapshot { orders { id customer { id } } }
    ... on OrderUpdate { order { id customer { id } } } } }";
const WITH_NAME: &str =
    "subscription { orderUpdated { order { id customer { id name { lastName } } } } }";

/// How long to wait for an event before the next change is made.
const MOMENT: Duration = Duration::from_millis(50);

/// A subscription, and what it received.
struct Subscriber {
    who: String,
    subscription: Subscription,
    heard: Vec<Value>,
    /// Declared last, so that it is dropped after the subscription.
    _client: Client,
}

impl Subscriber {
    fn new(
        world: &World,
        (subject, scopes): (&str, &str),
        transport: Transport,
        url: &str,
        document: &str,
    ) -> Self {
        let client = Client::with_token(world.issuer.token(subject, scopes));
        Self {
            who: format!("{subject} with {scopes}, {transport:?} {url} {document}"),
            subscription: client.subscribe(transport, url, document, json!({})),
            heard: Vec::new(),
            _client: client,
        }
    }

    /// Reads what has arrived, and skips heartbeats and other empty items.
    fn listen(&mut self) {
        while let Some(event) = self.subscription.next_within(MOMENT) {
            let item = event["data"]["orderFeed"].as_object();
            if !item.is_some_and(|item| item.is_empty()) {
                self.heard.push(event);
            }
        }
    }

    /// The received orders, in the order of the events. A snapshot counts with all its orders.
    fn orders(&self) -> Vec<&Value> {
        let roots = self
            .heard
            .iter()
            .flat_map(|event| ["orderUpdated", "orderFeed"].map(|root| &event["data"][root]));
        roots
            .flat_map(|item| {
                let several = item["orders"].as_array().into_iter().flatten();
                let one = Some(&item["order"]).filter(|order| order.is_object());
                several.chain(one)
            })
            .collect()
    }
}

/// Places an order of another customer, and then one of the customer [`OWN`].
fn place_both(world: &World) {
    for customer in [OTHER, OWN] {
        let variables = json!({"input": order(customer)});
        world.admin.data(&world.gateway(), PLACE, variables);
    }
}

/// Places orders of both customers until each subscriber has received this many events. Some subscriptions begin later
/// than others.
fn place_until_heard(world: &World, subscribers: &mut [Subscriber], least: usize) {
    poll("every subscriber hears of what it may", || {
        place_both(world);
        for subscriber in subscribers.iter_mut() {
            subscriber.listen();
        }
        let all = subscribers
            .iter()
            .all(|subscriber| subscriber.heard.len() >= least);
        all.then_some(())
    });
}

#[test]
fn self_hears_of_its_own_orders_alone_while_those_of_others_change() {
    let world = World::start();
    let transports = [
        Transport::ServerSentEvents,
        Transport::Multipart,
        Transport::WebSocket,
    ];
    for url in [world.gateway(), world.tandem.orders_url("/graphql")] {
        for transport in transports {
            let mut subscribers = Vec::new();
            for document in [UPDATED, FEED, SNAPSHOT] {
                for customer in [OWN, OTHER] {
                    let bearer = (customer, "self");
                    subscribers.push(Subscriber::new(&world, bearer, transport, &url, document));
                }
            }
            // Between two events of one customer there was an event of the other.
            place_until_heard(&world, &mut subscribers, 3);
            for subscriber in &subscribers {
                let (who, orders) = (&subscriber.who, subscriber.orders());
                let own = if who.starts_with(OWN) { OWN } else { OTHER };
                assert!(orders.len() >= 3, "{who}: {:?}", subscriber.heard);
                for event in &subscriber.heard {
                    assert!(event["errors"].is_null(), "{who}: {event}");
                }
                for order in orders {
                    assert_eq!(order["customer"]["id"], own, "{who}: {order}");
                }
            }
        }
    }
}

#[test]
fn who_selects_the_same_at_the_same_time_is_shown_what_their_own_token_allows() {
    let world = World::start();
    // Each bearer, with whether the name is shown.
    let mut bearers = [
        (("reader", "orders:read"), false),
        (("reader", "orders:read customers:read"), true),
        ((OWN, "self"), true),
        ((OTHER, "self"), true),
        ((OWN, "orders:read"), false),
    ];
    for url in [world.gateway(), world.tandem.orders_url("/graphql")] {
        // Two rounds: the first subscriber's rights must not decide for the others.
        for _ in 0..2 {
            let transport = Transport::ServerSentEvents;
            let mut subscribers: Vec<Subscriber> = bearers
                .iter()
                .map(|(bearer, _)| Subscriber::new(&world, *bearer, transport, &url, WITH_NAME))
                .collect();
            place_until_heard(&world, &mut subscribers, 2);
            for (((subject, scopes), is_shown), subscriber) in bearers.iter().zip(&subscribers) {
                for event in &subscriber.heard {
                    let told = format!("{}: {event}", subscriber.who);
                    if !is_shown {
                        assert_eq!(verdict(event), Some(FORBIDDEN), "{told}");
                        assert!(!told.contains(LAST_NAME), "{told}");
                        continue;
                    }
                    let customer = &event["data"]["orderUpdated"]["order"]["customer"];
                    assert_eq!(customer["name"]["lastName"], LAST_NAME, "{told}");
                    if *scopes == "self" {
                        assert_eq!(customer["id"], *subject, "{told}");
                    }
                }
            }
            bearers.reverse();
        }
    }
}
