//! Publishing. The records of one partition arrive in the order in which they were sent. Whether a record has arrived
//! is not always known.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use tandem_event_path::log::{PublishError, Publisher, Record};
use tandem_model::message::{Message, Position};
use tokio::sync::oneshot;

use super::{Cluster, LARGEST_RECORD, nanoseconds};
use crate::{chance::draw, process::Process};

/// The delivery timeout of a record.
const DELIVERY: Duration = Duration::from_secs(20);

type Outcome = Result<Position, PublishError>;

struct Sent {
    record: Message,
    acknowledged: oneshot::Sender<Outcome>,
    given_up_at: u64,
}

/// The records on their way to one topic. Its partitions do not differ in delivery.
#[derive(Default)]
struct Queue {
    sent: VecDeque<Sent>,
    is_pumped: bool,
}

/// The publisher of one process.
#[derive(Debug)]
pub(super) struct SimPublisher {
    cluster: Cluster,
    process: Process,
    queues: Arc<Mutex<BTreeMap<String, Queue>>>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} records", self.sent.len())
    }
}

fn away() -> PublishError {
    PublishError::Unavailable("not acknowledged in time".to_owned())
}

impl SimPublisher {
    pub(super) fn new(cluster: &Cluster, process: &Process) -> Self {
        Self {
            cluster: cluster.clone(),
            process: process.clone(),
            queues: Arc::default(),
        }
    }
}

impl Publisher for SimPublisher {
    fn send(&self, record: &Record<'_>) -> Result<BoxFuture<'static, Outcome>, PublishError> {
        let headers = record.headers.iter();
        let bytes = record.payload.map_or(0, <[u8]>::len) + record.key.len();
        if bytes > LARGEST_RECORD {
            return Err(PublishError::Refused(format!("{bytes} bytes are too many")));
        }
        let message = Message {
            topic: record.topic.to_owned(),
            position: Position {
                partition: 0,
                offset: 0,
            },
            key: Some(record.key.to_owned()),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            payload: record.payload.map(<[u8]>::to_vec),
            published_ms: None,
        };
        let (acknowledged, outcome) = oneshot::channel();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(record.topic.to_owned()).or_default();
        queue.sent.push_back(Sent {
            record: message,
            acknowledged,
            given_up_at: self.cluster.world().elapsed() + nanoseconds(DELIVERY),
        });
        let is_idle = !std::mem::replace(&mut queue.is_pumped, true);
        drop(queues);
        if is_idle {
            let pump = Pump {
                cluster: self.cluster.clone(),
                process: self.process.clone(),
                queues: Arc::clone(&self.queues),
                topic: record.topic.to_owned(),
            };
            pump.later(1, 5);
        }
        Ok(Box::pin(async move {
            outcome.await.unwrap_or_else(|_| Err(away()))
        }))
    }
}

/// Delivers the queued records of one topic.
struct Pump {
    cluster: Cluster,
    process: Process,
    queues: Arc<Mutex<BTreeMap<String, Queue>>>,
    topic: String,
}

impl Pump {
    fn later(self, first: u64, last: u64) {
        let delay = draw(|chance| chance.between(first, last));
        let world = self.cluster.world().clone();
        world.later(Duration::from_millis(delay), move || self.pump());
    }

    fn pump(self) {
        // When a process is killed, the records that it was sending may have left it or not.
        if self.process.is_dead() && draw(|chance| chance.happens(500)) {
            return;
        }
        let now = self.cluster.world().elapsed();
        let mut waiting = VecDeque::new();
        let queues = Arc::clone(&self.queues);
        let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queues.get_mut(&self.topic) else {
            return;
        };
        for sent in std::mem::take(&mut queue.sent) {
            if sent.given_up_at <= now {
                let _ = sent.acknowledged.send(Err(away()));
            } else if self.is_led(&sent.record, now) {
                self.deliver(sent);
            } else {
                waiting.push_back(sent);
            }
        }
        queue.is_pumped = !waiting.is_empty();
        queue.sent = waiting;
        let goes_on = queue.is_pumped;
        drop(queues);
        if goes_on {
            self.later(50, 300);
        }
    }

    fn is_led(&self, record: &Message, now: u64) -> bool {
        let key = record.key.as_deref().unwrap_or_default();
        let mut is_led = false;
        let state = self.cluster.state();
        if let Some(topic) = state.topics.get(&self.topic) {
            let partition = topic.partitions.get(topic.partition_of(key));
            is_led = partition.is_some_and(|partition| partition.away_until <= now);
        }
        is_led
    }

    fn deliver(&self, sent: Sent) {
        let odds = self.cluster.odds();
        let world = self.cluster.world().clone();
        let (cluster, topic) = (self.cluster.clone(), self.topic.clone());
        let patience = |last: u64| Duration::from_millis(draw(|chance| chance.between(1, last)));
        let answer = |delay: Duration, outcome: Outcome| {
            world.later(delay, move || {
                let _ = sent.acknowledged.send(outcome);
            });
        };
        let dice = draw(|chance| chance.below(1_000));
        let (lost, late) = (odds.lost_record, odds.lost_record + odds.late_record);
        if dice < lost {
            return answer(patience(3_000), Err(away()));
        }
        if dice < late {
            let record = sent.record;
            world.note(|| format!("log {topic} {:?} is late", record.key));
            let arrival = patience(3_000) + patience(8_000);
            world.later(arrival, move || {
                cluster.append(&topic, record);
            });
            return answer(patience(3_000), Err(away()));
        }
        if draw(|chance| chance.happens(odds.duplicate)) {
            cluster.append(&topic, sent.record.clone());
        }
        let position = cluster.append(&topic, sent.record);
        if draw(|chance| chance.happens(odds.lost_acknowledgement)) {
            world.note(|| format!("log {topic} {position:?} is not acknowledged"));
            return answer(patience(3_000), Err(away()));
        }
        match position {
            Some(position) => answer(patience(4), Ok(position)),
            None => answer(patience(3_000), Err(away())),
        }
    }
}
