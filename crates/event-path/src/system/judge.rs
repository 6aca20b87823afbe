//! Judges records as they are read: whether another system or an unauthorized writer wrote them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tandem_model::{cloudevents, message::Message};
use tandem_runtime::clock::Clock;
use tokio::sync::watch;

use crate::signing::Signatures;

/// Who owns the topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Not known yet.
    Unknown,
    /// Nobody has claimed them.
    Nobody,
    /// This system.
    System(Arc<str>),
}

/// The identity of the system, once it is known to own the topics. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) watch::Sender<Owner>);

impl Name {
    pub(super) fn new() -> Self {
        Self(watch::channel(Owner::Unknown).0)
    }

    pub(super) fn get(&self) -> Option<Arc<str>> {
        match &*self.0.borrow() {
            Owner::System(system) => Some(Arc::clone(system)),
            Owner::Unknown | Owner::Nobody => None,
        }
    }

    /// Marks a record that may belong to another system. Removes a mark that the record was sent with.
    fn checkpoint(&self, message: &mut Message) {
        let is_mark = |name: &str| name.eq_ignore_ascii_case(cloudevents::READ_BY);
        message.headers.retain(|(name, _)| !is_mark(name));
        let Some(ours) = self.get() else { return };
        let mut systems = message
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(cloudevents::SYSTEM));
        let names_another = systems.any(|(_, theirs)| theirs != ours.as_bytes());
        // In structured mode the attribute is in the body.
        if names_another || cloudevents::is_structured(message) {
            let checkpoint = (cloudevents::READ_BY.to_owned(), ours.as_bytes().to_vec());
            message.headers.push(checkpoint);
        }
    }
}

/// Judges records as they are read. A record that is signed by a key that no claim has announced yet waits for a look
/// at the claims. The records behind it wait too.
#[derive(Debug)]
pub(super) struct Judge {
    name: Name,
    signatures: Option<Signatures>,
    clock: Clock,
    /// The record that was read and not judged yet. It is kept here so that a cancelled read does not lose it.
    doubtful: Mutex<Option<Message>>,
}

impl Judge {
    pub(super) fn new(name: Name, signatures: Option<Signatures>, clock: &Clock) -> Self {
        Self {
            name,
            signatures,
            clock: clock.clone(),
            doubtful: Mutex::default(),
        }
    }

    /// Discards the waiting record: it is read again, or not needed any more.
    pub(super) fn forget(&self) {
        self.doubtful().take();
    }

    fn doubtful(&self) -> MutexGuard<'_, Option<Message>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judged record; `None` if it waits for a look at the claims.
    pub(super) fn judged(&self, mut message: Message) -> Option<Message> {
        if let Some(signatures) = &self.signatures
            && !signatures.mark_undoubted(&mut message, &self.clock)
        {
            *self.doubtful() = Some(message);
            return None;
        }
        self.name.checkpoint(&mut message);
        Some(message)
    }

    /// Whether a record waits for a look at the claims.
    pub(super) fn waits(&self) -> bool {
        self.doubtful().is_some()
    }

    /// Requests a look at the claims for the waiting record, and judges it. `None` if no record waits. Cancel safe.
    pub(super) async fn looked(&self) -> Option<Message> {
        let signatures = self.signatures.as_ref().filter(|_| self.waits())?;
        signatures.look_again(&self.clock).await;
        let mut message = self.doubtful().take()?;
        signatures.mark(&mut message);
        self.name.checkpoint(&mut message);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;
    use tandem_model::message::Position;

    use super::*;
    use crate::{
        log::Record,
        signing::{Signer, SigningKey, SigningSettings},
    };

    fn message(headers: &[(&str, &[u8])]) -> Message {
        Message {
            topic: "topic".to_owned(),
            position: Position {
                partition: 0,
                offset: 0,
            },
            key: Some("1".to_owned()),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            payload: Some(b"{}".to_vec()),
            published_ms: None,
        }
    }

    #[test]
    fn what_names_another_system_is_marked_whatever_it_says_of_itself() {
        let name = Name(watch::channel(Owner::System("ours".into())).0);
        let checkpoint = |headers: &[(&str, &[u8])]| {
            let mut message = message(headers);
            name.checkpoint(&mut message);
            message.header(cloudevents::READ_BY).map(str::to_owned)
        };
        let ours = Some("ours".to_owned());
        assert_eq!(checkpoint(&[]), None);
        assert_eq!(checkpoint(&[("ce_tandemsystem", b"ours")]), None);
        assert_eq!(checkpoint(&[("CE_TandemSystem", b"theirs")]), ours);
        assert_eq!(checkpoint(&[("ce_tandemsystem", &[0xff])]), ours);
        let twice: [(&str, &[u8]); 2] =
            [("ce_tandemsystem", b"ours"), ("ce_tandemsystem", b"theirs")];
        assert_eq!(checkpoint(&twice), ours);
        assert_eq!(
            checkpoint(&[("content-type", b"application/cloudevents+json")]),
            ours
        );
        assert_eq!(checkpoint(&[("Tandem-Read-By", b"theirs")]), None);
        let both: [(&str, &[u8]); 2] = [
            ("tandem-read-by", b"theirs"),
            ("ce_tandemsystem", b"theirs"),
        ];
        assert_eq!(checkpoint(&both), ours);
    }

    fn signatures(service: &'static str, seed: u8) -> Signatures {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap();
        let topics = &[("topic", "accounts")];
        Signatures::new(service, key, topics, &SigningSettings::default())
    }

    fn signed_by(signatures: &Signatures) -> Message {
        let record = signatures.signed(Record::new("topic", "1", Some(b"{}")));
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        message(&headers)
    }

    /// A judge for orders that knows one key of accounts, and the signatures through which tests trust more keys.
    fn judge(known: &Signatures) -> (Judge, Signatures) {
        let orders = signatures("orders", 9);
        trust(&orders, &[known]);
        let judge = Judge::new(Name::new(), Some(orders.clone()), &Clock::default());
        (judge, orders)
    }

    fn trust(orders: &Signatures, known: &[&Signatures]) {
        let keys = known.iter().map(|known| *known.verifying()).collect();
        let signer = Signer {
            keys,
            ..Signer::default()
        };
        orders.trust("accounts", signer);
    }

    fn is_refused(message: &Message) -> bool {
        message.header(cloudevents::REFUSED).is_some()
    }

    #[tokio::test]
    async fn a_record_waits_until_the_claim_of_its_key_is_looked_for() {
        let (known, new) = (signatures("accounts", 1), signatures("accounts", 2));
        let (judge, orders) = judge(&known);
        let mut looks = orders.looks();
        assert!(!is_refused(&judge.judged(signed_by(&known)).unwrap()));
        assert_eq!(judge.judged(signed_by(&new)), None);
        assert!(judge.waits());
        // A cancelled read does not lose the record.
        assert!(judge.looked().now_or_never().is_none());
        assert!(judge.waits());
        let look = async {
            looks.changed().await.unwrap();
            let asked = *looks.borrow_and_update();
            trust(&orders, &[&new, &known]);
            orders.looked(asked);
            std::future::pending::<()>().await;
        };
        let taken = tokio::select! {
            taken = judge.looked() => taken.unwrap(),
            () = look => unreachable!(),
        };
        assert!(!is_refused(&taken));
        assert!(!judge.waits());
    }

    #[tokio::test]
    async fn a_record_whose_key_no_claim_tells_of_is_refused_after_a_look() {
        let (judge, orders) = judge(&signatures("accounts", 1));
        let forged = signed_by(&signatures("accounts", 2));
        assert!(
            is_refused(&judge.judged(forged.clone()).unwrap()),
            "nobody makes looks"
        );
        let looks = orders.looks();
        assert_eq!(judge.judged(forged), None);
        orders.looked(u64::MAX);
        assert!(is_refused(&judge.looked().await.unwrap()));
        drop(looks);
    }
}
