//! Which records are accepted, and which are refused.
#![allow(clippy::unwrap_used)]
use tandem_model::message::Position;

use super::*;
use crate::{
    log::Record,
    signing::{SIGNATURE, Signer, SigningKey, SigningSettings, Topics, canonical::Leaf},
};

const TOPICS: Topics = &[
    ("changes", "accounts"),
    ("keys", "accounts"),
    ("orders", "orders"),
];

fn signatures(service: &'static str, seed: u8) -> Signatures {
    let key = SigningKey::from_seed(&[seed; 32]).unwrap();
    Signatures::new(service, key, TOPICS, &SigningSettings::default())
}

/// Accounts and orders. Orders trusts accounts, and requires signatures from offset 5 of partition 0 of `changes` on.
fn both() -> (Signatures, Signatures) {
    let (accounts, orders) = (signatures("accounts", 1), signatures("orders", 2));
    orders.trust(
        "accounts",
        Signer {
            keys: vec![*accounts.verifying()],
            from: [("changes".to_owned(), [(0, 5)].into())].into(),
            ..Signer::default()
        },
    );
    (accounts, orders)
}

fn read(record: Record<'_>, partition: i32, offset: i64) -> Message {
    Message {
        topic: record.topic.to_owned(),
        position: Position { partition, offset },
        key: Some(record.key.to_owned()),
        headers: record
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_owned()))
            .collect(),
        payload: record.payload.map(<[u8]>::to_vec),
        published_ms: None,
    }
}

fn change<'a>(payload: Option<&'a [u8]>) -> Record<'a> {
    let mut record = Record::new("changes", "1", payload);
    record.headers.push(("ce_id", b"7".as_slice().into()));
    record
}

#[test]
fn what_the_service_signed_is_taken_as_it_is_alone() {
    let (accounts, orders) = both();
    let good = read(accounts.signed(change(Some(b"{\"revision\":1}"))), 0, 9);
    assert_eq!(orders.judge(&good), Ok(()));
    let changed = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        orders.judge(&message)
    };
    let is_changed = Err(Unverified::Changed);
    assert_eq!(
        changed(|it| it.payload = Some(b"{\"revision\":50}".to_vec())),
        is_changed
    );
    assert_eq!(changed(|it| it.payload = None), is_changed);
    assert_eq!(changed(|it| it.key = Some("2".to_owned())), is_changed);
    assert_eq!(changed(|it| it.key = None), is_changed);
    assert_eq!(changed(|it| it.topic = "keys".to_owned()), is_changed);
    assert_eq!(changed(|it| it.headers[0].1 = b"8".to_vec()), is_changed);
    assert_eq!(
        changed(|it| it.headers.push(("ce_type".to_owned(), Vec::new()))),
        is_changed
    );
    assert_eq!(
        changed(|it| it.headers.push(it.headers[1].clone())),
        Err(Unverified::Twice)
    );
    // The partition and headers that mirrors add are not signed.
    assert_eq!(changed(|it| it.position.partition = 3), Ok(()));
    assert_eq!(
        changed(|it| it.headers.push(("mirror".to_owned(), Vec::new()))),
        Ok(())
    );
}

#[test]
fn a_tombstone_is_signed_like_everything_else() {
    let (accounts, orders) = both();
    let tombstone = || Record::new("keys", "1", None);
    assert_eq!(
        orders.judge(&read(accounts.signed(tombstone()), 0, 0)),
        Ok(())
    );
    let missing = Err(Unverified::Missing("accounts".to_owned()));
    assert_eq!(orders.judge(&read(tombstone(), 0, 0)), missing);
    let of_another = read(accounts.signed(Record::new("keys", "2", None)), 0, 0);
    let replayed = Message {
        key: Some("3".to_owned()),
        ..of_another
    };
    assert_eq!(orders.judge(&replayed), Err(Unverified::Changed));
}

#[test]
fn a_right_record_with_another_ones_signature_is_refused_whatever_was_judged_before() {
    let (accounts, orders) = both();
    let tombstone = |subject| read(accounts.signed(Record::new("keys", subject, None)), 0, 0);
    let (right, other) = (tombstone("1"), tombstone("2"));
    assert_eq!(orders.judge(&right), Ok(()));
    assert_eq!(orders.judge(&other), Ok(()));
    // After compaction the tombstone may be all that is left. A reader that starts then has only its signature to judge
    // by.
    let forged = Message {
        headers: other.headers,
        ..right
    };
    assert_eq!(orders.judge(&forged), Err(Unverified::Changed));
}

#[test]
fn what_a_replaced_key_has_signed_counts_where_it_lay_before_and_nowhere_else() {
    let (accounts, orders) = both();
    let new = signatures("accounts", 3);
    let mut signer = orders.signer("accounts").unwrap();
    let before = [("changes".to_owned(), [(0, 10)].into())].into();
    signer.replace_keys(*new.verifying(), &before);
    orders.trust("accounts", signer.clone());
    let by = |signatures: &Signatures, partition, offset| {
        let record = signatures.signed(change(Some(b"{}")));
        let message = read(record, partition, offset);
        assert_eq!(
            orders.judge(&message),
            signer.judge("accounts", &message),
            "services and tools judge alike"
        );
        orders.judge(&message)
    };
    assert_eq!(by(&accounts, 0, 9), Ok(()));
    for (partition, offset) in [(0, 10), (0, 11), (1, 0)] {
        let refused = by(&accounts, partition, offset).unwrap_err();
        assert!(
            matches!(&refused, Unverified::Replaced { service, .. } if service == "accounts"),
            "{refused}"
        );
        assert_eq!(by(&new, partition, offset), Ok(()));
    }
    // The end of a replaced key does not move when its successor is replaced.
    signer.replace_keys(
        *signatures("accounts", 4).verifying(),
        &[("changes".to_owned(), [(0, 20)].into())].into(),
    );
    let of = |key| signer.replaced.iter().find(|it| it.key == key).unwrap();
    assert_eq!(of(*accounts.verifying()).before["changes"][&0], 10);
    assert_eq!(of(*new.verifying()).before["changes"][&0], 20);
}

#[test]
fn no_other_service_signs_in_this_ones_name() {
    let (_, orders) = both();
    let forged = signatures("accounts", 2).signed(change(Some(b"{}")));
    let forged = read(forged, 0, 9);
    assert!(matches!(
        orders.judge(&forged),
        Err(Unverified::OtherKey { .. })
    ));
    // Also at an offset where signatures are not required yet.
    let early = Message {
        position: Position {
            partition: 0,
            offset: 0,
        },
        ..forged
    };
    assert!(matches!(
        orders.judge(&early),
        Err(Unverified::OtherKey { .. })
    ));
    assert!(
        orders.signed(change(Some(b"{}"))).headers.len() == 1,
        "it does not sign there at all"
    );
}

#[test]
fn what_is_older_than_signatures_needs_none() {
    let (_, orders) = both();
    let at = |partition, offset| orders.judge(&read(change(Some(b"{}")), partition, offset));
    assert_eq!(at(0, 4), Ok(()));
    assert!(at(0, 5).is_err());
    assert!(
        at(1, 0).is_err(),
        "a partition that was added later is signed from its beginning on"
    );
    let nobody = signatures("orders", 2);
    assert_eq!(
        nobody.judge(&read(change(None), 0, 99)),
        Ok(()),
        "nothing is known of accounts yet"
    );
}

#[test]
fn a_group_of_records_is_verified_once_and_each_record_still_by_itself() {
    let (accounts, orders) = both();
    let bodies: Vec<Vec<u8>> = (0..20).map(|body| vec![body]).collect();
    let records: Vec<Record<'_>> = bodies.iter().map(|body| change(Some(body))).collect();
    let leaves: Vec<Leaf> = records.iter().map(Signatures::leaf).collect();
    let mut messages: Vec<Message> = records
        .into_iter()
        .zip(accounts.sign(&leaves))
        .map(|(mut record, signature)| {
            record
                .headers
                .push((SIGNATURE, signature.into_bytes().into()));
            read(record, 0, 9)
        })
        .collect();
    assert!(messages.iter().all(|message| orders.judge(message).is_ok()));
    assert_eq!(orders.good().len(), 1);
    messages[3].payload = Some(vec![99]);
    assert_eq!(orders.judge(&messages[3]), Err(Unverified::Changed));
}

#[test]
fn a_mark_that_came_along_is_not_believed() {
    let (accounts, orders) = both();
    let mut good = read(accounts.signed(change(Some(b"{}"))), 0, 9);
    good.headers
        .push(("Tandem-Refused".to_owned(), b"no".to_vec()));
    orders.mark(&mut good);
    assert_eq!(good.header(cloudevents::REFUSED), None);
    let mut forged = read(change(Some(b"{}")), 0, 9);
    orders.mark(&mut forged);
    assert!(
        forged
            .header(cloudevents::REFUSED)
            .unwrap()
            .contains("ce_tandemsignature is missing")
    );
    assert!(cloudevents::read(&forged).unwrap_err().stands_alone);
}

#[test]
fn keys_that_a_setting_names_count_beside_the_pinned_ones() {
    let accounts = signatures("accounts", 1);
    let settings = SigningSettings {
        trusted_signers: vec![
            format!("accounts={}", accounts.verifying())
                .parse()
                .unwrap(),
        ],
        accept_unsigned: true,
        ..SigningSettings::default()
    };
    let key = SigningKey::from_seed(&[2; 32]).unwrap();
    let orders = Signatures::new("orders", key, TOPICS, &settings);
    orders.trust("accounts", Signer::default());
    assert_eq!(
        orders.judge(&read(accounts.signed(change(None)), 0, 0)),
        Ok(())
    );
    assert_eq!(
        orders.judge(&read(change(None), 0, 0)),
        Ok(()),
        "told to take what is not signed"
    );
    let forged = signatures("accounts", 3).signed(change(None));
    assert!(orders.judge(&read(forged, 0, 0)).is_err());
}
