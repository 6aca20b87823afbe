//! The live page in a headless Chromium: a person's actions on it, and what it shows.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Client, Tandem,
    browser::Page,
    screen::{darkened, fits, picture},
};

/// A condition that holds in both windows.
fn in_both(condition: &str) -> String {
    format!("[...document.querySelectorAll('.pane')].every((pane) => !!({condition}))")
}

/// A counter in the page's ledger.
fn count(name: &str) -> String {
    format!("Number(document.querySelector('[data-count={name}]').textContent)")
}

const ALL_ARRIVED: &str = "document.getElementById('verdict').classList.contains('good')";

async fn click(page: &mut Page, id: &str) {
    page.evaluate(&format!("document.getElementById('{id}').click()"))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_a_change_on_its_way_and_arriving_in_two_windows_while_orders_is_killed() {
    let tandem = tokio::task::block_in_place(Tandem::start);
    watch(&tandem).await;
    tokio::task::block_in_place(|| drop(tandem));
}

async fn watch(tandem: &Tandem) {
    let url = tandem.gateway_url("");
    let Some(mut page) = Page::of_chromium("the live page", &url).await else {
        return;
    };
    page.go(&format!("{url}/live")).await;
    page.until(
        "it says that there is nobody yet",
        "!!document.getElementById('said')?.textContent.includes('no customers yet')",
    )
    .await;
    page.until(
        "what is hidden is not shown, however it is laid out",
        "(() => {
            const kills = document.getElementById('kills');
            const { hidden } = kills;
            kills.hidden = true;
            const { display } = getComputedStyle(kills);
            kills.hidden = hidden;
            return display === 'none';
        })()",
    )
    .await;
    click(&mut page, "new-customer").await;
    page.until(
        "both windows show the customer",
        &in_both("pane.querySelector('.person').textContent.includes('revision 1')"),
    )
    .await;
    page.until("it has arrived in both", ALL_ARRIVED).await;
    page.until(
        "each hop of a customer's change has a time",
        "[...document.querySelectorAll('.hop b')].every((time) => time.textContent.includes('ms'))",
    )
    .await;
    click(&mut page, "place").await;
    page.until(
        "both windows show the order",
        &in_both("pane.querySelectorAll('.rows code').length === 1"),
    )
    .await;
    page.until(
        "each hop of an order's change has a time",
        "['answer', 'publish', 'arrive'].every((hop) =>
            document.querySelector(`[data-hop=${hop}] b`).textContent.includes('ms'))",
    )
    .await;
    click(&mut page, "move").await;
    page.until(
        "both windows show the next step",
        &in_both("pane.querySelector('.rows').textContent.includes('confirmed')"),
    )
    .await;
    page.evaluate("document.querySelector('[data-pane=a] .rows button').focus()")
        .await;
    click(&mut page, "change").await;
    page.until(
        "both windows show the change",
        &in_both("pane.querySelector('.person').textContent.includes('revision 2')"),
    )
    .await;
    page.until(
        "who goes by keyboard is where they were, though the row was made anew",
        "!!document.activeElement?.closest('[data-pane=a] .rows')",
    )
    .await;
    page.evaluate("document.activeElement.blur()").await;
    picture(&mut page, "live-page").await;

    click(&mut page, "go-on").await;
    page.until(
        "it goes on by itself",
        &format!("{} >= 6", count("answered")),
    )
    .await;
    for service in ["orders", "broker", "accounts"] {
        page.evaluate(&format!(
            "document.querySelector('[data-kill={service}]').click()"
        ))
        .await;
        page.until(
            "it says what was killed",
            &format!(
                "document.getElementById('killed').textContent.startsWith('{service} (process')"
            ),
        )
        .await;
        let answered = page.evaluate(&count("answered")).await;
        page.until(
            "changes are answered again",
            &format!("{} >= {answered} + 5", count("answered")),
        )
        .await;
        picture(&mut page, &format!("live-page-{service}-killed")).await;
    }
    click(&mut page, "go-on").await;
    page.until("everything has arrived in both", ALL_ARRIVED)
        .await;
    page.until(
        "both windows are live again",
        &in_both("pane.querySelector('.state.up')"),
    )
    .await;
    page.until(
        "both windows have resumed",
        &in_both("pane.querySelector('.counts').textContent.includes('resumed')"),
    )
    .await;
    for nothing in ["twice", "missing", "way"] {
        assert_eq!(page.evaluate(&count(nothing)).await, json!(0), "{nothing}");
    }
    page.evaluate("document.querySelector('details summary').click()")
        .await;
    fits(&mut page, 1200).await;
    picture(&mut page, "live-page-wide").await;
    fits(&mut page, 360).await;
    picture(&mut page, "live-page-narrow").await;
    darkened(&mut page).await;
    picture(&mut page, "live-page-dark").await;
    page.expect_no_complaint().await;
}

#[test]
fn processes_are_killed_under_up_alone_and_only_those_that_come_back() {
    let tandem = Tandem::start();
    let client = Client::new();
    let kill = |service: &str, kind: &str| {
        let url = tandem.gateway_url(&format!("/ui/live/kill/{service}"));
        client.post(&url, kind, "{}").status
    };
    assert_eq!(kill("router", "application/json"), 404);
    assert_eq!(kill("up", "application/json"), 404);
    assert_eq!(kill("orders", "text/plain"), 415);
    let foreign = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let request = reqwest::Client::new()
            .post(tandem.gateway_url("/ui/live/kill/orders"))
            .header("origin", "https://elsewhere.example")
            .header("content-type", "application/json")
            .timeout(Duration::from_secs(10))
            .body("{}");
        request.send().await.unwrap().status().as_u16()
    });
    assert_eq!(foreign, 403);
    let here = client.get(&tandem.gateway_url("/ui/live/here.json"));
    assert_eq!(here.json()["kills"], true);

    let guarded = Tandem::builder().flag("--auth").start();
    let here = client.get(&guarded.gateway_url("/ui/live/here.json"));
    assert_eq!(here.json()["kills"], false);
    let url = guarded.gateway_url("/ui/live/kill/orders");
    assert_eq!(client.post(&url, "application/json", "{}").status, 403);
}
