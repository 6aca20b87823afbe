//! Replacing the sealing key while the system serves: all data stays readable, an interruption loses nothing, and the
//! old key can then be removed.

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem,
    graph::{CREATE, UPDATE, customer_input},
    ground::{CUSTOMERS, Ground, KEYS, Log},
    poll,
};

const OLD: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
const NEW: &str = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";
const CARDS: &str =
    "query($id: ID!) { customer(id: $id) { revision name { lastName } creditCards { last4 } } }";

fn with_card(tandem: &Tandem, client: &Client, id: &str) {
    let mut input = customer_input(id, "Lovelace");
    input["creditCards"] = json!([card()]);
    client.data(
        &tandem.gateway_url("/graphql"),
        CREATE,
        json!({"input": input}),
    );
}

fn card() -> Value {
    json!({"type": "PRIMARY", "number": "4111 1111 1111 1111", "expiration": "12/2031", "nameOnCard": "Ada Lovelace"})
}

/// Writes the same card again: if the stored number opens, it is the same, and nothing changes.
fn card_opens(tandem: &Tandem, client: &Client, id: &str) {
    let accounts = tandem.accounts_url("/graphql");
    let revision = |client: &Client| {
        client.data(&accounts, CARDS, json!({"id": id}))["customer"]["revision"].clone()
    };
    let before = revision(client);
    let input = json!({"creditCards": [card()]});
    client.data(&accounts, UPDATE, json!({"id": id, "input": input}));
    assert_eq!(revision(client), before, "the number of {id} does not open");
}

fn rename(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    let name = json!({"name": {"firstName": "Ada", "lastName": last_name}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": id, "input": name}),
    );
}

#[test]
fn the_sealing_key_is_replaced_while_the_system_serves() {
    replaced(&Ground::embedded().asking_for_signatures());
}

#[test]
fn the_sealing_key_is_replaced_on_real_servers() {
    require!(mongod, kafka);
    replaced(&Ground::on_real_servers().asking_for_signatures());
}

fn replaced(ground: &Ground) {
    let client = Client::new();
    let ids: Vec<String> = (1..=250).map(|id| format!("c{id}")).collect();
    {
        ground.write_key(OLD);
        let tandem = ground.start();
        for id in &ids {
            with_card(&tandem, &client, id);
        }
        tandem.replicated(&client, "c250", 1);
        tandem.order(&client, "c1");
        tandem.published(&client);
    }
    let old = fingerprint_of_claim(ground);
    {
        ground.write_key(&format!("{NEW}\n{OLD}"));
        let tandem = ground.start();
        // Both keys open. New data is sealed with the new key.
        rename(&tandem, &client, "c1", "King");
        tandem.replicated(&client, "c1", 2);
        card_opens(&tandem, &client, "c2");
        let mut rotation = tandem.begin(&["keys", "rotate"]);
        for id in ids.iter().take(50) {
            rename(&tandem, &client, id, "Byron");
        }
        let status = rotation.wait_for_end(std::time::Duration::from_secs(120));
        let (output, errors) = rotation.all_output();
        assert!(status.success(), "{output} {errors}");
        assert!(
            output.contains("may go") && output.contains(&old),
            "{output}"
        );
        tandem.published(&client);
        let again = tandem.operated(&["keys", "rotate", "--json"]);
        let again: Value = serde_json::from_str(&again).unwrap();
        for service in ["accounts", "orders"] {
            assert_eq!(again[service]["rewrapped"], 0, "{again:#}");
            assert!(
                again[service]["lookedAt"].as_u64() >= Some(250),
                "{again:#}"
            );
        }
    }
    let new = fingerprint_of_claim(ground);
    assert_ne!(new, old);
    // Somebody who may write repeats the claim that accounts made with the old key. The claim has a valid signature.
    // Accounts publishes its own claim after it. If accounts does not run before compaction leaves only the old claim,
    // it uses what it has stored.
    for runs in [true, false] {
        ground.write_key(&format!("{NEW}\n{OLD}"));
        let tandem = runs.then(|| ground.start());
        let log = tandem.as_ref().map_or_else(|| ground.log(), Log::of);
        let all = log.read(KEYS);
        let mut claims = all.iter().filter(|raw| raw.is_claim());
        let first = claims.next().unwrap();
        log.write(KEYS, std::slice::from_ref(first));
        if let Some(tandem) = tandem {
            poll("accounts claims behind the old claim", || {
                (newest_fingerprint(&log) == new).then_some(())
            });
            drop(tandem);
        } else {
            assert_eq!(newest_fingerprint(&log), old);
        }
    }
    // The old key is removed, and everything stays readable: in the stores, in the log, and in new stores made from it.
    ground.write_key(NEW);
    for is_new in [false, true] {
        if is_new {
            for service in ["accounts", "orders"] {
                ground.lose_store(service);
            }
        }
        let tandem = ground.start();
        for id in ["c1", "c50", "c51", "c250"] {
            card_opens(&tandem, &client, id);
        }
        rename(
            &tandem,
            &client,
            "c200",
            if is_new { "Second" } else { "First" },
        );
        tandem.replicated(&client, "c200", if is_new { 3 } else { 2 });
        for service in ["accounts", "orders"] {
            let told = tandem.operated(&["rebuild", service]);
            assert!(told.contains(" 0 removed, 0 set back"), "{told}");
        }
        let audit = tandem.operated(&["audit", "customer", "c200"]);
        assert!(audit.contains("Lovelace"), "{audit}");
        tandem.published(&client);
    }
    // The old key alone no longer opens anything.
    ground.write_key(OLD);
    let mut refused = ground.builder().spawn();
    let status = refused
        .process
        .wait_for_end(std::time::Duration::from_secs(120));
    assert!(!status.success());
}

fn fingerprint_of_claim(ground: &Ground) -> String {
    let log = ground.log();
    assert!(!log.read(CUSTOMERS).is_empty());
    newest_fingerprint(&log)
}

/// The fingerprint in the last claim on the topic of keys.
fn newest_fingerprint(log: &Log) -> String {
    let claim = log
        .read(KEYS)
        .into_iter()
        .rfind(|raw| raw.is_claim())
        .unwrap();
    let claim: Value = serde_json::from_slice(&claim.payload.unwrap()).unwrap();
    claim["sealing_key"].as_str().unwrap().to_owned()
}

#[test]
fn a_replacement_that_is_interrupted_goes_on_by_itself() {
    let ground = Ground::embedded().asking_for_signatures();
    let client = Client::new();
    ground.write_key(OLD);
    {
        let tandem = ground.start();
        for id in 1..=450 {
            tandem.customer(&client, &format!("c{id}"));
        }
        tandem.replicated(&client, "c450", 1);
        tandem.published(&client);
    }
    ground.write_key(&format!("{NEW},{OLD}"));
    {
        let tandem = ground.start();
        let rotation = tandem.begin(&["keys", "rotate"]);
        poll("it is under way", || {
            let log = std::fs::read_dir(tandem.data_dir().join("logs")).ok()?;
            let begun = log.flatten().any(|file| {
                std::fs::read_to_string(file.path())
                    .is_ok_and(|text| text.contains("the sealing key is being replaced"))
            });
            begun.then_some(())
        });
        drop(rotation);
        // The whole system is killed, at any state of the work.
        drop(tandem);
    }
    // A configuration that is rolled back now opens nothing that the new key has sealed.
    ground.write_key(OLD);
    let mut refused = ground.builder().spawn();
    let status = refused
        .process
        .wait_for_end(std::time::Duration::from_secs(120));
    assert!(!status.success());
    let (output, errors) = refused.process.all_output();
    let said = output + &errors;
    assert!(
        said.contains("this store was used with the sealing key"),
        "{said}"
    );
    drop(refused);
    ground.write_key(&format!("{NEW},{OLD}"));
    let tandem = ground.start();
    let told = tandem.operated(&["keys", "rotate"]);
    assert!(told.contains("may go"), "{told}");
    drop(tandem);
    ground.write_key(NEW);
    let tandem = ground.start();
    rename(&tandem, &client, "c450", "King");
    tandem.replicated(&client, "c450", 2);
    let log = Log::of(&tandem);
    let keys = log.read(KEYS);
    let newest = keys.iter().rfind(|raw| raw.key == "c7").unwrap();
    let body: Value = serde_json::from_slice(newest.payload.as_deref().unwrap()).unwrap();
    assert!(body["wrapped"].as_str().unwrap().starts_with("v2."));
    // Somebody repeats a record that the old key has wrapped. It is signed, but nobody can open it any more.
    let old = keys.iter().find(|raw| raw.key == "c7").unwrap();
    assert_ne!(old.payload, newest.payload);
    log.write(KEYS, std::slice::from_ref(old));
    assert_eq!(tandem.operated(&["keys", "publish"]).trim(), "1 published");
    assert_eq!(tandem.operated(&["keys", "publish"]).trim(), "0 published");
    let keys = log.read(KEYS);
    let newest_again = keys.iter().rfind(|raw| raw.key == "c7").unwrap();
    assert_eq!(newest_again.payload, newest.payload);
    rename(&tandem, &client, "c7", "Byron");
    tandem.replicated(&client, "c7", 2);
}
