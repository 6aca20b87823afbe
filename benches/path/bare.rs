//! The floors on real servers: the services' work, done with bare drivers. They write the same documents as the
//! services, into collections with the same indexes.

use std::time::{Duration, Instant};

use futures::TryStreamExt;
use mongodb::{
    Client, Collection,
    bson::{Bson, Document, doc},
    options::{Acknowledgment, WriteConcern},
};
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use tandem_backends::{Kafka, Mongo};
use tokio::runtime::Runtime;

/// The fields of an aggregate's document that a command appends to. It replaces the others.
const ADDED_TO: [&str; 2] = ["pending", "recentEvents"];

/// A client of the driver with default settings: ten connections at most.
pub async fn client(mongo: &Mongo) -> Client {
    Client::with_uri_str(mongo.uri()).await.unwrap()
}

/// A client of the driver with as many connections as the services have: one for each call in flight.
pub async fn wide_client(mongo: &Mongo) -> Client {
    let uri = format!("{}&maxPoolSize=64", mongo.uri());
    Client::with_uri_str(uri).await.unwrap()
}

/// Writes of a document that a service wrote, each with a new id.
#[derive(Clone)]
pub struct BareWrites {
    collection: Collection<Document>,
    update: Document,
}

impl BareWrites {
    /// Writes the first document of `of` that matches this filter into an empty collection with this name and with the
    /// indexes of `of`. Polls until there is such a document.
    pub async fn new(
        client: &Client,
        name: &str,
        of: &Collection<Document>,
        filter: Document,
    ) -> Self {
        let collection = client.database("floor").collection(name);
        let sample = loop {
            if let Some(sample) = of.find_one(filter.clone()).await.unwrap() {
                break sample;
            }
        };
        let indexes: Vec<_> = of
            .list_indexes()
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        collection.create_indexes(indexes).await.unwrap();
        Self {
            collection,
            update: update(sample),
        }
    }

    /// The same writes through another client.
    pub fn by(&self, client: &Client) -> Self {
        Self {
            collection: client.database("floor").collection(self.collection.name()),
            update: self.update.clone(),
        }
    }

    /// One `findAndModify`, as durable as the services' writes: majority, journaled.
    pub async fn write(&self, id: &str) {
        let durably = WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .build();
        self.collection
            .find_one_and_update(doc! { "_id": id }, self.update.clone())
            .upsert(true)
            .write_concern(durably)
            .await
            .unwrap();
    }
}

/// The update that makes this document, like one command of a service does.
fn update(sample: Document) -> Document {
    let (mut set, mut push) = (Document::new(), Document::new());
    for (field, value) in sample {
        match value {
            _ if field == "_id" => {}
            Bson::Array(elements) if ADDED_TO.contains(&field.as_str()) => {
                push.insert(field, doc! { "$each": elements });
            }
            value => {
                set.insert(field, value);
            }
        }
    }
    let mut update = doc! { "$set": set };
    if !push.is_empty() {
        update.insert("$push", push);
    }
    update
}

/// Write, produce, consume, write: the four steps with bare drivers, one change at a time.
pub struct BareLoop {
    customers: BareWrites,
    replica: BareWrites,
    body: String,
    producer: FutureProducer,
    consumer: StreamConsumer,
}

impl BareLoop {
    /// Makes these writes, and between them sends this body to a topic of its own and receives it.
    pub fn new(
        runtime: &Runtime,
        kafka: &Kafka,
        customers: BareWrites,
        replica: BareWrites,
        body: String,
    ) -> Self {
        let _inside = runtime.enter();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka.bootstrap());
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let producer: FutureProducer = config
            .clone()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()
            .unwrap();
        let consumer: StreamConsumer = config
            .set("group.id", "floor")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let topic = NewTopic::new("floor", 6, TopicReplication::Fixed(1));
        runtime
            .block_on(admin.create_topics([&topic], &AdminOptions::new()))
            .unwrap();
        consumer.subscribe(&["floor"]).unwrap();
        Self {
            customers,
            replica,
            body,
            producer,
            consumer,
        }
    }

    /// The time of each id's change in milliseconds, sorted.
    pub fn run(&self, runtime: &Runtime, ids: impl Iterator<Item = String>) -> Vec<f64> {
        let mut times: Vec<f64> = ids
            .map(|id| {
                runtime.block_on(async {
                    let begun = Instant::now();
                    self.change(&id).await;
                    begun.elapsed().as_secs_f64() * 1_000.0
                })
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }

    async fn change(&self, id: &str) {
        self.customers.write(id).await;
        let record = FutureRecord::to("floor").key(id).payload(&self.body);
        self.producer
            .send(record, Duration::from_secs(5))
            .await
            .unwrap();
        while self.consumer.recv().await.unwrap().key() != Some(id.as_bytes()) {}
        self.replica.write(id).await;
    }
}
