//! The kit's MongoDB sets start, fail over, pause and recover.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Collection};
use tandem_backends::{Mongo, require};

const LIMIT: Duration = Duration::from_secs(30);

async fn collection(mongo: &Mongo) -> Collection<Document> {
    let mut options = ClientOptions::parse(mongo.uri()).await.unwrap();
    options.server_selection_timeout = Some(LIMIT);
    Client::with_options(options)
        .unwrap()
        .database("proof")
        .collection("writes")
}

#[tokio::test]
async fn one_node_takes_majority_writes_and_change_streams() {
    require!(mongod);
    let mongo = Mongo::start(1).await.unwrap();
    let writes = collection(&mongo).await;
    let mut changes = writes.watch().await.unwrap();
    writes.insert_one(doc! { "_id": 1 }).await.unwrap();
    while changes.next_if_any().await.unwrap().is_none() {}
    assert_eq!(writes.count_documents(doc! {}).await.unwrap(), 1);
}

#[tokio::test]
async fn a_killed_node_comes_back_with_its_data() {
    require!(mongod);
    let mongo = Mongo::start(1).await.unwrap();
    let uri = mongo.uri();
    collection(&mongo)
        .await
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    mongo.kill(0).unwrap();
    mongo.start_again(0).await.unwrap();
    mongo.wait_for_primary(LIMIT).await.unwrap();
    assert_eq!(mongo.uri(), uri);
    assert_eq!(
        collection(&mongo)
            .await
            .count_documents(doc! {})
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn three_nodes_elect_a_new_primary_when_theirs_is_killed() {
    require!(mongod);
    let mongo = Mongo::start(3).await.unwrap();
    let writes = collection(&mongo).await;
    writes.insert_one(doc! { "_id": 1 }).await.unwrap();

    let dead = mongo.kill_primary().await.unwrap();
    let primary = mongo.wait_for_primary(LIMIT).await.unwrap();
    assert_ne!(primary, dead);
    writes.insert_one(doc! { "_id": 2 }).await.unwrap();
    assert_eq!(writes.count_documents(doc! {}).await.unwrap(), 2);

    mongo.start_again(dead).await.unwrap();
    assert!(
        mongo.start_again(dead).await.is_err(),
        "a node that runs cannot be started again"
    );
}

#[tokio::test]
async fn a_paused_node_answers_nothing_until_it_goes_on() {
    require!(mongod);
    let mongo = Mongo::start(1).await.unwrap();
    let writes = collection(&mongo).await;
    writes.insert_one(doc! { "_id": 1 }).await.unwrap();
    mongo.pause(0).unwrap();
    let insert = tokio::spawn(async move { writes.insert_one(doc! { "_id": 2 }).await });
    assert!(
        mongo
            .wait_for_primary(Duration::from_secs(3))
            .await
            .is_err()
    );
    assert!(!insert.is_finished());
    mongo.resume(0).unwrap();
    insert.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_set_leaves_nothing_behind() {
    require!(mongod);
    let mongo = Mongo::start(1).await.unwrap();
    let address = mongo.address(0);
    mongo.pause(0).unwrap();
    let begun = Instant::now();
    drop(mongo);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn two_nodes_are_refused() {
    assert!(matches!(
        Mongo::start(2).await,
        Err(tandem_backends::Error::Nodes(2))
    ));
}
