//! The operator's page in a headless Chromium: what an operator sees and does, with the keyboard, and on a narrow
//! screen.

use serde_json::json;

use super::{keyless, letters, poison, rename};
use crate::support::{
    Client, Signal, Tandem,
    browser::Page,
    screen::{darkened, fits, picture},
    signal,
};

/// Presses a key like a person does.
async fn press(page: &mut Page, key: &str, code: u32) {
    let text = match key {
        "Enter" => "\r",
        " " => " ",
        _ => "",
    };
    for kind in ["keyDown", "keyUp"] {
        let mut event =
            json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
        if kind == "keyDown" && !text.is_empty() {
            event["text"] = json!(text);
        }
        page.call("Input.dispatchKeyEvent", event).await;
    }
}

async fn tab(page: &mut Page) {
    press(page, "Tab", 9).await;
}

async fn enter(page: &mut Page) {
    press(page, "Enter", 13).await;
}

/// Presses Tab until the focused element satisfies the condition.
async fn tab_until(page: &mut Page, what: &str, condition: &str) {
    for _ in 0..120 {
        let found = format!("((it) => !!({condition}))(document.activeElement)");
        if page.evaluate(&found).await == json!(true) {
            return;
        }
        tab(page).await;
    }
    let held = page.evaluate("document.activeElement.outerHTML").await;
    panic!("not reached with the Tab key: {what}; the focus is on {held}");
}

/// A condition that a part of the page contains a text.
fn says(selector: &str, text: &str) -> String {
    format!(
        "[...document.querySelectorAll({})].some((it) => it.innerText.includes({}))",
        json!(selector),
        json!(text)
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_is_wrong_and_puts_it_right_with_the_keyboard_alone() {
    let tandem = tokio::task::block_in_place(|| Tandem::builder().accepts_unsigned().start());
    operate(&tandem).await;
    tokio::task::block_in_place(|| drop(tandem));
}

async fn operate(tandem: &Tandem) {
    let url = tandem.gateway_url("");
    let Some(mut page) = Page::of_chromium("the operator's page", &url).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let client = Client::new();
        for id in ["first", "second"] {
            tandem.customer(&client, id);
            // Text that somebody else wrote must not become markup.
            poison(
                tandem,
                id,
                "<img src=x onerror=\"document.title='owned'\">{ garbage",
            );
        }
        rename(tandem, &client, "first", "King");
        tandem.customer(&client, "third");
        rename(tandem, &client, "third", "King");
        tandem.audited(&client, "customer", "third", 2);
        letters(tandem, &client, "orders", 3);
        // Dropping the client drops its runtime, which is not allowed in asynchronous code.
        drop(client);
    });
    page.go(&format!("{url}/")).await;
    page.until(
        "the start page leads to it",
        "[...document.querySelectorAll('a')].some((it) => it.pathname === '/operations')",
    )
    .await;
    page.go(&format!("{url}/operations")).await;
    page.until(
        "the gateway is told of with what makes it ready",
        "!!document.querySelector('[data-health=gateway] .state.up') &&
         !!document.querySelector('[data-health=gateway] [data-component=supergraph].up')",
    )
    .await;
    page.until(
        "both services are told of with their parts",
        "['accounts', 'orders'].every((it) =>
            document.querySelectorAll(`[data-health=${it}] .component`).length >= 6 &&
            document.querySelector(`[data-health=${it}] [data-outbox]`))",
    )
    .await;
    page.until(
        "each log is told of by partition",
        "document.querySelector(`[data-logs=orders] [data-topic='accounts.customer.change'] tbody tr`) &&
         document.querySelector(`[data-logs=orders] [data-topic='orders.order.change']`)
            .innerText.includes('Nothing is in partitions 0, 1, 2, 3, 4, 5')",
    )
    .await;
    page.until(
        "nothing waits for a key and nothing was rebuilt",
        &format!(
            "{} && {}",
            says("[data-waiting=orders]", "No event waits"),
            says("[data-rebuild=orders]", "None since it started")
        ),
    )
    .await;
    page.until(
        "the letters of both keys are there with their reasons",
        "document.querySelectorAll('[data-letters=orders] [data-letter]').length === 3 &&
         document.querySelectorAll('[data-letters=orders] .reason').length === 3",
    )
    .await;
    let owned = page
        .evaluate("document.title === 'owned' || !!document.querySelector('main img')")
        .await;
    assert_eq!(owned, json!(false), "what others wrote became markup");
    picture(&mut page, "operations").await;
    look_and_discard(&mut page).await;
    retry(&mut page).await;
    rebuild_and_audit(&mut page).await;

    page.expect_no_complaint().await;
    fits(&mut page, 1200).await;
    picture(&mut page, "operations-wide").await;
    fits(&mut page, 360).await;
    picture(&mut page, "operations-narrow").await;
    darkened(&mut page).await;
    picture(&mut page, "operations-dark").await;

    stop_a_rebuild(&mut page, tandem).await;

    // A service that is down is shown as down, and its old data as outdated.
    let up = tandem.child("orders").unwrap();
    signal(up, Signal::STOP);
    page.until(
        "orders is told of as not reachable",
        &format!(
            "{} && {} && document.querySelector('[data-letters=orders] .shown.stale') &&
             document.querySelectorAll('[data-health=orders] .component').length === 0",
            says("[data-health=orders] .since", "Not reachable since"),
            says("[data-letters=orders] .since", "What is shown is as of")
        ),
    )
    .await;
    picture(&mut page, "operations-unreachable").await;
    signal(up, Signal::CONT);
    page.until(
        "orders is there again",
        "document.querySelector('[data-health=orders] .state.up') &&
         !document.querySelector('[data-health=orders] .since').textContent &&
         !document.querySelector('[data-letters=orders] .stale')",
    )
    .await;

    tokio::task::block_in_place(|| keyless(tandem, "third", "keyless"));
    page.until(
        "an event that waits for its key is told of, with its reader",
        &says(
            "[data-waiting=orders] li",
            "key of keyless for keyless, which orders-replica reads",
        ),
    )
    .await;
}

/// Opens a body, cancels discarding it, and then discards it.
async fn look_and_discard(page: &mut Page) {
    tab_until(
        page,
        "a button that shows the body of the second key",
        "it.closest('[data-letters=orders]') && it.textContent === 'Show the body' && it.ariaLabel.includes('second')",
    )
    .await;
    enter(page).await;
    page.until(
        "the body is shown as text, and the focus has stayed",
        &format!(
            "{} && document.activeElement.textContent === 'Hide the body'",
            says("[data-letter] pre", "{ garbage")
        ),
    )
    .await;
    tab_until(page, "discard", "it.textContent.startsWith('Discard')").await;
    enter(page).await;
    page.until(
        "it is asked first, with what it does and that it cannot be undone",
        &format!(
            "document.getElementById('ask').open && document.activeElement.id === 'ask-no' && {}",
            says("#ask", "It cannot be undone here")
        ),
    )
    .await;
    picture(page, "operations-discard").await;
    press(page, "Escape", 27).await;
    page.until(
        "nothing is done, and the focus is where it was",
        "!document.getElementById('ask').open && document.activeElement.textContent.startsWith('Discard') &&
         document.querySelectorAll('[data-letters=orders] [data-letter]').length === 3",
    )
    .await;
    enter(page).await;
    page.until("it is asked again", "document.getElementById('ask').open")
        .await;
    tab_until(page, "yes", "it.id === 'ask-yes'").await;
    enter(page).await;
    page.until(
        "it is gone, that is said, and the focus is not lost",
        &format!(
            "document.querySelectorAll('[data-letters=orders] [data-letter]').length === 2 && {} &&
             document.activeElement.matches('[data-letters=orders] > h3')",
            says("#letters-said", "is discarded")
        ),
    )
    .await;
}

/// Retries the first key, which is refused again, and discards its bad message. The later messages are then processed.
async fn retry(page: &mut Page) {
    let retry = "it.closest('[data-letters=orders]') && it.textContent === 'Retry the key' && it.ariaDisabled !== 'true'";
    tab_until(page, "retry", retry).await;
    enter(page).await;
    page.until(
        "it is told what is still refused",
        &says("#letters-said", "Key first is still refused"),
    )
    .await;
    page.until(
        "the buttons are on again, and the focus has stayed",
        "document.activeElement.textContent === 'Retry the key' && ![...document.querySelectorAll('[data-letters=orders] button')].some((it) => it.ariaDisabled === 'true')",
    )
    .await;
    tab_until(page, "discard", "it.textContent.startsWith('Discard')").await;
    enter(page).await;
    page.until("it is asked", "document.getElementById('ask').open")
        .await;
    tab_until(page, "yes", "it.id === 'ask-yes'").await;
    enter(page).await;
    page.until(
        "one is left, which came behind it",
        "document.querySelectorAll('[data-letters=orders] [data-letter]').length === 1 &&
         ![...document.querySelectorAll('[data-letters=orders] button')].some((it) => it.ariaDisabled === 'true')",
    )
    .await;
    tab_until(
        page,
        "retry all",
        "it.closest('[data-letters=orders]') && it.textContent === 'Retry all' && it.ariaDisabled !== 'true'",
    )
    .await;
    enter(page).await;
    page.until(
        "it is taken, and there are none",
        &format!(
            "{} && {}",
            says("#letters-said", "1 letter taken"),
            says("[data-letters=orders]", "There are none")
        ),
    )
    .await;
}

async fn rebuild_and_audit(page: &mut Page) {
    tab_until(
        page,
        "rebuild orders",
        "it.textContent === 'Rebuild orders'",
    )
    .await;
    enter(page).await;
    page.until("it is asked", "document.getElementById('ask').open")
        .await;
    tab_until(page, "yes", "it.id === 'ask-yes'").await;
    enter(page).await;
    page.until(
        "it is rebuilt, and each target is told of",
        "document.querySelector('[data-rebuild=orders] [data-state=FINISHED]') &&
         document.querySelectorAll('[data-rebuild=orders] progress').length >= 3",
    )
    .await;
    tab_until(page, "the id", "it.id === 'audit-id'").await;
    page.call("Input.insertText", json!({ "text": "third" }))
        .await;
    enter(page).await;
    page.until(
        "every change is shown with what differs",
        &format!(
            "document.querySelectorAll('#audit-changes > li').length === 2 && {} && {}",
            says("#audit-changes [data-revision='2']", "name.lastName"),
            says("#audit-said", "2 changes of customer third")
        ),
    )
    .await;
    let shown = page.evaluate("document.body.innerText").await;
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("Lovelace → King"), "{shown}");
    assert!(!shown.contains("4111111111111111"), "{shown}");
}

/// Begins a rebuild that takes long because Kafka does not answer, and stops it.
async fn stop_a_rebuild(page: &mut Page, tandem: &Tandem) {
    let broker = tandem.child("broker").unwrap();
    signal(broker, Signal::STOP);
    tab_until(
        page,
        "rebuild orders",
        "it.textContent === 'Rebuild orders'",
    )
    .await;
    enter(page).await;
    page.until("it is asked", "document.getElementById('ask').open")
        .await;
    tab_until(page, "yes", "it.id === 'ask-yes'").await;
    enter(page).await;
    let stop = "it.textContent === 'Stop' && it.ariaDisabled !== 'true' && it.closest('[data-rebuild=orders]')";
    page.until(
        "it goes on, and can be stopped",
        &format!(
            "document.querySelector('[data-rebuild=orders] [data-state=RUNNING]') &&
             [...document.querySelectorAll('button')].some((it) => !!({stop}))"
        ),
    )
    .await;
    tab_until(page, "stop", stop).await;
    enter(page).await;
    page.until(
        "it is stopped, which is said, and another can be begun",
        &format!(
            "document.querySelector('[data-rebuild=orders] [data-state=STOPPED]') && {} && {} &&
             document.querySelector('[data-rebuild=orders] [data-do=start]').ariaDisabled !== 'true'",
            says("#rebuilds-said", "is stopped"),
            says("[data-rebuild=orders]", "an operator stopped it")
        ),
    )
    .await;
    signal(broker, Signal::CONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tokens_the_page_asks_for_one_and_shows_what_it_allows() {
    let tandem = tokio::task::block_in_place(|| Tandem::builder().flag("--auth").start());
    ask_for_a_token(&tandem).await;
    tokio::task::block_in_place(|| drop(tandem));
}

async fn ask_for_a_token(tandem: &Tandem) {
    let url = tandem.gateway_url("");
    let Some(mut page) = Page::of_chromium("the operator's page with tokens", &url).await else {
        return;
    };
    page.go(&format!("{url}/operations")).await;
    page.until(
        "it asks for a token and shows nothing of the services; how the gateway is, everybody may know",
        "document.getElementById('token-form')?.hidden === false &&
         document.querySelector('[data-health=gateway] .state.up') &&
         ['accounts', 'orders'].every((it) => !document.querySelector(`[data-health=${it}] .component`)) &&
         document.querySelectorAll('[data-topic]').length === 0",
    )
    .await;
    let token = tokio::task::block_in_place(|| tandem.printed_token());
    tab_until(&mut page, "the token", "it.id === 'token'").await;
    page.call("Input.insertText", json!({ "text": token }))
        .await;
    enter(&mut page).await;
    page.until(
        "both services are told of, and nothing is asked any more",
        "document.getElementById('token-form').hidden &&
         ['accounts', 'orders'].every((it) => document.querySelector(`[data-health=${it}] .state.up`))",
    )
    .await;
}
