//! Checks that every request in every version has an answer that can be encoded.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use redb::{Builder, backends::InMemoryBackend};
use tokio::time::Instant;

use super::*;
use crate::{
    log::TopicSettings,
    wire::shape::tests::{frame, samples},
};

#[tokio::test]
async fn each_request_is_answered_in_each_version() {
    let open = || Builder::new().create_with_backend(InMemoryBackend::new());
    let (log, _ended) = Log::open(Arc::new(open)).unwrap();
    let broker = Arc::new(Broker {
        log,
        groups: Membership::default(),
        port: 9092,
    });
    for (request, version, body) in samples() {
        let settings = TopicSettings::from_given([]).unwrap();
        let make = broker
            .log
            .change(|changes| match changes.topic("a-topic") {
                Some(_) => Ok(()),
                None => changes.create_topic("a-topic", 2, settings).map(drop),
            })
            .await;
        make.unwrap();
        let received = Received::read(frame(request, version, &body)).unwrap();
        let mut answer = broker.take(received).await.unwrap();
        let later = Instant::now() + Duration::from_secs(3_600);
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                // A member that waits for others to join waits only for a moment.
                () = tokio::time::sleep(Duration::from_millis(5)) => broker.groups.tick(later),
            }
        };
        // The sample of a produce request wants no acknowledgement.
        let answer = answer.unwrap();
        assert_eq!(
            answer.is_none(),
            request.key == ApiKey::Produce,
            "{:?}",
            request.key
        );
    }
}
