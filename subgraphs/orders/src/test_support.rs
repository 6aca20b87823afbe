#![allow(clippy::unwrap_used)]
//! The shared parts of the tests: the stores in a temporary directory, a log in memory, counted reads.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tandem_event_path::log::Offsets;
use tandem_event_path::{
    commands::{CommandHandler, Gate},
    data_keys::{DataKeys, FixedKeys, Known, Opener},
    projection::Projection as _,
    sealing::Sealer,
    store::{AggregateStore, PublishedRow, ReadBarrier, StoreError, WriteEpoch},
};
use tandem_model::{
    event::CloudEvent,
    message::{Message, Position},
};
use tandem_runtime::shutdown::Shutdown;
use tandem_store_contract::Counting;
use tokio::sync::watch;

use crate::{
    audit::AuditProjection,
    commands::{OrderCommands, Origin, PlaceOrder},
    domain::{AddressType, Order, OrderChangeEvent, OrderItem, Product},
    erasure::Forgetting,
    graphql::Backing,
    live::{
        Live, Sources,
        log::{Attention, Log, LogAway, LogReader},
    },
    replica::{Replaces, Replica, ReplicaCustomer, ReplicaStore, contract, progress::Progress},
    stores::Stores,
};

/// How long a test waits for something that must happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A log in memory.
#[derive(Clone)]
pub(crate) struct MemoryLog {
    partitions: Arc<Mutex<BTreeMap<i32, Vec<Message>>>>,
    length: Arc<watch::Sender<usize>>,
    is_away: Arc<AtomicBool>,
    attention: watch::Sender<Attention>,
}

impl MemoryLog {
    /// Sets whether the log is away. A log that is away gives nothing new to readers, but others can append to it.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    pub(crate) fn new(partitions: i32) -> Self {
        let partitions = (0..partitions).map(|id| (id, Vec::new())).collect();
        Self {
            partitions: Arc::new(Mutex::new(partitions)),
            length: Arc::default(),
            is_away: Arc::default(),
            attention: watch::channel(Attention::Prompt).0,
        }
    }

    /// The attention of the newest reader.
    pub(crate) fn attention(&self) -> watch::Receiver<Attention> {
        self.attention.subscribe()
    }

    /// Appends an event and returns its position.
    pub(crate) fn append(&self, partition: i32, event: &CloudEvent) -> Position {
        let text = |text: &str| text.as_bytes().to_vec();
        let headers = [
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", event.id.to_string()),
            ("ce_source", event.source.clone()),
            ("ce_type", event.kind.clone()),
            ("ce_subject", event.subject.clone()),
            ("ce_time", event.time.to_rfc3339()),
            ("ce_dataschema", event.data_schema.clone()),
        ];
        let position = {
            let mut partitions = self.partitions.lock().unwrap();
            let messages = partitions.get_mut(&partition).unwrap();
            let position = Position {
                partition,
                offset: messages.len() as i64,
            };
            messages.push(Message {
                topic: "memory".into(),
                position,
                key: Some(event.subject.clone()),
                headers: headers
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), text(&value)))
                    .collect(),
                payload: Some(text(&event.data)),
                published_ms: Some(event.time.timestamp_millis()),
            });
            position
        };
        self.length.send_modify(|length| *length += 1);
        position
    }

    /// All messages, partition by partition.
    pub(crate) fn messages(&self) -> Vec<Message> {
        let partitions = self.partitions.lock().unwrap();
        partitions.values().flatten().cloned().collect()
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, LogAway> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(LogAway("as the test wants".into()));
        }
        let partitions = self.partitions.lock().unwrap();
        Ok(partitions
            .iter()
            .map(|(id, messages)| (*id, (0, messages.len() as i64)))
            .collect())
    }

    async fn open(
        &self,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn LogReader>, LogAway> {
        self.attention.send_replace(attention);
        Ok(Box::new(MemoryReader {
            log: self.clone(),
            next: from.clone(),
            length: self.length.subscribe(),
        }))
    }
}

struct MemoryReader {
    log: MemoryLog,
    next: Offsets,
    length: watch::Receiver<usize>,
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self) -> Result<Message, LogAway> {
        loop {
            self.length.borrow_and_update();
            {
                let partitions = self.log.partitions.lock().unwrap();
                for (partition, offset) in &mut self.next {
                    let index = usize::try_from(*offset).unwrap();
                    if let Some(message) = partitions[partition].get(index) {
                        *offset += 1;
                        return Ok(message.clone());
                    }
                }
            }
            self.length.changed().await.unwrap();
        }
    }
}

/// Counts the reads of a replica store, and can make it go away after some of them.
pub(crate) struct CountingReplica {
    inner: Arc<dyn ReplicaStore>,
    pub(crate) gets: AtomicUsize,
    pub(crate) pages: AtomicUsize,
    /// The number of pages after which the store is away.
    pub(crate) away_after: AtomicUsize,
}

#[async_trait]
impl ReplicaStore for CountingReplica {
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        self.inner.upsert(customers, replaces).await
    }

    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError> {
        self.inner.apply_early(customers).await
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        self.inner.confirm_durable(epoch).await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        self.inner.published(after, limit).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        self.inner.remove(seen).await
    }

    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError> {
        self.inner.revert(customers).await
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.get_many(ids).await
    }

    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let before = self.pages.fetch_add(1, Ordering::SeqCst);
        if before >= self.away_after.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("as the test wants".to_owned()));
        }
        self.inner.page(after, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(&[7; 32])
}

/// An opener without any keys.
pub(crate) fn opener() -> Opener {
    Opener::new(Arc::new(FixedKeys::default()), sealer())
}

/// An opener without any keys, which knows that this customer has been erased.
pub(crate) fn opener_that_erased(id: &str) -> Opener {
    let known = Known {
        erased: [id.to_owned()].into(),
        ..Known::default()
    };
    Opener::new(Arc::new(FixedKeys(known)), sealer())
}

/// Keys of customers that arrive one by one.
#[derive(Clone, Default)]
pub(crate) struct LateKeys(Arc<Mutex<Known>>);

impl LateKeys {
    pub(crate) fn opener(&self) -> Opener {
        Opener::new(Arc::new(self.clone()), sealer())
    }

    /// Makes the key of this customer arrive.
    pub(crate) fn come(&self, id: &str, wrapped: &str) {
        let mut known = self.0.lock().unwrap();
        known.wrapped.insert(id.to_owned(), wrapped.to_owned());
    }

    fn now(&self) -> FixedKeys {
        FixedKeys(self.0.lock().unwrap().clone())
    }
}

#[async_trait]
impl DataKeys for LateKeys {
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.now().of_sealed(subjects).await
    }

    async fn of_plain(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.now().of_plain(subjects).await
    }

    fn shows_any(&self, subjects: &HashSet<String>) -> bool {
        self.now().shows_any(subjects)
    }
}

/// The service without Kafka and HTTP: its stores in a temporary directory, its logs in memory.
pub(crate) struct World {
    _folder: tempfile::TempDir,
    pub(crate) shutdown: Shutdown,
    pub(crate) stores: Stores,
    pub(crate) orders: Arc<Counting<Order>>,
    pub(crate) customers: Arc<CountingReplica>,
    pub(crate) backing: Backing,
    pub(crate) order_log: MemoryLog,
    pub(crate) customer_log: MemoryLog,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request("the test is over");
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(MemoryLog::new(3)).await
    }

    /// A world whose log of orders has messages already.
    pub(crate) async fn on(order_log: MemoryLog) -> Self {
        Self::with(order_log, opener()).await
    }

    /// The same with another opener.
    pub(crate) async fn with(order_log: MemoryLog, opener: Opener) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let stores = Stores::embedded(folder.path(), &sealer()).await.unwrap();
        let orders = Arc::new(Counting::new(Arc::clone(&stores.own.aggregates)));
        let customers = Arc::new(CountingReplica {
            inner: Arc::clone(&stores.replica),
            gets: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
            away_after: AtomicUsize::new(usize::MAX),
        });
        let replica = Replica::new(Arc::clone(&customers) as Arc<dyn ReplicaStore>);
        let customer_log = MemoryLog::new(3);
        let live = Live::on(
            Arc::new(order_log.clone()),
            Arc::new(customer_log.clone()),
            Sources {
                orders: Arc::clone(&stores.own.aggregates),
                changes: Arc::clone(&stores.own.changes),
                barrier: ReadBarrier::new(Arc::clone(&stores.own.registry), shutdown.clock()),
                replica: replica.clone(),
                progress: Progress::new(
                    Arc::clone(&stores.own.registry),
                    Arc::clone(&stores.own.dead_letters),
                    shutdown.clock(),
                ),
                opener,
            },
            &shutdown,
        );
        let store = Arc::clone(&orders) as Arc<dyn AggregateStore<Order>>;
        let commands = OrderCommands::new(
            CommandHandler::new(store, None, &shutdown),
            replica.clone(),
            sealer(),
            &shutdown,
        );
        let backing = Backing {
            commands,
            replica,
            changes: Arc::clone(&stores.own.changes),
            live,
        };
        Self {
            _folder: folder,
            shutdown,
            stores,
            orders,
            customers,
            backing,
            order_log,
            customer_log,
        }
    }

    /// Puts commands and reads behind a gate, as while the stores are filled from the log.
    pub(crate) fn stand_behind(&mut self, gate: Gate) {
        let store = Arc::clone(&self.orders) as Arc<dyn AggregateStore<Order>>;
        self.backing.commands = OrderCommands::new(
            CommandHandler::new(store, None, &self.shutdown).behind(gate),
            self.backing.replica.clone(),
            sealer(),
            &self.shutdown,
        );
    }

    pub(crate) fn audit(&self) -> AuditProjection {
        AuditProjection::new(
            Arc::clone(&self.stores.own.changes),
            self.backing.replica.clone(),
            Forgetting::new(Arc::clone(&self.stores.own.aggregates)),
        )
    }

    /// Lets the audit projection process everything in the log.
    pub(crate) async fn audit_everything(&self) {
        let audit = self.audit();
        let items = self
            .order_log
            .messages()
            .iter()
            .map(|message| (message.position, audit.decode(message).unwrap()))
            .collect();
        audit.apply(items).await.unwrap();
    }

    /// Adds a customer to the replica.
    pub(crate) async fn customer(&self, id: &str) {
        let customer = contract::customer(id, 1);
        self.backing.replica.take(vec![customer]).await.unwrap();
    }

    /// Places an order.
    pub(crate) async fn place(&self, customer_id: &str, price: &str) -> Order {
        let request = PlaceOrder {
            customer_id: customer_id.to_owned(),
            items: vec![item(price, 1)],
            ship_to: AddressType::Shipping,
            idempotency_key: None,
        };
        let origin = Origin {
            changed_by: "test".into(),
            traceparent: None,
        };
        self.backing.commands.place(request, &origin).await.unwrap()
    }
}

pub(crate) fn item(price: &str, quantity: i32) -> OrderItem {
    OrderItem {
        product: Product {
            guid: "p-1".into(),
            title: "Hammer".into(),
            description: None,
            price: price.parse().unwrap(),
        },
        quantity,
    }
}

/// The event of an order's newest change.
pub(crate) fn event(order: &Order) -> CloudEvent {
    OrderChangeEvent::of(order, "test")
        .into_cloud_event(uuid::Uuid::now_v7(), None)
        .unwrap()
}
