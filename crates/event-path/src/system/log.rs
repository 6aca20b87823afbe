//! The log as one system uses it: not before its topics are known to be that system's, with the system's name on every event that goes
//! out and the service's signature on every record, and with what another system wrote, or nobody who may, marked for whoever reads it.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tandem_model::{
    cloudevents,
    message::{Message, Position},
};
use tandem_runtime::shutdown::Shutdown;
use tokio::sync::watch;

use super::publisher::SigningPublisher;
use crate::{
    log::{
        Arrival, Attention, Ends, Log, LogError, Member, Membership, Offsets, PublishError,
        Publisher, Record, Tail, TopicState,
    },
    signing::{SIGNATURE_BYTES, Signatures},
};

/// Whose the topics are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// That is being found out.
    Unknown,
    /// Nobody has claimed them.
    Nobody,
    /// This system's.
    System(Arc<str>),
}

/// The name of the system, once the topics are known to be its. Clones share it.
#[derive(Clone, Debug)]
struct Name(watch::Sender<Owner>);

impl Name {
    fn new() -> Self {
        Self(watch::channel(Owner::Unknown).0)
    }

    fn get(&self) -> Option<Arc<str>> {
        match &*self.0.borrow() {
            Owner::System(system) => Some(Arc::clone(system)),
            Owner::Unknown | Owner::Nobody => None,
        }
    }

    /// Marks what may be another system's. Whoever sends such a checkpoint is not believed.
    fn checkpoint(&self, message: &mut Message) {
        let is_mark = |name: &str| name.eq_ignore_ascii_case(cloudevents::READ_BY);
        message.headers.retain(|(name, _)| !is_mark(name));
        let Some(ours) = self.get() else { return };
        let mut systems = message
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(cloudevents::SYSTEM));
        let names_another = systems.any(|(_, theirs)| theirs != ours.as_bytes());
        // There the attribute is in the body.
        if names_another || cloudevents::is_structured(message) {
            let checkpoint = (cloudevents::READ_BY.to_owned(), ours.as_bytes().to_vec());
            message.headers.push(checkpoint);
        }
    }
}

/// What a record is judged by as it is read.
#[derive(Clone, Debug)]
struct Judge {
    name: Name,
    signatures: Option<Signatures>,
}

impl Judge {
    fn mark(&self, message: &mut Message) {
        self.name.checkpoint(message);
        if let Some(signatures) = &self.signatures {
            signatures.mark(message);
        }
    }

    fn arrived(&self, mut arrival: Arrival) -> Arrival {
        if let Arrival::Record(message) = &mut arrival {
            self.mark(message);
        }
        arrival
    }
}

/// A log of one system. Clones share it.
#[derive(Clone, Debug)]
pub struct SystemLog {
    log: Arc<dyn Log>,
    /// The topic that the service tells its changes on.
    own: &'static str,
    name: Name,
    signatures: Option<Signatures>,
    shutdown: Shutdown,
}

impl SystemLog {
    /// This log, on which a service tells its changes on the topic `own`; it is ready when [`Self::admit`] says so.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, own: &'static str, shutdown: &Shutdown) -> Self {
        Self {
            log,
            own,
            name: Name::new(),
            signatures: None,
            shutdown: shutdown.clone(),
        }
    }

    /// The same, whose records are signed and judged by these.
    #[must_use]
    pub fn signed(mut self, signatures: Signatures) -> Self {
        self.signatures = Some(signatures);
        self
    }

    /// What records are signed and judged by, if they are.
    pub(super) fn signatures(&self) -> Option<&Signatures> {
        self.signatures.as_ref()
    }

    fn judge(&self) -> Judge {
        Judge {
            name: self.name.clone(),
            signatures: self.signatures.clone(),
        }
    }

    /// Says that the topics are this system's, or nobody's: from now on they are used.
    pub fn admit(&self, system: Option<&str>) {
        let owner = system.map_or(Owner::Nobody, |system| Owner::System(system.into()));
        self.name.0.send_replace(owner);
    }

    /// The log as whoever does not care sees it.
    pub(super) fn as_anybodys(&self) -> &Arc<dyn Log> {
        &self.log
    }
}

/// The record with the system's name if it is one of the service's own events and has none; `None` if it goes as it is.
fn named<'a>(own: &str, name: Option<&'a Arc<str>>, record: &Record<'a>) -> Option<Record<'a>> {
    let system = name.filter(|_| record.topic == own)?;
    let mut named = record.clone();
    named
        .headers
        .push((cloudevents::SYSTEM, Cow::Borrowed(system.as_bytes())));
    Some(named)
}

#[async_trait]
impl Log for SystemLog {
    async fn ready(&self) -> bool {
        if !self.log.ready().await {
            return false;
        }
        let mut name = self.name.0.subscribe();
        tokio::select! {
            biased;
            named = name.wait_for(|owner| *owner != Owner::Unknown) => named.is_ok(),
            () = self.shutdown.requested() => false,
        }
    }

    fn failure(&self) -> Option<String> {
        self.log.failure().or_else(|| {
            (*self.name.0.borrow() == Owner::Unknown).then(|| {
                "whose the topics are is being found out; what is to be published waits".to_owned()
            })
        })
    }

    fn largest_record(&self) -> usize {
        let added = if self.signatures.is_some() {
            SIGNATURE_BYTES
        } else {
            0
        };
        self.log.largest_record().saturating_sub(added)
    }

    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        let publisher = self.log.publisher()?;
        Ok(Arc::new(SystemPublisher {
            publisher: match &self.signatures {
                Some(signatures) => {
                    SigningPublisher::start(publisher, signatures.clone(), &self.shutdown)
                }
                None => publisher,
            },
            own: self.own,
            name: self.name.clone(),
        }))
    }

    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError> {
        let name = self.name.get();
        let record = match named(self.own, name.as_ref(), &record) {
            Some(named) => named,
            None => record,
        };
        let record = match &self.signatures {
            Some(signatures) => signatures.signed(record),
            None => record,
        };
        self.log.publish(record).await
    }

    async fn topic(&self, topic: &str) -> Result<TopicState, LogError> {
        self.log.topic(topic).await
    }

    async fn uncommitted_ends(&self, topic: &str) -> Result<Ends, LogError> {
        self.log.uncommitted_ends(topic).await
    }

    async fn has_members(&self, group: &str) -> Result<bool, LogError> {
        self.log.has_members(group).await
    }

    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError> {
        Ok(Box::new(SystemTail {
            tail: self.log.tail(topic, from, attention)?,
            judge: self.judge(),
        }))
    }

    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError> {
        Ok(Box::new(SystemMember {
            member: self.log.join(membership)?,
            judge: self.judge(),
        }))
    }
}

#[derive(Debug)]
struct SystemPublisher {
    publisher: Arc<dyn Publisher>,
    own: &'static str,
    name: Name,
}

impl Publisher for SystemPublisher {
    fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<BoxFuture<'static, Result<Position, PublishError>>, PublishError> {
        let name = self.name.get();
        match named(self.own, name.as_ref(), record) {
            Some(named) => self.publisher.send(&named),
            None => self.publisher.send(record),
        }
    }
}

#[derive(Debug)]
struct SystemTail {
    tail: Box<dyn Tail>,
    judge: Judge,
}

#[async_trait]
impl Tail for SystemTail {
    fn assign(&self, from: &Offsets) -> Result<(), LogError> {
        self.tail.assign(from)
    }

    async fn next(&self) -> Result<Arrival, LogError> {
        Ok(self.judge.arrived(self.tail.next().await?))
    }

    fn next_ready(&self) -> Option<Arrival> {
        Some(self.judge.arrived(self.tail.next_ready()?))
    }
}

struct SystemMember {
    member: Box<dyn Member>,
    judge: Judge,
}

#[async_trait]
impl Member for SystemMember {
    fn subscribe(&self) -> Result<(), LogError> {
        self.member.subscribe()
    }

    async fn next(&self) -> Result<Message, LogError> {
        let mut message = self.member.next().await?;
        self.judge.mark(&mut message);
        Ok(message)
    }

    fn next_ready(&self) -> Option<Message> {
        let mut message = self.member.next_ready()?;
        self.judge.mark(&mut message);
        Some(message)
    }

    fn was_reassigned(&self) -> bool {
        self.member.was_reassigned()
    }

    fn store(&self, next: &Offsets) -> Result<(), LogError> {
        self.member.store(next)
    }

    fn commit(&self) -> Result<(), LogError> {
        self.member.commit()
    }

    fn pause(&self) {
        self.member.pause();
    }

    fn resume(&self) {
        self.member.resume();
    }

    async fn leave(self: Box<Self>, limit: std::time::Duration) -> bool {
        self.member.leave(limit).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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

    #[test]
    fn the_services_own_events_alone_are_named() {
        let system: Arc<str> = "ours".into();
        let record = |topic| Record::new(topic, "1", Some(b"{}".as_slice()));
        let event = record("own");
        let named_event = named("own", Some(&system), &event).unwrap();
        assert_eq!(
            named_event.headers,
            [("ce_tandemsystem", Cow::Borrowed(b"ours".as_slice()))]
        );
        assert_eq!(named("own", Some(&system), &record("keys")), None);
        assert_eq!(named("own", None, &event), None);
    }
}
