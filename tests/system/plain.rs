//! `--personal-data plain`: readable events, switched on and off on the same data, and what an erasure still does.

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Signal, Tandem,
    checker::{CUSTOMER_TOPIC, LoggedEvent, ORDER_TOPIC, whole_topic},
    graph::{CREATE, PLACE, UPDATE, order_input},
    poll,
    site::{Site, traces},
};

const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } } }";
const ORDERING: &str = "query($id: ID!) { orderingCustomer(id: $id) {
    name { lastName } contact { email } addresses { address1 } replica { revision } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) { status shipTo { address1 } } }";
const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";
/// The setting of accounts, which `up` passes on.
const SETTING: &str = "--personal-data";

/// Last names, one for each revision. They do not occur by chance.
const SEALED: [&str; 2] = ["Qzavelmorsk", "Wrexundolby"];
const PLAIN: [&str; 2] = ["Yorvenstratl", "Pliskorvanta"];
const STREET: &str = "Krundomezoi 71";

fn person(id: &str, last_name: &str) -> Value {
    json!({
        "id": id,
        "name": {"firstName": "Ada", "lastName": last_name},
        "contact": {"primaryPhone": "+44 20 7946 0001", "email": "ada@example.org"},
        "addresses": [{"type": "SHIPPING", "address1": STREET, "city": "Ockham", "state": "Surrey", "postalCode": "1"}],
        "creditCards": [{"type": "PRIMARY", "number": "4111111111111111", "expiration": "12/29", "nameOnCard": "Ada L"}],
    })
}

fn renamed(id: &str, last_name: &str) -> Value {
    json!({"id": id, "input": {"name": {"firstName": "Ada", "lastName": last_name}}})
}

fn with(
    setting: &str,
) -> impl FnOnce(super::support::TandemBuilder) -> super::support::TandemBuilder {
    let setting = setting.to_owned();
    move |builder| builder.flag(SETTING).flag(setting)
}

/// The system, used like a client, and observed like a reader of the topics.
struct Story<'a> {
    tandem: &'a Tandem,
    client: &'a Client,
}

impl Story<'_> {
    fn data(&self, query: &str, variables: Value) -> Value {
        self.client
            .data(&self.tandem.gateway_url("/graphql"), query, variables)
    }

    /// The event of a customer's revision, as any consumer reads it.
    fn event(&self, id: &str, revision: i64) -> LoggedEvent {
        poll(&format!("revision {revision} of {id} in the topic"), || {
            let found = self.events(CUSTOMER_TOPIC).into_iter();
            let mut wanted =
                found.filter(|event| (event.key.as_str(), event.revision) == (id, revision));
            wanted.next()
        })
    }

    fn events(&self, topic: &str) -> Vec<LoggedEvent> {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", self.tandem.bootstrap_servers());
        whole_topic(&config, topic)
    }

    /// The event of a placed order.
    fn order_event(&self, id: &str) -> LoggedEvent {
        poll("the order's event in the topic", || {
            let found = self.events(ORDER_TOPIC).into_iter();
            found.into_iter().find(|event| event.key == id)
        })
    }

    fn place(&self, customer: &str) -> String {
        let placed = self.data(PLACE, json!({"input": order_input(customer)}));
        placed["placeOrder"]["order"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn last_name(&self, id: &str) -> Value {
        self.data(CUSTOMER, json!({"id": id}))["customer"]["name"]["lastName"].clone()
    }

    /// Checks that orders reads the customer with this revision and name.
    fn is_read(&self, id: &str, revision: i64, last_name: &str) {
        self.tandem.replicated(self.client, id, revision);
        let read = self.data(ORDERING, json!({"id": id}));
        assert_eq!(read["orderingCustomer"]["name"]["lastName"], last_name);
        assert_eq!(read["orderingCustomer"]["addresses"][0]["address1"], STREET);
    }

    fn ships_to(&self, order: &str) -> Value {
        self.data(ORDER, json!({"id": order}))["order"]["shipTo"]["address1"].clone()
    }

    fn rebuild_both(&self) {
        self.tandem.operated(&["rebuild", "accounts"]);
        self.tandem.operated(&["rebuild", "orders"]);
    }

    fn audit(&self, id: &str) -> String {
        self.tandem.operated(&["audit", "customer", id])
    }

    /// Erases the customer and waits until nothing of the person is shown, now and after a rebuild.
    fn erase(&self, id: &str, orders: &[&str], revision: i64) {
        let erased = self.data(ERASE, json!({"id": id}));
        assert_eq!(erased["eraseCustomer"]["id"], id);
        let told = self.event(id, revision);
        assert_eq!(told.body["changeType"], "ERASED");
        assert!(told.body["name"].is_null() && told.body["sealed"].is_null());
        let is_forgotten = || {
            self.data(CUSTOMER, json!({"id": id}))["customer"].is_null()
                && self.data(ORDERING, json!({"id": id}))["orderingCustomer"].is_null()
                && orders.iter().all(|order| self.ships_to(order).is_null())
        };
        poll("the person is forgotten", || is_forgotten().then_some(()));
        self.rebuild_both();
        assert!(is_forgotten());
        for order in orders {
            assert_eq!(
                self.data(ORDER, json!({"id": order}))["order"]["status"],
                "PLACED"
            );
        }
    }
}

fn is_plain(event: &LoggedEvent, last_name: &str) {
    assert_eq!(event.headers["ce_specversion"], "1.0");
    assert_eq!(event.headers["ce_type"], "CustomerChangeEvent");
    assert_eq!(event.body["name"]["lastName"], last_name);
    assert_eq!(event.body["addresses"][0]["address1"], STREET);
    assert!(event.body["sealed"].is_null());
    assert!(!String::from_utf8_lossy(&event.payload).contains("4111111111111111"));
}

fn is_sealed(event: &LoggedEvent) {
    assert!(event.body["sealed"].is_string() && event.body["name"].is_null());
}

#[test]
fn sealed_and_plain_are_switched_on_the_same_data_and_erasing_forgets_both() {
    let directory = tempfile::tempdir().unwrap();
    let start = |setting: &str| {
        let builder = Tandem::builder().data_dir(directory.path());
        with(setting)(builder).start()
    };
    let end = |mut tandem: Tandem| {
        tandem.process.signal(Signal::TERM);
        tandem
            .process
            .wait_for_end(std::time::Duration::from_secs(20));
    };
    let client = Client::new();

    let tandem = start("sealed");
    let story = Story {
        tandem: &tandem,
        client: &client,
    };
    story.data(CREATE, json!({"input": person("gone", SEALED[0])}));
    is_sealed(&story.event("gone", 1));
    story.is_read("gone", 1, SEALED[0]);
    let first = story.place("gone");
    assert!(story.order_event(&first).body["shipTo"].is_null());
    end(tandem);

    let tandem = start("plain");
    let story = Story {
        tandem: &tandem,
        client: &client,
    };
    assert_eq!(story.last_name("gone"), SEALED[0]);
    story.data(UPDATE, renamed("gone", PLAIN[0]));
    is_plain(&story.event("gone", 2), PLAIN[0]);
    story.is_read("gone", 2, PLAIN[0]);
    let second = story.place("gone");
    assert_eq!(
        story.order_event(&second).body["shipTo"]["address1"],
        STREET
    );
    // A customer that never had a key.
    story.data(CREATE, json!({"input": person("keyless", PLAIN[1])}));
    is_plain(&story.event("keyless", 1), PLAIN[1]);
    story.is_read("keyless", 1, PLAIN[1]);
    // The key is not part of a plain event. A rebuild from such an event must not lose the key.
    story.rebuild_both();
    assert_eq!(story.last_name("gone"), PLAIN[0]);
    end(tandem);

    let tandem = start("sealed");
    let story = Story {
        tandem: &tandem,
        client: &client,
    };
    story.data(UPDATE, renamed("gone", SEALED[1]));
    is_sealed(&story.event("gone", 3));
    story.is_read("gone", 3, SEALED[1]);
    story.data(UPDATE, renamed("keyless", SEALED[0]));
    is_sealed(&story.event("keyless", 2));
    story.is_read("keyless", 2, SEALED[0]);
    // What was sealed at first still opens.
    story.rebuild_both();
    assert_eq!(story.last_name("gone"), SEALED[1]);
    story.is_read("gone", 3, SEALED[1]);
    for order in [&first, &second] {
        assert_eq!(story.ships_to(order), STREET);
    }
    let audit = story.audit("gone");
    for name in [SEALED[0], SEALED[1], PLAIN[0]] {
        assert!(audit.contains(name), "{name} is not in {audit}");
    }
    end(tandem);

    let tandem = start("plain");
    let story = Story {
        tandem: &tandem,
        client: &client,
    };
    story.data(UPDATE, renamed("gone", PLAIN[1]));
    is_plain(&story.event("gone", 4), PLAIN[1]);
    story.is_read("gone", 4, PLAIN[1]);
    story.erase("gone", &[&first, &second], 5);
    story.erase("keyless", &[], 3);
    // Sealed data is gone. Data that was published in plain stays readable in the log, as docs/decisions/0009 says.
    let audit = story.audit("gone");
    assert!(audit.contains("ERASED"), "{audit}");
    for name in SEALED {
        assert!(!audit.contains(name), "{audit}");
    }
    for name in PLAIN {
        assert!(audit.contains(name), "{audit}");
    }
}

#[test]
fn erasing_with_plain_events_leaves_nothing_in_the_documents_of_mongodb() {
    require!(mongod, kafka);
    let site = Site::on_real_servers_with(with("plain"));
    let client = Client::new();
    let story = Story {
        tandem: &site.tandem,
        client: &client,
    };
    let mut input = person("gone", PLAIN[0]);
    input["idempotencyKey"] = json!("first");
    story.data(CREATE, json!({"input": input}));
    is_plain(&story.event("gone", 1), PLAIN[0]);
    story.is_read("gone", 1, PLAIN[0]);
    let order = story.place("gone");
    let secrets = [PLAIN[0], STREET];
    assert!(!traces(&site.documents(), &secrets).is_empty());
    story.erase("gone", &[&order], 2);
    let found = traces(&site.documents(), &secrets);
    assert!(found.is_empty(), "{found:#?}");
}
