//! The operator's commands on many dead letters, and who may not use their routes.

use std::time::Duration;

use serde_json::json;

use super::{CONSUMER, event_of, produce, produce_all};
use crate::support::{Client, Signal, Tandem, poll};

#[test]
fn more_dead_letters_than_a_page_are_listed_and_worked_on() {
    const MANY: usize = 1_203;
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    tandem.customer(&client, "many");
    let good = event_of(&tandem, "many");
    let mut broken = good.body.clone();
    broken["revision"] = json!(0);
    let broken = broken.to_string();
    produce(&tandem, "many", &good.headers, &broken);
    let again: Vec<&str> = vec![broken.as_str(); MANY - 1];
    produce_all(&tandem, Some("many"), &good.headers, &again);
    produce(&tandem, "other", &good.headers, "{ garbage");
    let of_many = [
        "dead-letters",
        "list",
        "--key",
        "many",
        "--consumer",
        CONSUMER,
        "--limit",
        "5000",
    ];
    let listed = |words: &[&str]| {
        let output = tandem.operated(words);
        output
            .lines()
            .filter(|line| line.starts_with(CONSUMER))
            .count()
    };
    poll("all are set aside", || {
        (listed(&of_many) == MANY).then_some(())
    });
    let other = [
        "dead-letters",
        "list",
        "--key",
        "other",
        "--consumer",
        CONSUMER,
    ];
    assert_eq!(listed(&other), 1);
    // A key that has no dead letters.
    let nothing = tandem.operate(&["dead-letters", "retry", "--key", "nobody"]);
    assert!(!nothing.succeeded, "{nothing:#?}");
    assert!(nothing.errors.contains("nobody"), "{nothing:#?}");
    // The work goes on when the terminal is closed, and reports its progress.
    let discard = [
        "dead-letters",
        "discard",
        "--key",
        "many",
        "--consumer",
        CONSUMER,
    ];
    let mut terminal = tandem.begin(&discard);
    poll("it has begun", || {
        let said = tandem.operate(&["dead-letters", "status"]);
        said.succeeded.then_some(())
    });
    terminal.signal(Signal::KILL);
    terminal.wait_for_end(Duration::from_secs(20));
    poll("all of the key are gone", || {
        (listed(&of_many) == 0).then_some(())
    });
    assert_eq!(listed(&other), 1);
    let said = tandem.operated(&["dead-letters", "status"]);
    assert!(said.contains(&format!("{MANY} discarded")), "{said}");
}

#[test]
fn the_operators_routes_are_closed_to_everybody_else() {
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    for base in [tandem.accounts_url(""), tandem.orders_url("")] {
        assert_eq!(
            client.get(&format!("{base}/admin/dead-letters")).status,
            401
        );
    }
    assert_eq!(
        client
            .get(&tandem.gateway_url("/admin/dead-letters"))
            .status,
        404
    );
}
