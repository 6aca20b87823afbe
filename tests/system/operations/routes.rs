//! What the gateway passes on to the services, and for whom.

use serde_json::{Value, json};
use tandem_backends::require;

use super::{keyless, letters, poison, rename, route};
use crate::support::{Client, Tandem, TandemBuilder, poll, site::Site};

const JSON: &str = "application/json";

#[test]
fn on_a_laptop_health_lag_letters_and_the_audit_are_told_and_put_right_through_the_gateway() {
    operate(&Tandem::builder().accepts_unsigned().start());
}

#[test]
fn health_lag_letters_and_the_audit_are_told_and_put_right_through_the_gateway_on_real_servers() {
    require!(mongod, kafka);
    operate(&Site::on_real_servers_with(TandemBuilder::accepts_unsigned).tandem);
}

fn operate(tandem: &Tandem) {
    let client = Client::new();
    let get = |service: &str, path: &str| {
        let answer = client.get(&route(tandem, service, path));
        assert_eq!(answer.status, 200, "{service} {path}");
        answer.json()
    };
    let post = |service: &str, path: &str, body: Value| {
        client.post(&route(tandem, service, path), JSON, body.to_string())
    };
    let here = client.get(&tandem.gateway_url("/operations/here.json"));
    assert_eq!(here.json()["operators"], "everybody");
    for id in ["well", "ill"] {
        tandem.customer(&client, id);
    }
    rename(tandem, &client, "well", "King");
    tandem.replicated(&client, "well", 2);

    for service in ["accounts", "orders"] {
        let health = get(service, "health");
        assert_eq!(health["status"], "UP", "{health}");
        let outbox = &health["components"]["outbox"]["details"];
        assert!(outbox["oldestPendingSeconds"].is_u64(), "{health}");
        assert_eq!(get(service, "keys/waiting"), json!([]));
        assert_eq!(get(service, "rebuild"), json!(null));
    }
    // Each partition is listed, and is read to its end within a moment.
    let logs = poll("orders has read and remembers everything", || {
        let logs = get("orders", "log/partitions");
        let partitions: Vec<Value> = logs
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|log| log["partitions"].as_array().unwrap().clone())
            .collect();
        let is_read = |it: &Value| {
            it["unread"] == 0 && (it["end"] == it["begin"] || it["remembered"].is_object())
        };
        partitions.iter().all(is_read).then_some(logs)
    });
    let topics: Vec<&str> = logs
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["topic"].as_str().unwrap())
        .collect();
    assert_eq!(topics, ["orders.order.change", "accounts.customer.change"]);
    assert_eq!(logs[1]["partitions"].as_array().unwrap().len(), 6);

    // A dead letter is shown with its body, retried without success, and discarded.
    poison(tandem, "ill", "{ garbage");
    let letter = letters(tandem, &client, "orders", 1).remove(0);
    assert_eq!(letter["payload"], json!(null), "a list has no bodies");
    let query = format!(
        "dead-letters/letter?consumer=orders-replica&topic={}&partition={}&offset={}",
        letter["topic"].as_str().unwrap(),
        letter["partition"],
        letter["offset"]
    );
    assert_eq!(get("orders", &query)["payload"], "eyBnYXJiYWdl");
    let begun = post("orders", "dead-letters/retry", json!({"key": "ill"}));
    assert_eq!(begun.status, 202);
    let job = poll("the retry has ended", || {
        let job = get("orders", "dead-letters/job");
        (!job["endedAt"].is_null()).then_some(job)
    });
    assert_eq!((&job["done"], &job["refusedKeys"]), (&json!(0), &json!(1)));
    let id = json!({"consumer": letter["consumer"], "topic": letter["topic"], "partition": letter["partition"], "offset": letter["offset"]});
    assert_eq!(
        post("orders", "dead-letters/discard", id.clone()).status,
        200
    );
    assert_eq!(post("orders", "dead-letters/discard", id).status, 404);
    letters(tandem, &client, "orders", 0);

    // The audit is the same as the command prints.
    tandem.audited(&client, "customer", "well", 2);
    let page = get("accounts", "audit/customer?id=well");
    let printed: Value =
        serde_json::from_str(&tandem.operated(&["audit", "customer", "well", "--json"])).unwrap();
    let changes = page["changes"].as_array().unwrap();
    assert_eq!(
        (changes.len(), &page["withheld"]),
        (2, &json!(false)),
        "{page}"
    );
    for (change, printed) in changes.iter().zip(printed.as_array().unwrap()) {
        for (field, called) in [
            ("eventId", "eventId"),
            ("revision", "revision"),
            ("kind", "type"),
            ("changedBy", "changedBy"),
            ("partition", "partition"),
            ("offset", "offset"),
            ("differences", "differences"),
        ] {
            assert_eq!(change[field], printed[called], "{field}");
        }
    }
    let later = get("accounts", "audit/customer?id=well&after=1");
    assert_eq!(later["changes"][0], changes[1]);
    let first = get("accounts", "audit/customer?id=well&limit=1");
    assert_eq!(
        (&first["next"], &first["changes"][0]),
        (&json!(1), &changes[0])
    );
    assert_eq!(
        get("accounts", "audit/customer?id=nobody")["changes"],
        json!([])
    );
    assert_eq!(
        client
            .get(&route(tandem, "orders", "audit/customer?id=well"))
            .status,
        404
    );
    let negative = route(tandem, "accounts", "audit/customer?id=well&after=-1");
    assert_eq!(client.get(&negative).status, 400);

    // A rebuild runs in the background and reports its progress.
    let begun = post("orders", "rebuild", json!({"background": true}));
    assert_eq!(
        (begun.status, &begun.json()["state"]),
        (202, &json!("RUNNING"))
    );
    let ended = poll("the rebuild has ended", || {
        let view = get("orders", "rebuild");
        (view["state"] != "RUNNING").then_some(view)
    });
    assert_eq!(ended["state"], "FINISHED", "{ended}");
    let told: Vec<&Value> = ended["progress"].as_array().unwrap().iter().collect();
    assert_eq!(told.len(), ended["targets"].as_array().unwrap().len());
    assert!(told.iter().all(|it| it["done"] == true), "{ended}");
    assert_eq!(post("orders", "rebuild/stop", json!({})).status, 409);
    // A rebuild that a command started is reported too.
    tandem.operated(&["rebuild", "accounts"]);
    assert_eq!(get("accounts", "rebuild")["state"], "FINISHED");

    // An event whose data key is missing waits. The route reports which event it is, whose, and why.
    keyless(tandem, "well", "keyless");
    let waiting = poll("orders tells of the event that waits for its key", || {
        let waiting = get("orders", "keys/waiting").as_array().unwrap().clone();
        (!waiting.is_empty()).then_some(waiting)
    });
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    for (field, value) in [
        ("reader", "orders-replica"),
        ("subject", "keyless"),
        ("key", "keyless"),
        ("topic", "accounts.customer.change"),
    ] {
        assert_eq!(waiting[0][field], value, "{waiting:?}");
    }
    assert!(waiting[0]["offset"].is_u64() && waiting[0]["partition"].is_u64());
    for text in ["since", "reason"] {
        let told = waiting[0][text].as_str().unwrap();
        assert!(!told.is_empty(), "{waiting:?}");
    }
}

#[test]
fn pages_of_other_origins_and_forms_operate_nothing_and_what_is_not_passed_on_is_not_there() {
    let tandem = Tandem::start();
    let client = Client::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let foreign = |method: reqwest::Method, path: &str, header: (&str, &str)| {
        let request = reqwest::Client::new()
            .request(method, route(&tandem, "orders", path))
            .header(header.0, header.1)
            .header("content-type", JSON)
            .timeout(std::time::Duration::from_secs(10))
            .body("{}");
        runtime.block_on(async { request.send().await.unwrap().status().as_u16() })
    };
    for header in [
        ("origin", "https://elsewhere.example"),
        ("origin", "http://localhost:1"),
        ("origin", "null"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "cross-site"),
    ] {
        assert_eq!(
            foreign(reqwest::Method::GET, "health", header),
            403,
            "{header:?}"
        );
        assert_eq!(
            foreign(reqwest::Method::POST, "rebuild", header),
            403,
            "{header:?}"
        );
    }
    let form = client.post(&route(&tandem, "orders", "rebuild"), "text/plain", "{}");
    assert_eq!(form.status, 415);
    for path in [
        "dead-letters/discard-all",
        "log/accept",
        "log/restore",
        "keys/rotate",
        "rebuild/removals",
        "rebuild/copies",
    ] {
        let answer = client.post(&route(&tandem, "orders", path), JSON, "{}");
        assert_eq!(answer.status, 404, "{path}");
    }
    let read = client.post(&route(&tandem, "orders", "health"), JSON, "{}");
    assert_eq!(read.status, 405);
    let document = client.get(&tandem.gateway_url("/operations/openapi.json"));
    let committed = include_str!("../../../schema/openapi/operations.json");
    let committed: Value = serde_json::from_str(committed).unwrap();
    assert_eq!(document.json(), committed);
}

#[test]
fn with_tokens_the_scope_decides_and_values_of_persons_want_another_one() {
    let tandem = Tandem::builder().flag("--auth").start();
    let admin = Client::with_token(tandem.printed_token());
    tandem.customer(&admin, "well");
    tandem.audited(&admin, "customer", "well", 1);
    let here = Client::new().get(&tandem.gateway_url("/operations/here.json"));
    assert_eq!(here.json()["operators"], "token");
    let page = Client::new().get(&tandem.gateway_url("/operations"));
    assert_eq!(page.status, 200);
    let token = |scope: &str| {
        let directory = tandem.data_dir().to_str().unwrap();
        let words = [
            "token",
            "--data-dir",
            directory,
            "--subject",
            "op",
            "--scope",
            scope,
        ];
        let token = tandem.operated(&words);
        Client::with_token(token.trim().to_owned())
    };
    let health = route(&tandem, "orders", "health");
    assert_eq!(Client::new().get(&health).status, 401);
    assert_eq!(Client::with_token("nonsense").get(&health).status, 401);
    assert_eq!(token("customers:read orders:read").get(&health).status, 403);
    let audit = route(&tandem, "accounts", "audit/customer?id=well");
    let operator = token("operations");
    assert_eq!(operator.get(&health).status, 200);
    let withheld = operator.get(&audit);
    assert_eq!(withheld.status, 200);
    let text = withheld.json().to_string();
    assert_eq!(withheld.json()["withheld"], true);
    assert!(
        text.contains("name.lastName") && !text.contains("Lovelace"),
        "{text}"
    );
    let shown = token("operations customers:read").get(&audit).json();
    assert_eq!(shown["withheld"], false);
    assert!(shown.to_string().contains("Lovelace"), "{shown}");

    // So do bodies of dead letters: what another producer wrote may contain personal data in plain.
    poison(&tandem, "well", "Ada Lovelace");
    let letter = letters(&tandem, &operator, "orders", 1).remove(0);
    let query = format!(
        "dead-letters/letter?consumer={}&topic={}&partition={}&offset={}",
        letter["consumer"].as_str().unwrap(),
        letter["topic"].as_str().unwrap(),
        letter["partition"],
        letter["offset"]
    );
    let shown_in_list = letter["reason"].clone();
    let letter = route(&tandem, "orders", &query);
    let withheld = operator.get(&letter).json();
    assert_eq!(
        (&withheld["payload"], &withheld["withheld"]),
        (&json!(null), &json!(true))
    );
    assert_eq!(withheld["reason"], shown_in_list);
    let shown = token("operations customers:read").get(&letter).json();
    assert_eq!(
        (&shown["payload"], &shown["withheld"]),
        (&json!("QWRhIExvdmVsYWNl"), &json!(false))
    );
}
