//! Writes customers with their orders page by page: memory is bounded however many there are.

use std::io;

use bytes::Bytes;
use tandem_kit::store::{Filter, PageRequest, StoreError};
use tokio::sync::mpsc;

use super::{Rest, document};
use crate::{domain::Order, replica::ReplicaCustomer};

/// Customers read at once.
const CUSTOMERS: usize = 100;
/// Orders of one customer read at once.
const ORDERS: usize = 50;
/// Bytes gathered before they are sent.
const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for a slow client.
const QUEUE: usize = 2;

type Chunk = Result<Bytes, io::Error>;

/// The first page of what will be sent: it is read before the answer begins, so that a store that is away is a 503.
pub(super) struct Listing {
    rest: Rest,
    page: Vec<(ReplicaCustomer, Vec<Order>)>,
    /// Whether it is a list, with pages to come, or one customer.
    is_list: bool,
}

impl Listing {
    pub(super) async fn of_all(rest: Rest) -> Result<Self, StoreError> {
        let page = customers_after(&rest, None).await?;
        Ok(Self {
            rest,
            page,
            is_list: true,
        })
    }

    pub(super) async fn of_one(rest: Rest, customer: ReplicaCustomer) -> Result<Self, StoreError> {
        let page = with_orders(&rest, vec![customer]).await?;
        Ok(Self {
            rest,
            page,
            is_list: false,
        })
    }

    /// Begins to send; ends early when the receiver goes away.
    pub(super) fn send(self) -> mpsc::Receiver<Chunk> {
        let (chunks, received) = mpsc::channel(QUEUE);
        let mut writer = Writer {
            text: Vec::with_capacity(CHUNK),
            chunks,
        };
        tokio::spawn(async move {
            if let Err(Stop::Failed(reason)) = self.write(&mut writer).await {
                tracing::error!(reason, "a list broke off");
                // Ends the connection early, so that the client does not take half a list for a whole one.
                let _ = writer.chunks.send(Err(io::Error::other(reason))).await;
            }
        });
        received
    }

    async fn write(self, writer: &mut Writer) -> Result<(), Stop> {
        let Self {
            rest,
            mut page,
            is_list,
        } = self;
        if is_list {
            writer.text.push(b'[');
        }
        let mut is_first = true;
        while let Some((last, _)) = page.last() {
            let after = last.id.clone();
            for (customer, orders) in page {
                if customer.erased {
                    continue;
                }
                if !is_first {
                    writer.text.push(b',');
                }
                is_first = false;
                write_customer(&rest, writer, &customer, orders).await?;
            }
            if !is_list {
                break;
            }
            page = customers_after(&rest, Some(&after)).await?;
        }
        if is_list {
            writer.text.push(b']');
        }
        writer.flush().await
    }
}

async fn write_customer(
    rest: &Rest,
    writer: &mut Writer,
    customer: &ReplicaCustomer,
    mut orders: Vec<Order>,
) -> Result<(), Stop> {
    document::begin(&mut writer.text, customer)?;
    let mut is_first = true;
    loop {
        let more_after = (orders.len() == ORDERS)
            .then(|| orders.last().map(|order| order.id.clone()))
            .flatten();
        for order in orders {
            if !is_first {
                writer.text.push(b',');
            }
            is_first = false;
            document::order(&mut writer.text, &order)?;
            writer.flush_if_full().await?;
        }
        let Some(after) = more_after else { break };
        let pages = rest
            .orders
            .pages(&[request(&customer.id, Some(after))])
            .await?;
        orders = pages.into_iter().next().unwrap_or_default();
    }
    document::end(&mut writer.text);
    Ok(())
}

fn request(customer_id: &str, after: Option<String>) -> PageRequest {
    PageRequest {
        filter: Filter(vec![("customerId", customer_id.to_owned())]),
        after,
        limit: ORDERS,
    }
}

async fn customers_after(
    rest: &Rest,
    after: Option<&str>,
) -> Result<Vec<(ReplicaCustomer, Vec<Order>)>, StoreError> {
    let customers = rest.replica.store().page(after, CUSTOMERS).await?;
    with_orders(rest, customers).await
}

async fn with_orders(
    rest: &Rest,
    customers: Vec<ReplicaCustomer>,
) -> Result<Vec<(ReplicaCustomer, Vec<Order>)>, StoreError> {
    if customers.is_empty() {
        return Ok(Vec::new());
    }
    let requests: Vec<PageRequest> = customers
        .iter()
        .map(|customer| request(&customer.id, None))
        .collect();
    let pages = rest.orders.pages(&requests).await?;
    Ok(customers.into_iter().zip(pages).collect())
}

/// Why writing ends early.
enum Stop {
    /// The client went away.
    Left,
    /// The store or serde failed.
    Failed(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for Stop {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

struct Writer {
    text: Vec<u8>,
    chunks: mpsc::Sender<Chunk>,
}

impl Writer {
    async fn flush_if_full(&mut self) -> Result<(), Stop> {
        if self.text.len() < CHUNK {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let full = std::mem::replace(&mut self.text, Vec::with_capacity(CHUNK));
        self.chunks
            .send(Ok(Bytes::from(full)))
            .await
            .map_err(|_| Stop::Left)
    }
}
