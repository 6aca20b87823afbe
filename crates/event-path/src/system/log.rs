//! The log as one system uses it. It is used only once its topics are known to belong to this system. Every event that
//! is published gets the system's identity, and every record the service's signature. A record of another system, or of
//! an unauthorized writer, is marked for its readers.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tandem_model::{
    cloudevents,
    message::{Message, Position},
};
use tandem_runtime::shutdown::Shutdown;

use super::{
    judge::{Judge, Name, Owner},
    publisher::SigningPublisher,
};
use crate::{
    log::{
        Arrival, Attention, Ends, Log, LogError, Member, Membership, Offsets, PublishError,
        Publisher, Record, Tail, TopicState,
    },
    signing::{SIGNATURE_BYTES, Signatures},
};

/// A log of one system. Clones share it.
#[derive(Clone, Debug)]
pub struct SystemLog {
    log: Arc<dyn Log>,
    /// The topic of the service's own events.
    own: &'static str,
    name: Name,
    signatures: Option<Signatures>,
    shutdown: Shutdown,
}

impl SystemLog {
    /// Wraps a log for a service that publishes its events to the topic `own`. It is ready after [`Self::admit`] was
    /// called.
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

    /// The same log, with these signatures for signing and verifying records.
    #[must_use]
    pub fn signed(mut self, signatures: Signatures) -> Self {
        self.signatures = Some(signatures);
        self
    }

    /// The signatures for signing and verifying records, if records are signed.
    pub(super) fn signatures(&self) -> Option<&Signatures> {
        self.signatures.as_ref()
    }

    fn judge(&self) -> Judge {
        Judge::new(
            self.name.clone(),
            self.signatures.clone(),
            self.shutdown.clock(),
        )
    }

    /// Declares that the topics belong to this system, or to none. From now on they are used.
    pub fn admit(&self, system: Option<&str>) {
        let owner = system.map_or(Owner::Nobody, |system| Owner::System(system.into()));
        self.name.0.send_replace(owner);
    }

    /// The underlying log, which ignores who signed its records.
    pub(super) fn as_anybodys(&self) -> &Arc<dyn Log> {
        &self.log
    }
}

/// The record with the system's identity added, if it is one of the service's own events; `None` if it is sent
/// unchanged.
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

    fn unreadable(&self) -> Vec<String> {
        self.log.unreadable()
    }

    fn system(&self) -> Option<Arc<str>> {
        self.name.get()
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
        self.judge.forget();
        self.tail.assign(from)
    }

    async fn next(&self) -> Result<Arrival, LogError> {
        loop {
            if let Some(message) = self.judge.looked().await {
                return Ok(Arrival::Record(message));
            }
            match self.tail.next().await? {
                Arrival::Record(message) => {
                    if let Some(message) = self.judge.judged(message) {
                        return Ok(Arrival::Record(message));
                    }
                }
                end @ Arrival::End(_) => return Ok(end),
            }
        }
    }

    fn next_ready(&self) -> Option<Arrival> {
        if self.judge.waits() {
            return None;
        }
        match self.tail.next_ready()? {
            Arrival::Record(message) => self.judge.judged(message).map(Arrival::Record),
            end @ Arrival::End(_) => Some(end),
        }
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
        loop {
            if let Some(message) = self.judge.looked().await {
                return Ok(message);
            }
            let message = self.member.next().await?;
            if let Some(message) = self.judge.judged(message) {
                return Ok(message);
            }
        }
    }

    fn next_ready(&self) -> Option<Message> {
        if self.judge.waits() {
            return None;
        }
        self.judge.judged(self.member.next_ready()?)
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
