//! The documentation pages of a service in a headless Chromium: the topics from AsyncAPI, the REST routes from OpenAPI.

use serde_json::{Value, json};

use super::support::{
    Tandem,
    browser::Page,
    screen::{darkened, fits, picture},
};

const TOPICS: &str = include_str!("../../schema/asyncapi.json");
const ROUTES_OF_ACCOUNTS: &str = include_str!("../../schema/openapi/accounts.json");
const ROUTES_OF_ORDERS: &str = include_str!("../../schema/openapi/orders.json");

/// The members of an object in a committed document.
fn members(document: &str, name: &str) -> Vec<(String, Value)> {
    let document: Value = serde_json::from_str(document).unwrap();
    let members = document[name].as_object().unwrap().clone();
    assert!(!members.is_empty(), "{name}");
    members.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_reads_who_writes_what_to_which_topic_on_a_wide_and_on_a_narrow_screen() {
    let tandem = tokio::task::block_in_place(Tandem::start);
    for (service, url) in [
        ("accounts", tandem.accounts_url("")),
        ("orders", tandem.orders_url("")),
    ] {
        read_topics(service, &url).await;
    }
    tokio::task::block_in_place(|| drop(tandem));
}

async fn read_topics(service: &str, url: &str) {
    let what = format!("the page of the topics of {service}");
    let Some(mut page) = Page::of_chromium(&what, url).await else {
        return;
    };
    page.go(&format!("{url}/asyncapi")).await;
    let mut messages = 0;
    for (name, channel) in members(TOPICS, "channels") {
        let address = channel["address"].as_str().unwrap();
        page.until(
            &format!("the topic {address} is told of"),
            &format!(
                "document.getElementById({})?.querySelector('h2')?.innerText === {}",
                json!(name),
                json!(address)
            ),
        )
        .await;
        messages += channel["messages"].as_object().unwrap().len();
    }
    // An opened message must show its headers, its body and the schema.
    page.evaluate("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
        .await;
    page.until(
        "each message is told of",
        &format!(
            "((all) => all.length === {messages} &&
                all.every((it) => ['Headers', 'Body', 'JSON Schema'].every((part) => it.innerText.includes(part)))
            )([...document.querySelectorAll('#topics > section > details')])"
        ),
    )
    .await;
    picture(&mut page, &format!("topics-{service}")).await;
    fits(&mut page, 1200).await;
    fits(&mut page, 360).await;
    picture(&mut page, &format!("topics-{service}-narrow")).await;
    darkened(&mut page).await;
    picture(&mut page, &format!("topics-{service}-dark")).await;
    page.expect_no_complaint().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_the_rest_routes_of_each_service_on_a_page_that_loads_nothing_from_elsewhere()
{
    let tandem = tokio::task::block_in_place(Tandem::start);
    for (service, url, document) in [
        ("accounts", tandem.accounts_url(""), ROUTES_OF_ACCOUNTS),
        ("orders", tandem.orders_url(""), ROUTES_OF_ORDERS),
    ] {
        see_routes(service, &url, document).await;
    }
    tokio::task::block_in_place(|| drop(tandem));
}

async fn see_routes(service: &str, url: &str, document: &str) {
    let what = format!("the page of the REST routes of {service}");
    let Some(mut page) = Page::of_chromium(&what, url).await else {
        return;
    };
    page.go(&format!("{url}/swagger-ui/index.html")).await;
    for (path, _) in members(document, "paths") {
        page.until(
            &format!("the route {path} is told of"),
            &format!(
                "[...document.querySelectorAll('[data-path]')].some((it) => it.dataset.path === {})",
                json!(path)
            ),
        )
        .await;
    }
    picture(&mut page, &format!("routes-{service}")).await;
    page.expect_no_complaint().await;
}
