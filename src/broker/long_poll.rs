//! A fetch that finds nothing waits for the next record and is then answered at once.
//!
//! The library's own fetch sleeps for (half of) the client's waiting time, even when it has records to give, so a
//! record would be seen hundreds of milliseconds late, or the client would have to ask without a pause.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rama::{Context, Layer, Service};
use tansu_sans_io::{FetchRequest, FetchResponse, ProduceRequest};
use tokio::{sync::watch, time::Instant};

/// No client waits longer than this for one answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Which topics got records, and when: the produce route tells it, the fetch route waits on it.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    latest: watch::Sender<u64>,
    by_topic: Arc<Mutex<HashMap<String, u64>>>,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            latest: watch::Sender::new(0),
            by_topic: Arc::default(),
        }
    }
}

impl Arrivals {
    fn announce<'a>(&self, topics: impl Iterator<Item = &'a str>) {
        self.latest.send_modify(|latest| {
            *latest += 1;
            let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
            for topic in topics {
                if let Some(arrival) = by_topic.get_mut(topic) {
                    *arrival = *latest;
                } else {
                    by_topic.insert(topic.to_owned(), *latest);
                }
            }
        });
    }

    /// Whether one of the topics got a record after `since`. Any record counts when the topics are not known by name.
    fn arrived(&self, topics: Option<&[String]>, since: u64) -> bool {
        let by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        topics.is_none_or(|topics| {
            topics
                .iter()
                .any(|topic| by_topic.get(topic).is_some_and(|arrival| *arrival > since))
        })
    }

    /// Waits until [`Self::arrived`].
    async fn next(&self, seen: &mut watch::Receiver<u64>, topics: Option<&[String]>) {
        loop {
            let since = *seen.borrow();
            // The sender lives as long as `self`, so this cannot fail.
            if seen.changed().await.is_err() || self.arrived(topics, since) {
                return;
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
    S: Service<State, FetchRequest, Response = FetchResponse>,
    State: Clone + Send + Sync + 'static,
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
        let topics = names(&request);
        let request = request.max_wait_ms(0);
        let mut seen = self.arrivals.latest.subscribe();
        loop {
            // Marked before the look, so that a record that comes in between is not missed.
            seen.mark_unchanged();
            // Never cancelled: the storage must be able to hand over its answer.
            let response = self.inner.serve(context.clone(), request.clone()).await?;
            if failed(&response) || bytes(&response) >= wanted {
                return Ok(response);
            }
            tokio::select! {
                () = self.arrivals.next(&mut seen, topics.as_deref()) => {}
                () = tokio::time::sleep_until(deadline) => return Ok(response),
            }
        }
    }
}

/// The names of the topics, or nothing when the client gave ids in their place.
fn names(request: &FetchRequest) -> Option<Vec<String>> {
    request
        .topics
        .as_deref()
        .unwrap_or_default()
        .iter()
        .map(|topic| topic.topic.clone().filter(|name| !name.is_empty()))
        .collect()
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

fn partitions(
    response: &FetchResponse,
) -> impl Iterator<Item = &tansu_sans_io::fetch_response::PartitionData> {
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
        let topics: Vec<String> = request
            .topic_data
            .iter()
            .flatten()
            .map(|topic| topic.name.clone())
            .collect();
        let response = self.inner.serve(context, request).await;
        // Also after an error: some partitions may have been stored before it.
        self.arrivals.announce(topics.iter().map(String::as_str));
        response
    }
}
