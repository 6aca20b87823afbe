//! A fetch that finds nothing waits for the next record and is then answered at once.
//!
//! The library's own fetch sleeps for (half of) the client's waiting time, even when it has records to give, so a
//! record would be seen hundreds of milliseconds late, or the client would have to ask without a pause.
//!
//! This process is the only writer of the log, so it knows where each partition ends ([`Ends`]). A partition that a
//! client has read to its end is not looked up in the storage until a record arrives there: a waiting client costs
//! nothing, and a record that arrives costs one look into its own partition.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rama::{Context, Layer, Service};
use tansu_sans_io::{
    FetchRequest, FetchResponse, ProduceRequest,
    fetch_request::{FetchPartition, FetchTopic},
    fetch_response::{FetchableTopicResponse, PartitionData},
};
use tansu_storage::{Storage, TopicId};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

/// No client waits longer than this for one answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What the routes tell each other: the produce route where records arrived, the fetch route where the ends are.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    /// The number of the latest arrival.
    latest: watch::Sender<u64>,
    ends: Arc<Mutex<Ends>>,
}

/// What is known of the log in memory. It has as many entries as the log has partitions.
#[derive(Debug, Default)]
struct Ends {
    /// The names of the topics that clients ask for by id.
    names: HashMap<[u8; 16], String>,
    topics: HashMap<String, HashMap<i32, Partition>>,
}

#[derive(Debug, Default)]
struct Partition {
    /// The number of the latest arrival in this partition.
    arrival: u64,
    /// The answer of an empty look, with the number of the latest arrival anywhere before that look.
    empty: Option<(u64, PartitionData)>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new(0),
            ends: Arc::default(),
        }
    }
}

impl Arrivals {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells waiting fetches that records were stored, or may have been.
    fn announce(&self, partitions: &[(String, Vec<i32>)]) {
        self.latest.send_modify(|latest| {
            *latest += 1;
            let mut ends = self.ends();
            for (topic, indexes) in partitions {
                let known = ends.topics.entry(topic.clone()).or_default();
                for index in indexes {
                    known.entry(*index).or_default().arrival = *latest;
                }
            }
        });
    }

    /// The answer for a partition that is known to hold nothing from the wanted offset on.
    fn known_empty(&self, topic: &str, wanted: &FetchPartition) -> Option<PartitionData> {
        let ends = self.ends();
        let partition = ends.topics.get(topic)?.get(&wanted.partition)?;
        let (looked, answer) = partition.empty.as_ref()?;
        (*looked >= partition.arrival && answer.high_watermark == wanted.fetch_offset)
            .then(|| answer.clone())
    }

    /// Keeps the answers of those partitions that hold nothing from the asked offset on.
    fn learn(&self, looked: u64, topic: &str, asked: &[FetchPartition], answers: &[PartitionData]) {
        let mut ends = self.ends();
        let known = ends.topics.entry(topic.to_owned()).or_default();
        for answer in answers {
            let at_end = asked.iter().any(|partition| {
                partition.partition == answer.partition_index
                    && partition.fetch_offset == answer.high_watermark
            });
            if at_end && answer.error_code == 0 && answer.records.is_none() {
                known.entry(answer.partition_index).or_default().empty =
                    Some((looked, answer.clone()));
            }
        }
    }
}

/// Makes a [`LongPoll`].
#[derive(Clone, Debug)]
pub(super) struct LongPollLayer {
    arrivals: Arrivals,
}

impl LongPollLayer {
    pub(super) fn new(arrivals: Arrivals) -> Self {
        Self { arrivals }
    }
}

impl<S> Layer<S> for LongPollLayer {
    type Service = LongPoll<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LongPoll {
            inner,
            arrivals: self.arrivals.clone(),
        }
    }
}

/// Waits, up to the client's limit, until the inner fetch has records.
#[derive(Clone, Debug)]
pub(super) struct LongPoll<S> {
    inner: S,
    arrivals: Arrivals,
}

impl<State, S> Service<State, FetchRequest> for LongPoll<S>
where
    State: Storage,
    S: Service<State, FetchRequest, Response = FetchResponse>,
    S::Error: From<tansu_storage::Error>,
{
    type Response = FetchResponse;
    type Error = S::Error;

    async fn serve(
        &self,
        context: Context<State>,
        request: FetchRequest,
    ) -> Result<FetchResponse, S::Error> {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default())
            .min(LONGEST_WAIT);
        let deadline = Instant::now() + wait;
        let wanted = usize::try_from(request.min_bytes).unwrap_or_default();
        let request = request.max_wait_ms(0);
        let mut arrivals = self.arrivals.latest.subscribe();
        loop {
            // Read before the look, so that a record that comes in between is not missed.
            let looked = *arrivals.borrow_and_update();
            let response = self.look(&context, &request, looked).await?;
            if failed(&response) || bytes(&response) >= wanted {
                return Ok(response);
            }
            // An arrival in a partition that was not asked for costs a look at what is in memory, no more.
            tokio::select! {
                changed = arrivals.changed() => if changed.is_err() { return Ok(response) },
                () = tokio::time::sleep_until(deadline) => return Ok(response),
            }
        }
    }
}

impl<S> LongPoll<S> {
    /// One look at all partitions that the request names: into the storage only where there may be something.
    async fn look<State>(
        &self,
        context: &Context<State>,
        request: &FetchRequest,
        looked: u64,
    ) -> Result<FetchResponse, S::Error>
    where
        State: Storage,
        S: Service<State, FetchRequest, Response = FetchResponse>,
        S::Error: From<tansu_storage::Error>,
    {
        let mut topics = Vec::new();
        let mut unknown = Vec::new();
        for topic in request.topics.iter().flatten() {
            let name = self.name(context.state(), topic).await?;
            let mut answers = Vec::new();
            let mut asked = Vec::new();
            for partition in topic.partitions.iter().flatten() {
                match name
                    .as_deref()
                    .and_then(|name| self.arrivals.known_empty(name, partition))
                {
                    Some(answer) => answers.push(answer),
                    None => asked.push(partition.clone()),
                }
            }
            if !asked.is_empty() {
                unknown.push((topics.len(), name, asked.clone()));
            }
            topics.push((
                topic.clone().partitions(Some(asked)),
                FetchableTopicResponse::default()
                    .topic(topic.topic.clone())
                    .topic_id(topic.topic_id)
                    .partitions(Some(answers)),
            ));
        }

        let mut response = if unknown.is_empty() {
            FetchResponse::default()
                .throttle_time_ms(Some(0))
                .error_code(Some(0))
                .session_id(Some(0))
                .node_endpoints(Some(Vec::new()))
        } else {
            let asked = unknown
                .iter()
                .filter_map(|(place, _, _)| topics.get(*place).map(|(asked, _)| asked.clone()))
                .collect();
            // Never cancelled: the storage must be able to hand over its answer.
            self.inner
                .serve(context.clone(), request.clone().topics(Some(asked)))
                .await?
        };
        // The answers come in the order of the questions.
        let found = response.responses.take().unwrap_or_default();
        for ((place, name, asked), found) in unknown.into_iter().zip(found) {
            let partitions = found.partitions.unwrap_or_default();
            if let Some(name) = name {
                self.arrivals.learn(looked, &name, &asked, &partitions);
            }
            if let Some((_, answer)) = topics.get_mut(place) {
                answer.topic_id = found.topic_id.or(answer.topic_id);
                answer.partitions.get_or_insert_default().extend(partitions);
            }
        }
        Ok(response.responses(Some(topics.into_iter().map(|(_, answer)| answer).collect())))
    }

    /// The topic's name. Newer clients give its id, of which the storage knows the name.
    async fn name<State>(
        &self,
        storage: &State,
        topic: &FetchTopic,
    ) -> Result<Option<String>, tansu_storage::Error>
    where
        State: Storage,
    {
        if let Some(name) = topic.topic.as_ref().filter(|name| !name.is_empty()) {
            return Ok(Some(name.clone()));
        }
        let Some(id) = topic.topic_id else {
            return Ok(None);
        };
        if let Some(name) = self.arrivals.ends().names.get(&id) {
            return Ok(Some(name.clone()));
        }
        let metadata = storage
            .metadata(Some(&[TopicId::Id(Uuid::from_bytes(id))]))
            .await?;
        let name = metadata
            .topics()
            .first()
            .and_then(|topic| topic.name.clone());
        if let Some(name) = &name {
            self.arrivals.ends().names.insert(id, name.clone());
        }
        Ok(name)
    }
}

fn failed(response: &FetchResponse) -> bool {
    response.error_code.is_some_and(|code| code != 0)
        || partitions(response).any(|partition| partition.error_code != 0)
}

fn bytes(response: &FetchResponse) -> usize {
    partitions(response)
        .filter_map(|partition| partition.records.as_ref())
        .flat_map(|frame| &frame.batches)
        .map(|batch| batch.record_data.len())
        .sum()
}

fn partitions(response: &FetchResponse) -> impl Iterator<Item = &PartitionData> {
    response
        .responses
        .iter()
        .flatten()
        .flat_map(|topic| topic.partitions.iter().flatten())
}

/// Makes an [`Announce`].
#[derive(Clone, Debug)]
pub(super) struct AnnounceLayer {
    arrivals: Arrivals,
}

impl AnnounceLayer {
    pub(super) fn new(arrivals: Arrivals) -> Self {
        Self { arrivals }
    }
}

impl<S> Layer<S> for AnnounceLayer {
    type Service = Announce<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Announce {
            inner,
            arrivals: self.arrivals.clone(),
        }
    }
}

/// Tells waiting fetches that records were stored.
#[derive(Clone, Debug)]
pub(super) struct Announce<S> {
    inner: S,
    arrivals: Arrivals,
}

impl<State, S> Service<State, ProduceRequest> for Announce<S>
where
    S: Service<State, ProduceRequest>,
    State: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;

    async fn serve(
        &self,
        context: Context<State>,
        request: ProduceRequest,
    ) -> Result<S::Response, S::Error> {
        let partitions: Vec<(String, Vec<i32>)> = request
            .topic_data
            .iter()
            .flatten()
            .map(|topic| {
                let indexes = topic
                    .partition_data
                    .iter()
                    .flatten()
                    .map(|partition| partition.index);
                (topic.name.clone(), indexes.collect())
            })
            .collect();
        let response = self.inner.serve(context, request).await;
        // Also after an error: some partitions may have been stored before it.
        self.arrivals.announce(&partitions);
        response
    }
}
