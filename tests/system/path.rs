//! The path of a change: from a mutation or a REST call through the topic to orders and its live clients.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::{
    Client, Signal, Subscription, Tandem, Transport,
    graph::{
        ADVANCE, CREATE, ORDERING_CUSTOMER, PLACE, SAMPLE_BODY, UPDATE, customer_input, order_input,
    },
    poll, signal,
};

const ORDER_UPDATED: &str = "subscription($customerId: ID, $after: String) {
    orderUpdated(customerId: $customerId, after: $after) { cursor type order { id status revision } } }";
const CUSTOMER_UPDATED: &str = "subscription($id: ID!) { customerUpdated(id: $id) { id name { lastName } replica { revision } } }";

#[test]
fn the_documented_customer_sent_by_rest_appears_among_the_orders_customers() {
    let tandem = Tandem::start();
    let client = Client::new();
    for base in [tandem.accounts_url(""), tandem.gateway_url("")] {
        let created = client.post(
            &format!("{base}/accounts/customer/create"),
            "application/json",
            SAMPLE_BODY,
        );
        assert_eq!(
            (created.status, created.body.as_str()),
            (201, "Customer account created!")
        );
    }
    for base in [tandem.orders_url(""), tandem.gateway_url("")] {
        let found = poll("the customer in orders", || {
            let answer = client.get(&format!("{base}/orders/order/123456"));
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(found["id"], "123456");
        assert_eq!(found["contact"]["email"], "[email protected]");
        assert_eq!(found["orders"], json!([]));
        assert!(found.get("creditCards").is_none());
        let list = client.get(&format!("{base}/orders/list")).json();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
        let unknown = client.get(&format!("{base}/orders/order/nobody"));
        assert_eq!(
            (unknown.status, unknown.body.as_str()),
            (404, "Customer not found!")
        );
        assert_eq!(
            client
                .get(&format!(
                    "{}/accounts/customer/print",
                    tandem.gateway_url("")
                ))
                .status,
            200
        );
    }
    // The same body, sent twice, made one revision.
    let customer = client.data(
        &tandem.gateway_url("/graphql"),
        "{ customer(id: \"123456\") { revision creditCards { last4 } } }",
        json!({}),
    );
    assert_eq!(customer["customer"]["revision"], 1);
    assert_eq!(customer["customer"]["creditCards"][0]["last4"], "0000");
}

#[test]
fn a_bad_rest_body_is_refused_by_name_and_leaves_nothing_behind() {
    let tandem = Tandem::start();
    let client = Client::new();
    let sample: Value = serde_json::from_str(SAMPLE_BODY).unwrap();
    let changed = |pointer: &str, value: Value| {
        let mut body = sample.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string()
    };
    let cases = [
        ("{}".to_owned(), ""),
        ("{\"id\": 1,".to_owned(), ""),
        (changed("/name", json!("Ada")), "name"),
        (
            changed("/addresses/0/type", json!("HOLIDAY")),
            "addresses[0].type",
        ),
        (
            changed("/contact/primaryPhone", json!(5)),
            "contact.primaryPhone",
        ),
        (
            format!("{{\"id\": 1, \"filler\": \"{}\"}}", "x".repeat(1_100_000)),
            "",
        ),
    ];
    for base in [tandem.accounts_url(""), tandem.gateway_url("")] {
        for (body, field) in &cases {
            let answer = client.post(
                &format!("{base}/accounts/customer/create"),
                "application/json",
                body.clone(),
            );
            assert!((400..500).contains(&answer.status), "{answer:?}");
            assert!(
                answer.content_type.starts_with("application/problem+json"),
                "{answer:?}"
            );
            assert!(
                answer.body.contains(field),
                "{field} is not named: {answer:?}"
            );
        }
    }
    let customers = client.data(
        &tandem.gateway_url("/graphql"),
        "{ customers { nodes { id } } }",
        json!({}),
    );
    assert_eq!(customers["customers"]["nodes"], json!([]));
    assert_eq!(
        client.get(&tandem.orders_url("/orders/list")).json(),
        json!([])
    );
}

#[test]
fn every_transport_shows_each_change_of_an_order_once_and_in_order() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "live");
    let gateway = tandem.gateway_url("/graphql");
    let variables = json!({"customerId": "live"});
    let mut subscriptions = vec![
        client.subscribe(
            Transport::ServerSentEvents,
            &gateway,
            ORDER_UPDATED,
            variables.clone(),
        ),
        client.subscribe(
            Transport::Multipart,
            &gateway,
            ORDER_UPDATED,
            variables.clone(),
        ),
        client.subscribe(
            Transport::WebSocket,
            &gateway,
            ORDER_UPDATED,
            variables.clone(),
        ),
    ];
    subscriptions.push(client.subscribe(
        Transport::WebSocket,
        &tandem.orders_url("/graphql/ws"),
        ORDER_UPDATED,
        variables,
    ));
    // A subscription sends nothing when it begins, so orders are placed until each subscription has shown one.
    let mut orders = Vec::new();
    let mut shown: Vec<Option<Value>> = vec![None; subscriptions.len()];
    poll("each subscription shows an order", || {
        orders.push(tandem.order(&client, "live"));
        for (subscription, shown) in subscriptions.iter().zip(&mut shown) {
            if shown.is_none() {
                *shown = subscription.next_within(std::time::Duration::from_millis(300));
            }
        }
        shown.iter().all(Option::is_some).then_some(())
    });
    let order = tandem.order(&client, "live");
    for to in ["CONFIRMED", "SHIPPED", "DELIVERED"] {
        client.data(&gateway, ADVANCE, json!({"id": order, "to": to}));
    }
    for subscription in &subscriptions {
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let payload = subscription.next();
            let update = &payload["data"]["orderUpdated"];
            assert!(update.is_object(), "{payload:#}");
            if update["order"]["id"] == json!(order) {
                seen.push((
                    update["type"].as_str().unwrap().to_owned(),
                    update["order"]["revision"].as_i64().unwrap(),
                ));
            }
        }
        let wanted = [
            ("PLACED", 1),
            ("CONFIRMED", 2),
            ("SHIPPED", 3),
            ("DELIVERED", 4),
        ];
        assert_eq!(
            seen,
            wanted.map(|(kind, revision)| (kind.to_owned(), revision))
        );
    }
}

#[test]
fn a_subscription_resumes_behind_its_cursor_without_a_gap() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "resume");
    let gateway = tandem.gateway_url("/graphql");
    let first = client.subscribe(
        Transport::ServerSentEvents,
        &gateway,
        ORDER_UPDATED,
        json!({"customerId": "resume"}),
    );
    let shown = poll("an update", || {
        tandem.order(&client, "resume");
        first.next_within(std::time::Duration::from_millis(300))
    });
    let cursor = shown["data"]["orderUpdated"]["cursor"].clone();
    let seen = shown["data"]["orderUpdated"]["order"]["id"].clone();
    drop(first);
    let missed: Vec<String> = (0..5).map(|_| tandem.order(&client, "resume")).collect();
    let second = client.subscribe(
        Transport::ServerSentEvents,
        &gateway,
        ORDER_UPDATED,
        json!({"customerId": "resume", "after": cursor}),
    );
    let mut found = Vec::new();
    while found.len() < missed.len() {
        let payload = second.next();
        let id = payload["data"]["orderUpdated"]["order"]["id"].clone();
        assert!(id.is_string(), "{payload:#}");
        assert_ne!(id, seen, "shown twice");
        let id = id.as_str().unwrap().to_owned();
        assert!(!found.contains(&id), "shown twice");
        if missed.contains(&id) {
            found.push(id);
        }
    }
}

fn listen_to_customer(client: &Client, gateway: &str, id: &str) -> Subscription {
    let variables = json!({"id": id});
    client.subscribe(Transport::WebSocket, gateway, CUSTOMER_UPDATED, variables)
}

/// Gives a customer a last name that contains its new revision.
fn rename(client: &Client, gateway: &str, id: &str, revision: i64) {
    let name = json!({"name": {"firstName": "Ada", "lastName": format!("Number{revision}")}});
    client.data(gateway, UPDATE, json!({"id": id, "input": name}));
}

/// The revision in an update of a customer.
fn shown_revision(update: &Value) -> i64 {
    update["data"]["customerUpdated"]["replica"]["revision"]
        .as_i64()
        .unwrap()
}

#[test]
fn a_customers_update_reaches_subscribers_and_leaves_the_orders_alone() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    let order = tandem.order(&client, "kept");
    let gateway = tandem.gateway_url("/graphql");
    let live = listen_to_customer(&client, &gateway, "kept");
    let mut revision = 1;
    let shown = poll("an update of the customer", || {
        revision += 1;
        rename(&client, &gateway, "kept", revision);
        live.next_within(Duration::from_millis(500))
    });
    let seen = shown_revision(&shown);
    assert_eq!(
        shown["data"]["customerUpdated"]["name"]["lastName"],
        format!("Number{seen}")
    );
    let own_write = client.data(
        &gateway,
        ORDERING_CUSTOMER,
        json!({"id": "kept", "minRevision": revision}),
    );
    let customer = &own_write["orderingCustomer"];
    assert_eq!(customer["name"]["lastName"], format!("Number{revision}"));
    assert_eq!(customer["orders"]["nodes"][0]["id"], json!(order));
}

#[test]
fn the_first_subscriber_to_a_customer_after_a_quiet_time_misses_nothing() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "quiet");
    // After 10 s without a listener, orders lets the brokers collect customers' changes and reads them together.
    std::thread::sleep(Duration::from_secs(11));
    let gateway = tandem.gateway_url("/graphql");
    let live = listen_to_customer(&client, &gateway, "quiet");
    let mut revision = 1;
    let mut update = || {
        revision += 1;
        rename(&client, &gateway, "quiet", revision);
        revision
    };
    let mut last = 0;
    let first = poll("an update of the customer", || {
        last = update();
        live.next_within(Duration::from_millis(20))
    });
    while last < 50 {
        last = update();
    }
    let first = shown_revision(&first);
    let all: Vec<i64> = (first..last)
        .map(|_| shown_revision(&live.next()))
        .collect();
    assert_eq!(all, (first + 1..=last).collect::<Vec<_>>());
}

#[test]
fn with_accounts_dead_orders_answers_takes_orders_and_goes_on_telling_its_subscribers() {
    let tandem = Tandem::builder().flag("--no-restart").start();
    let client = Client::new();
    tandem.customer(&client, "alone");
    let gateway = tandem.gateway_url("/graphql");
    let live = client.subscribe(
        Transport::ServerSentEvents,
        &gateway,
        ORDER_UPDATED,
        json!({"customerId": "alone"}),
    );
    signal(tandem.child("accounts").unwrap(), Signal::KILL);
    poll("accounts is gone", || {
        let asked = client.try_graphql(
            &tandem.accounts_url("/graphql"),
            "{ __typename }",
            json!({}),
        );
        asked.is_err().then_some(())
    });
    let customer = client.data(&gateway, ORDERING_CUSTOMER, json!({"id": "alone"}));
    assert_eq!(customer["orderingCustomer"]["name"]["lastName"], "Lovelace");
    assert_eq!(
        customer["orderingCustomer"]["addresses"][1]["city"],
        "Ockham"
    );
    poll("an update while accounts is dead", || {
        tandem.order(&client, "alone");
        live.next_within(Duration::from_millis(500))
    });
    let partial = client.graphql(
        &gateway,
        "{ orderingCustomer(id: \"alone\") { name { lastName } creditCards { last4 } createdAt orders { nodes { id } } } }",
        json!({}),
    );
    let customer = &partial["data"]["orderingCustomer"];
    assert_eq!(customer["name"]["lastName"], "Lovelace", "{partial:#}");
    assert!(customer["creditCards"].is_null() && customer["createdAt"].is_null());
    assert!(!customer["orders"]["nodes"].as_array().unwrap().is_empty());
    assert!(
        !partial["errors"].as_array().unwrap().is_empty(),
        "{partial:#}"
    );
}

#[test]
fn a_restart_finds_all_data_again() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new();
    let order = {
        let tandem = Tandem::builder().data_dir(directory.path()).start();
        tandem.customer(&client, "again");
        let order = tandem.order(&client, "again");
        tandem.audited(&client, "customer", "again", 1);
        tandem.audited(&client, "order", &order, 1);
        order
    };
    let tandem = Tandem::builder().data_dir(directory.path()).start();
    let gateway = tandem.gateway_url("/graphql");
    let found = client.data(
        &gateway,
        "query($order: ID!) {
            customer(id: \"again\") { revision name { lastName } creditCards { last4 } changes { nodes { revision type } } }
            order(id: $order) { status total changes { nodes { type } } } }",
        json!({"order": order}),
    );
    assert_eq!(found["customer"]["revision"], 1);
    assert_eq!(found["customer"]["creditCards"][0]["last4"], "1111");
    assert_eq!(
        found["customer"]["changes"]["nodes"],
        json!([{"revision": 1, "type": "CREATED"}])
    );
    assert_eq!(found["order"]["status"], "PLACED");
    assert_eq!(found["order"]["total"], "25.00");
    assert_eq!(
        found["order"]["changes"]["nodes"],
        json!([{"type": "PLACED"}])
    );
    // The path still works: a change made now reaches orders.
    client.data(
        &gateway,
        UPDATE,
        json!({"id": "again", "input": {"name": {"firstName": "Ada", "lastName": "King"}}, "expected": 1}),
    );
    tandem.replicated(&client, "again", 2);
}

#[test]
fn errors_carry_the_codes_of_the_contract_through_the_gateway() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "codes");
    let order = tandem.order(&client, "codes");
    let gateway = tandem.gateway_url("/graphql");
    let nameless = json!({"name": {"firstName": "", "lastName": "x"}});
    let cases = [
        (
            CREATE,
            json!({"input": customer_input("codes", "Twice")}),
            "ALREADY_EXISTS",
        ),
        (UPDATE, json!({"id": "nobody", "input": {}}), "NOT_FOUND"),
        (
            UPDATE,
            json!({"id": "codes", "input": {"addresses": []}, "expected": 7}),
            "REVISION_CONFLICT",
        ),
        (
            UPDATE,
            json!({"id": "codes", "input": nameless}),
            "BAD_USER_INPUT",
        ),
        (
            PLACE,
            json!({"input": order_input("nobody")}),
            "CUSTOMER_UNKNOWN",
        ),
        (
            ADVANCE,
            json!({"id": order, "to": "DELIVERED"}),
            "INVALID_TRANSITION",
        ),
        (
            ORDERING_CUSTOMER,
            json!({"id": "codes", "minRevision": 99}),
            "REPLICA_BEHIND",
        ),
    ];
    for (operation, variables, code) in cases {
        let response = client.graphql(&gateway, operation, variables);
        let error = &response["errors"][0];
        assert_eq!(error["extensions"]["code"], code, "{response:#}");
        if code == "BAD_USER_INPUT" {
            assert!(
                error["extensions"]["field"]
                    .as_str()
                    .is_some_and(|field| field.ends_with("name.firstName")),
                "{response:#}"
            );
        }
    }
}
