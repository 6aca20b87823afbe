//! An event that Kafka refuses blocks only its own key.

use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
};
use serde_json::{Value, json};
use tandem_backends::{Kafka, KafkaOptions, require};
use tokio::runtime::Runtime;

use super::support::{
    Client, Tandem,
    checker::{CUSTOMER_TOPIC, whole_topic},
    graph::{CREATE, UPDATE, customer_input},
    poll,
};

const LIMIT: &str = "max.message.bytes";

fn readiness(client: &Client, tandem: &Tandem) -> Value {
    client
        .get(&tandem.accounts_url("/actuator/health/readiness"))
        .json()
}

fn refused_events(client: &Client, tandem: &Tandem) -> Option<f64> {
    let metrics = client
        .get(&tandem.accounts_url("/actuator/prometheus"))
        .body;
    metrics
        .lines()
        .find(|line| line.starts_with("outbox_refused_events") && line.contains(CUSTOMER_TOPIC))
        .and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
}

#[test]
fn an_event_that_kafka_refuses_for_ever_holds_back_its_own_key_alone() {
    require!(kafka);
    let runtime = Runtime::new().unwrap();
    let kafka = runtime
        .block_on(Kafka::start(KafkaOptions::default()))
        .unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    let admin: AdminClient<DefaultClientContext> =
        runtime.block_on(async { config.create() }).unwrap();
    let topic = NewTopic::new(CUSTOMER_TOPIC, 1, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set(LIMIT, "8000");
    let made = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()));
    made.unwrap().remove(0).unwrap();

    let tandem = Tandem::builder()
        .kafka(kafka.bootstrap())
        .env("TANDEM_OUTBOX_UNREADY_SECONDS", "6")
        .start();
    let client = Client::new();
    let accounts = tandem.accounts_url("/graphql");
    let mut large = customer_input("large", "Lovelace");
    let address = large["addresses"][0].clone();
    large["addresses"] = json!(vec![address; 60]);
    client.data(&accounts, CREATE, json!({"input": large}));
    // Small again, but queued behind the large one.
    client.data(
        &accounts,
        UPDATE,
        json!({"id": "large", "input": {"addresses": []}}),
    );
    poll("the refusal is counted", || {
        (refused_events(&client, &tandem) == Some(1.0)).then_some(())
    });

    for number in 0..30 {
        tandem.customer(&client, &format!("small-{number}"));
        let outbox = readiness(&client, &tandem)["components"]["outbox"].clone();
        // If the relay had paused, it would report why.
        assert!(outbox["details"]["failure"].is_null(), "{outbox}");
        assert_eq!(outbox["details"]["refusedEvents"], 1);
        // Only operators may see whose event it is.
        assert!(!outbox.to_string().contains("large"), "{outbox}");
    }
    let of_operators = || {
        let path = "/operations/accounts/admin/health";
        client.get(&tandem.gateway_url(path)).json()["components"]["outbox"]["details"].clone()
    };
    let told = of_operators();
    let refusal = told["refusal"].as_str().unwrap();
    assert!(
        refusal.contains("large") && refusal.contains("size too large"),
        "{refusal}"
    );
    let held = |key: &str| {
        let events = whole_topic(&config, CUSTOMER_TOPIC).into_iter();
        events
            .filter(|event| event.key == key)
            .map(|event| event.revision)
            .collect::<Vec<_>>()
    };
    assert!(held("large").is_empty());
    assert_eq!(held("small-29"), [1]);
    poll("readiness falls with the age of what is pending", || {
        (readiness(&client, &tandem)["status"] != "UP").then_some(())
    });

    // Somebody corrects the topic's settings.
    let wider = AlterConfig::new(ResourceSpecifier::Topic(CUSTOMER_TOPIC))
        .set("retention.ms", "-1")
        .set(LIMIT, "1000000");
    let altered = runtime.block_on(admin.alter_configs([&wider], &AdminOptions::new()));
    altered.unwrap().remove(0).unwrap();
    tandem.replicated(&client, "large", 2);
    assert_eq!(held("large"), [1, 2]);
    poll("all is well again", || {
        let ready = readiness(&client, &tandem);
        (ready["status"] == "UP" && refused_events(&client, &tandem) == Some(0.0)).then_some(())
    });
    assert!(of_operators()["refusal"].is_null());
}
