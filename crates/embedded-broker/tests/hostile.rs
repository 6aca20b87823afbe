//! Shows that a hostile client on the port does not affect other clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse,
        InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
        MetadataRequest, MetadataResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, RequestHeader,
        ResponseHeader, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes},
};
use support::{LIMIT, TestBroker, poll, read, send};

/// A client that can send anything.
struct Raw(TcpStream);

impl Raw {
    fn connect(broker: &TestBroker) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    fn frame<R: Encodable + HeaderVersion>(
        key: ApiKey,
        version: i16,
        correlation: i32,
        request: &R,
    ) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(StrBytes::from_static_str("raw")));
        header
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        let length = i32::try_from(frame.len() - 4).unwrap();
        frame[..4].copy_from_slice(&length.to_be_bytes());
        frame.freeze()
    }

    fn answer<R: Decodable + HeaderVersion>(&mut self, version: i16, correlation: i32) -> R {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut frame).unwrap();
        let mut frame = Bytes::from(frame);
        let header = ResponseHeader::decode(&mut frame, R::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation);
        let answer = R::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty());
        answer
    }

    fn ask<Q, A>(&mut self, key: ApiKey, version: i16, request: &Q) -> A
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        self.0
            .write_all(&Self::frame(key, version, 7, request))
            .unwrap();
        self.answer(version, 7)
    }

    fn is_closed(&mut self) -> bool {
        !matches!(self.0.read(&mut [0]), Ok(1..))
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

async fn broker() -> TestBroker {
    let broker = TestBroker::start();
    broker.create("events", 1, &[]).await;
    broker
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_close_their_connection_and_no_other() {
    let broker = broker().await;
    let mut good = Raw::connect(&broker);
    let length = |length: i32| length.to_be_bytes().to_vec();
    let framed = |body: &[u8]| [&length(i32::try_from(body.len()).unwrap())[..], body].concat();
    let bad: Vec<Vec<u8>> = vec![
        length(-1),
        length(i32::MAX),
        length(17 * 1024 * 1024),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        framed(&[]),
        framed(&[0, 3]),
        // An unknown request, and an unknown version.
        framed(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]),
        framed(&[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff]),
        // A client id that is longer than the request.
        framed(&[0, 3, 0, 4, 0, 0, 0, 1, 0x7f, 0xff]),
        // Two billion topics, in both encodings of an array.
        framed(&[
            0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0,
        ]),
        framed(&[
            0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f,
        ]),
    ];
    for bytes in bad {
        let mut raw = Raw::connect(&broker);
        raw.0.write_all(&bytes).unwrap();
        assert!(raw.is_closed(), "{bytes:?}");
        let known: MetadataResponse = good.ask(ApiKey::Metadata, 12, &MetadataRequest::default());
        assert_eq!(known.topics.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_future_is_told_what_it_may_ask() {
    let broker = broker().await;
    let mut raw = Raw::connect(&broker);
    let mut frame =
        BytesMut::from(&Raw::frame(ApiKey::ApiVersions, 4, 9, &ApiVersionsRequest::default())[..]);
    frame[6..8].copy_from_slice(&999_i16.to_be_bytes());
    raw.0.write_all(&frame).unwrap();
    let answer: ApiVersionsResponse = raw.answer(0, 9);
    assert_eq!(answer.error_code, 35);
    let known: ApiVersionsResponse =
        raw.ask(ApiKey::ApiVersions, 4, &ApiVersionsRequest::default());
    assert_eq!(
        (known.error_code, known.api_keys.len()),
        (0, answer.api_keys.len())
    );
    for api in &known.api_keys {
        assert!(api.min_version <= api.max_version);
    }
    let produce = known.api_keys.iter().find(|api| api.api_key == 0).unwrap();
    assert!(produce.max_version <= ProduceRequest::VERSIONS.max);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_sends_half_a_request_holds_nobody_up() {
    let broker = broker().await;
    let mut half: Vec<Raw> = (0..20).map(|_| Raw::connect(&broker)).collect();
    for raw in &mut half {
        // Large requests are read a few at a time.
        raw.0
            .write_all(&(8 * 1024 * 1024_i32).to_be_bytes())
            .unwrap();
        raw.0.write_all(&[0; 1_000]).unwrap();
    }
    assert_eq!(
        send(&broker.producer(), "events", "key", Some("value")).await,
        0
    );
    assert_eq!(read(&broker.reader("events", 1), 1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_are_refused_and_let_in_again() {
    let broker = broker().await;
    let many: Vec<Raw> = (0..1_000).map(|_| Raw::connect(&broker)).collect();
    poll("there are too many", || {
        Raw::connect(&broker).is_closed().then_some(())
    });
    drop(many);
    poll("there is room again", || {
        let mut raw = Raw::connect(&broker);
        let request = Raw::frame(ApiKey::Metadata, 4, 7, &MetadataRequest::default());
        raw.0.write_all(&request).ok()?;
        raw.0.read_exact(&mut [0; 4]).ok()
    });
}

fn produce(records: Vec<u8>, topic: &str) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(records.into()));
    let topic = TopicProduceData::default()
        .with_name(name(topic))
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(-1)
        .with_topic_data(vec![topic])
}

fn code(answer: &ProduceResponse) -> i16 {
    answer.responses[0].partition_responses[0].error_code
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_are_none_are_refused_one_by_one_and_their_connection_goes_on() {
    let broker = broker().await;
    let mut raw = Raw::connect(&broker);
    let mut ask = |request: &ProduceRequest| -> i16 { code(&raw.ask(ApiKey::Produce, 9, request)) };
    assert_eq!(ask(&produce(Vec::new(), "events")), 2);
    assert_eq!(ask(&produce(vec![0; 61], "events")), 43);
    assert_eq!(ask(&produce(vec![0xff; 500], "events")), 43);
    assert_eq!(ask(&produce(vec![0; 2_000_000], "events")), 10);
    assert_eq!(ask(&produce(Vec::new(), "nothing")), 3);
    assert_eq!(ask(&produce(Vec::new(), "events").with_acks(2)), 21);
    assert_eq!(broker.watermarks("events"), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_can_be_asked_for_by_id_and_offsets_out_of_range_are_refused() {
    let broker = broker().await;
    send(&broker.producer(), "events", "key", Some("value")).await;
    let mut raw = Raw::connect(&broker);
    let all = MetadataRequest::default().with_topics(None);
    let known: MetadataResponse = raw.ask(ApiKey::Metadata, 12, &all);
    let id = known.topics[0].topic_id;
    assert!(!id.is_nil());
    let mut fetch = |id, offset| -> (i16, usize) {
        let partition = FetchPartition::default()
            .with_fetch_offset(offset)
            .with_partition_max_bytes(1_000_000);
        let topic = FetchTopic::default()
            .with_topic_id(id)
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_bytes(1_000_000)
            .with_topics(vec![topic]);
        let answer: FetchResponse = raw.ask(ApiKey::Fetch, 16, &request);
        let found = &answer.responses[0].partitions[0];
        let length = found.records.as_ref().map_or(0, Bytes::len);
        (found.error_code, length)
    };
    let (error, length) = fetch(id, 0);
    assert!(error == 0 && length > 61);
    assert_eq!(fetch(id, 1), (0, 0));
    assert_eq!(fetch(id, 2), (1, 0));
    assert_eq!(fetch(id, -1), (1, 0));
    assert_eq!(fetch(uuid::Uuid::from_u128(5), 0), (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_offsets_by_kind_are_answered() {
    let broker = broker().await;
    send(&broker.producer(), "events", "key", Some("value")).await;
    let mut raw = Raw::connect(&broker);
    let mut epoch = |leader_epoch, current| {
        let partition = OffsetForLeaderPartition::default()
            .with_leader_epoch(leader_epoch)
            .with_current_leader_epoch(current);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name("events"))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let answer: OffsetForLeaderEpochResponse =
            raw.ask(ApiKey::OffsetForLeaderEpoch, 4, &request);
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.leader_epoch, found.end_offset)
    };
    assert_eq!(epoch(0, 0), (0, 0, 1));
    assert_eq!(epoch(5, -1), (0, -1, -1));
    assert_eq!(epoch(0, 3).0, 75);
    let mut offset = |timestamp| {
        let partition = ListOffsetsPartition::default()
            .with_timestamp(timestamp)
            .with_current_leader_epoch(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(name("events"))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let answer: ListOffsetsResponse = raw.ask(ApiKey::ListOffsets, 9, &request);
        let found = &answer.topics[0].partitions[0];
        (found.error_code, found.offset)
    };
    assert_eq!(offset(-1), (0, 1));
    assert_eq!(offset(-2), (0, 0));
    assert_eq!(offset(-3), (0, 0));
    assert_eq!(offset(-5), (0, -1));
    assert_eq!(offset(-99).0, 35);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_one_behind_the_other_are_answered_in_their_order() {
    let broker = broker().await;
    let mut raw = Raw::connect(&broker);
    let fetch = FetchRequest::default()
        .with_max_wait_ms(200)
        .with_min_bytes(1);
    raw.0
        .write_all(&Raw::frame(ApiKey::Fetch, 12, 1, &fetch))
        .unwrap();
    for correlation in 2..20 {
        let init = Raw::frame(
            ApiKey::InitProducerId,
            4,
            correlation,
            &InitProducerIdRequest::default().with_transactional_id(None),
        );
        raw.0.write_all(&init).unwrap();
    }
    let _: FetchResponse = raw.answer(12, 1);
    let ids: Vec<i64> = (2..20)
        .map(|correlation| {
            let answer: InitProducerIdResponse = raw.answer(4, correlation);
            assert_eq!(answer.error_code, 0);
            answer.producer_id.0
        })
        .collect();
    assert!(ids.is_sorted_by(|one, next| one < next));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answers_holds_nobody_up() {
    let broker = broker().await;
    let producer = broker.producer();
    for _ in 0..20 {
        send(&producer, "events", "key", Some(&"x".repeat(500_000))).await;
    }
    let partition = FetchPartition::default().with_partition_max_bytes(50_000_000);
    let topic = FetchTopic::default()
        .with_topic(name("events"))
        .with_partitions(vec![partition]);
    let fetch = FetchRequest::default()
        .with_max_bytes(50_000_000)
        .with_topics(vec![topic]);
    let mut greedy: Vec<Raw> = (0..10).map(|_| Raw::connect(&broker)).collect();
    for raw in &mut greedy {
        raw.0
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        for correlation in 0..100 {
            let request = Raw::frame(ApiKey::Fetch, 11, correlation, &fetch);
            if raw.0.write_all(&request).is_err() {
                break;
            }
        }
    }
    assert_eq!(send(&producer, "events", "key", Some("value")).await, 20);
}
