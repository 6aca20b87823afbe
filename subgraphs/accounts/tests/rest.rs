//! The documented REST routes, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use axum::http::StatusCode;
use common::{Accounts, Answer, SAMPLE};
use serde_json::{Value, json};

const CREATE: &str = "/accounts/customer/create";

async fn post(accounts: &Accounts, body: &str) -> Answer {
    accounts.send("POST", CREATE, body.to_owned()).await
}

fn sample() -> Value {
    serde_json::from_str(SAMPLE).unwrap()
}

#[tokio::test]
async fn the_published_sample_is_taken_as_it_is() {
    let accounts = Accounts::start().await;
    let answer = post(&accounts, SAMPLE).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.text(), "Customer account created!");
    assert!(answer.kind.starts_with("text/plain"), "{}", answer.kind);
    let read = accounts
        .data(
            "{ customer(id: \"123456\") { id revision contact { email } addresses { address2 } creditCards { last4 expiration } } }",
            json!({}),
        )
        .await;
    let customer = &read["customer"];
    assert_eq!(customer["id"], "123456");
    assert_eq!(customer["contact"]["email"], "[email protected]");
    assert_eq!(customer["addresses"][0]["address2"], Value::Null);
    assert_eq!(
        customer["creditCards"][0],
        json!({"last4": "0000", "expiration": "6/19"})
    );
    let pending = accounts.pending().await;
    assert_eq!(pending.len(), 1);
    assert!(pending[0].event.data.contains("legacy-rest"));
}

#[tokio::test]
async fn the_same_body_again_makes_no_revision_and_no_event() {
    let accounts = Accounts::start().await;
    let mut as_text = sample();
    as_text["id"] = json!("123456");
    for body in [SAMPLE.to_owned(), SAMPLE.to_owned(), as_text.to_string()] {
        assert_eq!(post(&accounts, &body).await.status, StatusCode::CREATED);
    }
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn another_body_with_that_id_changes_the_customer() {
    let accounts = Accounts::start().await;
    post(&accounts, SAMPLE).await;
    let mut other = sample();
    other["name"]["firstName"] = json!("Jane");
    other.as_object_mut().unwrap().remove("creditCards");
    assert_eq!(
        post(&accounts, &other.to_string()).await.status,
        StatusCode::CREATED
    );
    let read = accounts
        .data(
            "{ customer(id: \"123456\") { revision name { firstName } creditCards { last4 } } }",
            json!({}),
        )
        .await;
    assert_eq!(
        read["customer"],
        json!({"revision": 2, "name": {"firstName": "Jane"}, "creditCards": []})
    );
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_that_names_the_field_and_stores_nothing() {
    let accounts = Accounts::start().await;
    let spoilt = |spoil: fn(&mut Value)| {
        let mut body = sample();
        spoil(&mut body);
        body.to_string()
    };
    let cases = [
        ("{}".to_owned(), "id"),
        (spoilt(|b| b["id"] = json!(1.5)), "id"),
        (spoilt(|b| b["id"] = json!(-1)), "id"),
        (spoilt(|b| b["id"] = json!(null)), "id"),
        (spoilt(|b| b["id"] = json!("a b")), "id"),
        (
            spoilt(|b| drop(b.as_object_mut().unwrap().remove("name"))),
            "name",
        ),
        (
            spoilt(|b| b["name"]["firstName"] = json!(7)),
            "name.firstName",
        ),
        (
            spoilt(|b| b["name"]["lastName"] = json!("")),
            "name.lastName",
        ),
        (
            spoilt(|b| b["addresses"][1]["type"] = json!("HOME")),
            "addresses[1].type",
        ),
        (
            spoilt(|b| b["addresses"][1]["postalCode"] = json!(" ")),
            "addresses[1].postalCode",
        ),
        (spoilt(|b| b["addresses"] = json!({})), "addresses"),
        (
            spoilt(|b| b["creditCards"][0]["number"] = json!("1234")),
            "creditCards[0].number",
        ),
        (
            spoilt(|b| b["creditCards"][1]["type"] = json!("GOLD")),
            "creditCards[1].type",
        ),
    ];
    for (body, field) in cases {
        let answer = post(&accounts, &body).await;
        assert_eq!(
            answer.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{field}: {answer:?}"
        );
        assert_eq!(answer.kind, "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["field"], field, "{problem:#}");
        assert_eq!(problem["instance"], CREATE);
    }
    for body in ["", "{", "[1,", "nonsense"] {
        let answer = post(&accounts, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.kind, "application/problem+json");
    }
    let large = spoilt(|b| b["name"]["title"] = json!("x".repeat(1 << 20)));
    let answer = post(&accounts, &large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.kind, "application/problem+json");

    assert!(accounts.pending().await.is_empty());
    let all = accounts
        .data("{ customers { nodes { id } } }", json!({}))
        .await;
    assert_eq!(all["customers"]["nodes"], json!([]));
}

#[tokio::test]
async fn the_printed_sample_can_be_sent_back() {
    let accounts = Accounts::start().await;
    let printed = accounts
        .send("GET", "/accounts/customer/print", String::new())
        .await;
    assert_eq!(printed.status, StatusCode::OK);
    assert_eq!(printed.kind, "application/json");
    let mut expected = sample();
    expected["id"] = json!("123456");
    assert_eq!(printed.json(), expected);
    let answer = post(&accounts, &printed.text()).await;
    assert_eq!(answer.status, StatusCode::CREATED);
}

#[test]
fn the_api_document_is_openapi_3_1_and_describes_both_routes() {
    let document = serde_json::to_value(tandem_accounts::rest::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in [CREATE, "/accounts/customer/print"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
    let example =
        &document["paths"][CREATE]["post"]["requestBody"]["content"]["application/json"]["example"];
    assert_eq!(*example, sample());
}

#[test]
fn the_committed_api_document_is_what_the_code_says() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schema/openapi/accounts.json"
    );
    let made = tandem_service::web::openapi::committed(&tandem_accounts::rest::openapi()).unwrap();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == made,
        "schema/openapi/accounts.json is stale: run `UPDATE_SCHEMA=1 cargo test -p tandem-accounts --test rest`"
    );
}

#[tokio::test]
async fn what_the_api_document_says_of_a_body_is_what_the_route_takes() {
    let mut document = serde_json::to_value(tandem_accounts::rest::openapi()).unwrap();
    let components = document["components"].take();
    let schema = json!({"$ref": "#/components/schemas/Customer", "components": components});
    let schema = jsonschema::validator_for(&schema).unwrap();
    let accounts = Accounts::start().await;
    let long = "x".repeat(201);
    for (at, value) in [
        ("/id", json!("a b")),
        ("/id", json!(-1)),
        ("/id", json!(7)),
        ("/id", json!(8.0)),
        ("/id", json!(8.5)),
        ("/id", json!(-0.0)),
        ("/id", json!(-1.0)),
        ("/id", json!(1e15)),
        ("/id", json!(1e300)),
        ("/id", json!(u64::MAX)),
        ("/id", json!(i64::MIN)),
        ("/id", Value::Null),
        ("/id", json!(true)),
        ("/id", json!([1])),
        ("/id", json!("")),
        ("/id", json!("x".repeat(65))),
        ("/name", json!(["Dr.", "Ada", "B.", "King", "Jr."])),
        ("/contact", json!(["1", "2", "3"])),
        ("/addresses", json!({})),
        (
            "/addresses/0",
            json!(["BILLING", "d", "a", "b", "c", "s", "p"]),
        ),
        ("/addresses/0/type", json!({"BILLING": null})),
        ("/creditCards/0/type", json!(["PRIMARY"])),
        ("/name/firstName", json!("\u{3000}\u{a0}")),
        ("/name/firstName", json!("\u{feff}")),
        ("/name/firstName", json!("\u{1f600}".repeat(200))),
        ("/name/firstName", json!("\u{1f600}".repeat(201))),
        ("/name/firstName", Value::Null),
        ("/name/firstName", json!(" ")),
        ("/name/firstName", json!(long)),
        ("/name/lastName", json!("a\u{85}")),
        ("/name/title", json!("")),
        ("/name/title", Value::Null),
        ("/contact/primaryPhone", json!("none")),
        ("/contact/primaryPhone", json!("1-800-FLOWERS")),
        ("/contact/secondaryPhone", json!("")),
        ("/contact/secondaryPhone", json!(" ".repeat(50))),
        ("/contact/secondaryPhone", json!(" ".repeat(51))),
        ("/contact/secondaryPhone", json!("\u{a0}\u{3000}")),
        ("/contact/secondaryPhone", json!("\u{feff}")),
        ("/contact/secondaryPhone", json!("1".repeat(51))),
        ("/contact/secondaryPhone", json!("\u{661}")),
        ("/contact/email", json!("no address")),
        ("/contact/email", json!("")),
        ("/addresses", Value::Null),
        ("/addresses/0/type", json!("HOME")),
        ("/addresses/0/description", json!("x".repeat(1_001))),
        ("/addresses/0/city", json!("\t")),
        ("/creditCards/0/number", json!("")),
        ("/creditCards/0/number", json!("1234 5678 9012")),
        ("/creditCards/0/number", json!("12345678901234567890")),
        ("/creditCards/0/expiration", json!("13/19")),
        ("/creditCards/0/expiration", json!("06/2019")),
        ("/creditCards/0/nameOnCard", json!("")),
    ] {
        let mut body = sample();
        *body.pointer_mut(at).unwrap() = value;
        let status = post(&accounts, &body.to_string()).await.status;
        let is_taken = status == StatusCode::CREATED;
        assert_eq!(schema.is_valid(&body), is_taken, "{at}: {body} {status}");
    }
    let mut more = sample();
    more["loyalty"] = json!("gold");
    let status = post(&accounts, &more.to_string()).await.status;
    assert!(schema.is_valid(&more) && status == StatusCode::CREATED);
    let mut many = sample();
    many["addresses"] = vec![many["addresses"][0].clone(); 101].into();
    assert!(!schema.is_valid(&many));
}
