//! An older copy of only one service's store is restored. The service reads what it missed from the log before it
//! accepts commands.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{
    Client, Tandem,
    graph::{CREATE, ORDERING_CUSTOMER, UPDATE, customer_input},
    poll,
};

const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";
const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) { status } }";

fn renamed(last_name: &str) -> Value {
    json!({"name": {"firstName": "Ada", "lastName": last_name}})
}

fn rename(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    let input = json!({"id": id, "input": renamed(last_name)});
    client.data(&tandem.gateway_url("/graphql"), UPDATE, input);
}

/// Waits until orders no longer shows a customer.
#[track_caller]
fn gone_from_orders(tandem: &Tandem, client: &Client, id: &str) {
    let orders = tandem.orders_url("/graphql");
    poll("the erased customer is not shown by orders", || {
        let answer = client
            .try_graphql(&orders, ORDERING_CUSTOMER, json!({"id": id}))
            .ok()?;
        let is_gone = answer["errors"].is_null() && answer["data"]["orderingCustomer"].is_null();
        is_gone.then_some(())
    });
}

/// A system that changed after one of its stores was copied. The copy is then restored.
struct PutBack {
    directory: TempDir,
    client: Client,
    /// An order that was placed after the copy was made.
    order: String,
}

impl PutBack {
    fn store_of(service: &str) -> Self {
        let (directory, client) = (tempfile::tempdir().unwrap(), Client::new());
        let start = || Tandem::builder().data_dir(directory.path()).start();
        {
            let tandem = start();
            for id in ["k1", "k2", "k3"] {
                tandem.customer(&client, id);
                tandem.audited(&client, "customer", id, 1);
            }
            tandem.published(&client);
        }
        let file = directory.path().join(service).with_extension("redb");
        let copy = fs::read(&file).unwrap();
        let order = {
            let tandem = start();
            rename(&tandem, &client, "k1", "King");
            rename(&tandem, &client, "k2", "Byron");
            let gateway = tandem.gateway_url("/graphql");
            client.data(&gateway, ERASE, json!({"id": "k3"}));
            tandem.customer(&client, "kn");
            tandem.replicated(&client, "k1", 2);
            tandem.replicated(&client, "k2", 2);
            gone_from_orders(&tandem, &client, "k3");
            let order = tandem.order(&client, "kn");
            tandem.published(&client);
            tandem.audited(&client, "customer", "kn", 1);
            tandem.audited(&client, "order", &order, 1);
            order
        };
        fs::write(&file, copy).unwrap();
        Self {
            directory,
            client,
            order,
        }
    }

    fn code(&self, url: &str, query: &str, variables: Value) -> Value {
        self.client.graphql(url, query, variables)["errors"][0]["extensions"]["code"].clone()
    }

    /// Starts, and checks that everything is as it was before the copy was restored.
    fn knows_what_came_since(&self) {
        let client = &self.client;
        let tandem = Tandem::builder().data_dir(self.directory.path()).start();
        let (accounts, gateway) = (
            tandem.accounts_url("/graphql"),
            tandem.gateway_url("/graphql"),
        );

        // The erased customer stays erased in both services.
        let erased = client.data(&accounts, CUSTOMER, json!({"id": "k3"}));
        assert!(erased["customer"].is_null(), "{erased:#}");
        gone_from_orders(&tandem, client, "k3");
        let input = json!({"id": "k3", "input": renamed("Again")});
        assert_eq!(self.code(&gateway, UPDATE, input), "NOT_FOUND");

        // A customer that was created since is known, and is not created again.
        let again = json!({"input": customer_input("kn", "Twice")});
        assert_eq!(self.code(&gateway, CREATE, again), "ALREADY_EXISTS");
        tandem.replicated(client, "kn", 1);
        tandem.order(client, "kn");
        let order = client.data(
            &tandem.orders_url("/graphql"),
            ORDER,
            json!({"id": self.order}),
        );
        assert!(order["order"].is_object(), "{order:#}");

        // Changes made since are there, and the next change continues from them.
        for (id, last_name) in [("k1", "King"), ("k2", "Byron")] {
            let shown = client.data(&accounts, CUSTOMER, json!({"id": id}));
            let expected = json!({"revision": 2, "name": {"lastName": last_name}});
            assert_eq!(shown["customer"], expected, "{id}");
            tandem.replicated(client, id, 2);
        }
        rename(&tandem, client, "k1", "Lovelace");
        tandem.replicated(client, "k1", 3);
        let held = client.data(
            &tandem.orders_url("/graphql"),
            ORDERING_CUSTOMER,
            json!({"id": "k1"}),
        );
        assert_eq!(held["orderingCustomer"]["name"]["lastName"], "Lovelace");
        tandem.published(client);
        tandem.audited(client, "customer", "k1", 3);
        tandem.audited(client, "customer", "kn", 1);
    }
}

#[test]
fn an_older_copy_of_the_store_of_accounts_learns_what_came_since_before_it_takes_commands() {
    PutBack::store_of("accounts").knows_what_came_since();
}

#[test]
fn an_older_copy_of_the_store_of_orders_learns_what_came_since() {
    PutBack::store_of("orders").knows_what_came_since();
}
