//! What signatures cost per record, in microseconds of one processor: signing and judging, by the number of records
//! that are published together.
//!
//! The floor is a cost that every reader has anyway: the fingerprint of a record of this size for the checkpoint of its
//! partition (SHA-256 of key, id and body).
//!
//!     cargo bench -p tandem-event-path --bench signed_records
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::{hint::black_box, time::Instant};

use tandem_event_path::{
    checkpoint::Checkpoint,
    log::Record,
    signing::{SIGNATURE, Signatures, Signer, SigningKey, SigningSettings, Topics},
};
use tandem_model::message::{Message, Position};

const TOPICS: Topics = &[("changes", "accounts")];
/// Bytes of a body: a sealed customer with two addresses and a card.
const BODY: usize = 1_400;
const RECORDS: usize = 4_096;
const ROUNDS: usize = 7;

fn record<'a>(key: &'a str, body: &'a [u8]) -> Record<'a> {
    let mut record = Record::new("changes", key, Some(body));
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", key),
        ("ce_source", "/accounts"),
        ("ce_type", "CustomerChangeEvent"),
        ("ce_subject", key),
        ("ce_time", "2026-11-29T10:00:00.000Z"),
        (
            "ce_dataschema",
            "urn:tandem:schema:customer-change-event:v2",
        ),
        ("content-type", "application/json"),
        ("ce_tandemsystem", "01a22708-80d3-704c-892c-4d792087472d"),
    ] {
        record.headers.push((name, value.as_bytes().into()));
    }
    record
}

fn message(record: &Record<'_>, signature: &str) -> Message {
    let mut headers: Vec<(String, Vec<u8>)> = record
        .headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
        .collect();
    headers.push((SIGNATURE.to_owned(), signature.as_bytes().to_vec()));
    Message {
        topic: record.topic.to_owned(),
        position: Position {
            partition: 0,
            offset: 0,
        },
        key: Some(record.key.to_owned()),
        headers,
        payload: record.payload.map(<[u8]>::to_vec),
        published_ms: None,
    }
}

/// Microseconds per record: the median of the rounds.
fn median(mut work: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed().as_secs_f64() * 1e6 / RECORDS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn signatures(service: &'static str) -> Signatures {
    let key = SigningKey::from_seed(&[7; 32]).unwrap();
    Signatures::new(service, key, TOPICS, &SigningSettings::default())
}

fn main() {
    let keys: Vec<String> = (0..RECORDS).map(|key| format!("customer-{key}")).collect();
    let body = vec![b'x'; BODY];
    let records: Vec<Record<'_>> = keys.iter().map(|key| record(key, &body)).collect();
    let accounts = signatures("accounts");
    println!("| together | signing | judging | a reader's fingerprint, the floor |");
    println!("|---|---|---|---|");
    for together in [1, 4, 16, 32, 64] {
        let mut signed: Vec<String> = Vec::new();
        let signing = median(|| {
            signed = records
                .chunks(together)
                .flat_map(|some| accounts.sign_together(some))
                .collect();
        });
        let messages: Vec<Message> = records
            .iter()
            .zip(&signed)
            .map(|(record, signature)| message(record, signature))
            .collect();
        let judging = median(|| {
            // A new reader each round, because a reader remembers signatures that it found valid.
            let reader = signatures("orders");
            reader.trust(
                "accounts",
                Signer {
                    keys: vec![*accounts.verifying()],
                    ..Signer::default()
                },
            );
            assert!(messages.iter().all(|message| reader.judge(message).is_ok()));
        });
        let floor = median(|| {
            for message in &messages {
                black_box(Checkpoint::of(message));
            }
        });
        println!("| {together} | {signing:.1} us | {judging:.1} us | {floor:.1} us |");
    }
}
