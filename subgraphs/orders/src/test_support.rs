#![allow(clippy::unwrap_used)]
//! What tests of the service share: its stores in a temporary directory, a log in memory, a count of reads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tandem_kit::{
    commands::CommandHandler,
    data_keys::{FixedKeys, Opener},
    event::CloudEvent,
    kafka::{
        message::{Message, Position},
        tail::Offsets,
    },
    sealing::Sealer,
    shutdown::Shutdown,
    store::{AggregateStore, Settled, StoreError, Term, contract::Counting},
};
use tokio::sync::watch;

use crate::{
    audit::AuditProjection,
    commands::{OrderCommands, Origin, PlaceOrder},
    domain::{AddressType, Order, OrderChangeEvent, OrderItem, Product},
    graphql::Backing,
    live::{
        Live,
        log::{Attention, Log, LogAway, LogReader},
    },
    replica::{Replaces, Replica, ReplicaCustomer, ReplicaStore, contract},
    stores::Stores,
};

/// How long a test waits for what must happen.
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
    /// Whether it is away from now on: it answers nothing new, and can be appended to by others.
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

    /// How the newest reader reads.
    pub(crate) fn attention(&self) -> watch::Receiver<Attention> {
        self.attention.subscribe()
    }

    /// Appends an event; returns where.
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

/// Counts the reads of a replica store.
pub(crate) struct CountingReplica {
    inner: Arc<dyn ReplicaStore>,
    pub(crate) gets: AtomicUsize,
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

    async fn show(&self, customers: &[ReplicaCustomer]) -> Result<Option<Term>, StoreError> {
        self.inner.show(customers).await
    }

    async fn keep(&self, term: &Term) -> Result<bool, StoreError> {
        self.inner.keep(term).await
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        self.inner.settled(after, limit).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        self.inner.remove(seen).await
    }

    async fn set_back(&self, customers: &[(Settled, ReplicaCustomer)]) -> Result<u64, StoreError> {
        self.inner.set_back(customers).await
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
        self.inner.page(after, limit).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

pub(crate) fn sealer() -> Sealer {
    Sealer::new(&[7; 32])
}

/// Opens with no key at all: whoever is sealed counts as erased.
pub(crate) fn opener() -> Opener {
    Opener::new(Arc::new(FixedKeys::default()), sealer())
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

    /// A world whose order log holds something already.
    pub(crate) async fn on(order_log: MemoryLog) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let stores = Stores::embedded(folder.path(), &sealer()).await.unwrap();
        let orders = Arc::new(Counting::new(Arc::clone(&stores.own.aggregates)));
        let customers = Arc::new(CountingReplica {
            inner: Arc::clone(&stores.replica),
            gets: AtomicUsize::new(0),
        });
        let replica = Replica::new(Arc::clone(&customers) as Arc<dyn ReplicaStore>);
        let customer_log = MemoryLog::new(3);
        let live = Live::on(
            Arc::new(order_log.clone()),
            Arc::new(customer_log.clone()),
            Arc::clone(&stores.own.changes),
            replica.clone(),
            opener(),
            &shutdown,
        );
        let store = Arc::clone(&orders) as Arc<dyn AggregateStore<Order>>;
        let commands =
            OrderCommands::new(CommandHandler::new(store, None), replica.clone(), sealer());
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

    pub(crate) fn audit(&self) -> AuditProjection {
        AuditProjection::new(Arc::clone(&self.stores.own.changes))
    }

    /// Makes a customer known.
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
        .into_cloud_event(None)
        .unwrap()
}
