//! Clients. They create, change and erase customers, place and advance orders, repeat requests without an answer, and
//! read what they wrote.

mod reading;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tandem_accounts::{
    customers::{NewCustomer, Origin},
    domain::{Customer, CustomerId, UpdateCustomer},
};
use tandem_event_path::commands::CommandError;
use tandem_model::{
    aggregate::Aggregate,
    request_key::{Request, RequestKey},
};
use tandem_orders::{
    commands::{Origin as OrderOrigin, PlaceOrder, Refused},
    domain::{AddressType as ShipTo, Order, OrderError},
};

use crate::{
    chance::draw,
    drafts::{address, card, contact, item, name},
    history::{Acknowledged, History},
    system::System,
};

/// How many times a request is sent at most.
const TRIES: usize = 12;

/// The customers and orders that clients know. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<Names>>);

#[derive(Debug, Default)]
struct Names {
    customers: Vec<String>,
    orders: Vec<String>,
}

impl Known {
    fn customer(&self) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        draw(|chance| chance.pick(&names.customers).cloned())
    }

    fn order(&self) -> Option<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        draw(|chance| chance.pick(&names.orders).cloned())
    }

    fn add(&self, which: impl FnOnce(&mut Names) -> &mut Vec<String>, id: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = which(&mut names);
        if !known.iter().any(|it| it == id) {
            known.push(id.to_owned());
        }
    }

    /// All customers.
    #[must_use]
    pub fn customers(&self) -> Vec<String> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.customers.clone()
    }
}

/// The result of one request.
enum Told<T> {
    /// It was carried out.
    Done(T),
    /// It was refused for good.
    Refused,
    /// The result is not known, or not known yet.
    Unknown,
}

fn of_customers<T>(
    result: Option<Result<T, CommandError<tandem_accounts::domain::CustomerError>>>,
) -> Told<T> {
    match result {
        Some(Ok(done)) => Told::Done(done),
        Some(Err(CommandError::Rejected(_) | CommandError::KeyReused)) => Told::Refused,
        Some(Err(_)) | None => Told::Unknown,
    }
}

fn of_orders<T>(result: Option<Result<T, Refused>>) -> Told<T> {
    match result {
        Some(Ok(done)) => Told::Done(done),
        // The customer may still be on its way to the replica.
        Some(Err(Refused::Rule(OrderError::CustomerUnknown { .. }))) => Told::Unknown,
        Some(Err(Refused::Rule(_) | Refused::KeyReused)) => Told::Refused,
        Some(Err(_)) | None => Told::Unknown,
    }
}

/// The number of clients that change one customer at the same time, and how many times each does.
const AT_ONCE: usize = 3;
const CHANGES: usize = 2;

/// Several clients change a new customer at the same time, usually through several instances. By chance alone, their
/// changes would conflict too rarely.
pub async fn change_one_at_once(system: &System, history: &History, known: &Known) {
    let client = |number: usize| Client::new(system, history, known, &format!("t{number}"));
    client(0).create("t0x0").await;
    let Some(id) = known.customers().pop() else {
        return;
    };
    let changing = (1..=AT_ONCE).map(|number| {
        let (client, id) = (client(number), id.clone());
        system.world.task(async move {
            for change in 0..CHANGES {
                client
                    .update_of(id.clone(), &format!("t{number}x{change}"))
                    .await;
            }
        })
    });
    join_all(changing).await;
}

/// A client.
#[derive(Clone)]
pub struct Client {
    system: System,
    history: History,
    known: Known,
    name: String,
}

impl Client {
    /// Creates a client of a system.
    #[must_use]
    pub fn new(system: &System, history: &History, known: &Known, name: &str) -> Self {
        Self {
            system: system.clone(),
            history: history.clone(),
            known: known.clone(),
            name: name.to_owned(),
        }
    }

    /// Sends this many requests, one after the other, with pauses.
    pub async fn run(self, requests: usize) {
        for number in 0..requests {
            let mark = format!("{}x{number}", self.name);
            let dice = draw(|chance| chance.below(100));
            match dice {
                0..15 => self.create(&mark).await,
                15..45 => self.update(&mark).await,
                45..65 => self.place(&mark).await,
                65..80 => self.advance(&mark).await,
                80..86 => self.erase().await,
                86..94 => self.read().await,
                _ => self.read_own().await,
            }
            let pause = draw(|chance| chance.between(50, 5_000));
            self.system.world.sleep(Duration::from_millis(pause)).await;
        }
    }

    fn key(&self, operation: &str, target: &str, mark: &str) -> Option<RequestKey> {
        let input = serde_json::json!({ "mark": mark });
        let request = Request {
            caller: &self.name,
            operation,
            target,
            input: &input,
        };
        self.history.events().once.insert(mark.to_owned());
        RequestKey::new(request, mark).ok()
    }

    fn origin(&self) -> Origin {
        Origin {
            by: self.name.clone(),
            trace: None,
        }
    }

    async fn pause(&self) {
        let pause = draw(|chance| chance.between(100, 2_500));
        self.system.world.sleep(Duration::from_millis(pause)).await;
    }

    fn asked(&self) {
        self.history.events().requests += 1;
    }

    fn answered(&self, what: &str, id: &str, revision: i64) {
        self.history.events().answered += 1;
        let name = &self.name;
        self.system
            .world
            .note(|| format!("client {name} has {what} {id} {revision}"));
    }

    fn changed(&self, customer: &Customer, mark: &str) {
        let acknowledged = Acknowledged {
            id: customer.id().to_owned(),
            revision: customer.revision(),
            mark: mark.to_owned(),
            at: self.system.world.elapsed(),
        };
        self.history.events().customers.insert(acknowledged);
        self.known.add(|names| &mut names.customers, customer.id());
        self.answered("changed", customer.id(), customer.revision());
    }

    async fn create(&self, mark: &str) {
        let key = self.key("createCustomer", "", mark);
        let customer = NewCustomer {
            id: draw(|chance| chance.happens(500))
                .then(|| CustomerId::parse(mark).ok())
                .flatten(),
            name: name(mark),
            contact: contact(mark),
            addresses: vec![address(mark)],
            // Half of the customers have a card.
            credit_cards: draw(|chance| chance.happens(500))
                .then(|| card(mark))
                .into_iter()
                .collect(),
        };
        let now = self.system.world.elapsed();
        self.history
            .events()
            .changed_at
            .insert(mark.to_owned(), now);
        for _ in 0..TRIES {
            self.asked();
            let (customer, key, origin) = (customer.clone(), key.clone(), self.origin());
            let slots = &self.system.accounts_slots;
            let asked = self.system.ask(slots, move |accounts| async move {
                accounts.customers.create(customer, key, &origin).await
            });
            match of_customers(asked.await) {
                Told::Done(customer) => return self.changed(&customer, mark),
                Told::Refused => return,
                Told::Unknown => self.pause().await,
            }
        }
    }

    async fn update(&self, mark: &str) {
        match self.known.customer() {
            Some(id) => self.update_of(id, mark).await,
            None => self.create(mark).await,
        }
    }

    async fn update_of(&self, id: String, mark: &str) {
        let Ok(target) = CustomerId::parse(id.as_str()) else {
            return;
        };
        let key = self.key("updateCustomer", &id, mark);
        let now = self.system.world.elapsed();
        {
            let mut events = self.history.events();
            events.changed_at.insert(mark.to_owned(), now);
            events
                .personal
                .entry(id)
                .or_default()
                .insert(mark.to_owned());
        }
        let command = UpdateCustomer {
            name: Some(name(mark)),
            ..UpdateCustomer::default()
        };
        for _ in 0..TRIES {
            self.asked();
            let (target, command) = (target.clone(), command.clone());
            let (key, origin) = (key.clone(), self.origin());
            let slots = &self.system.accounts_slots;
            let asked = self.system.ask(slots, move |accounts| async move {
                accounts
                    .customers
                    .update(&target, command, None, key, &origin)
                    .await
            });
            match of_customers(asked.await) {
                Told::Done(customer) => {
                    self.changed(&customer, mark);
                    if draw(|chance| chance.happens(400)) {
                        self.read_at_least(customer.id(), customer.revision()).await;
                    }
                    return;
                }
                Told::Refused => return,
                Told::Unknown => self.pause().await,
            }
        }
    }

    async fn erase(&self) {
        let Some(id) = self.known.customer() else {
            return;
        };
        let Ok(target) = CustomerId::parse(id.as_str()) else {
            return;
        };
        self.history
            .events()
            .erasures
            .entry(id.clone())
            .or_default();
        for _ in 0..TRIES {
            self.asked();
            let (target, origin) = (target.clone(), self.origin());
            let slots = &self.system.accounts_slots;
            let asked = self.system.ask(slots, move |accounts| async move {
                accounts.customers.erase(&target, &origin).await
            });
            match of_customers(asked.await) {
                Told::Done(stub) => {
                    self.history.events().erasures.insert(id, true);
                    if !stub.is_erased() {
                        self.history
                            .violated(format!("{} was erased and is there", stub.id()));
                    }
                    return self.answered("erased", stub.id(), stub.revision());
                }
                Told::Refused => return,
                Told::Unknown => self.pause().await,
            }
        }
    }

    pub(crate) async fn place(&self, mark: &str) {
        let Some(customer_id) = self.known.customer() else {
            return;
        };
        let now = self.system.world.elapsed();
        self.history.events().placed_at.insert(mark.to_owned(), now);
        let request = PlaceOrder {
            idempotency_key: self.key("placeOrder", "", mark),
            items: vec![item(mark)],
            ship_to: ShipTo::Shipping,
            customer_id,
        };
        for _ in 0..TRIES {
            self.asked();
            let request = request.clone();
            let slots = &self.system.orders_slots;
            let asked = self.system.ask(slots, move |orders| async move {
                orders
                    .commands
                    .place(request, &OrderOrigin::default())
                    .await
            });
            match of_orders(asked.await) {
                Told::Done(order) => return self.ordered(&order, mark),
                Told::Refused => return,
                Told::Unknown => self.pause().await,
            }
        }
    }

    pub(crate) async fn advance(&self, mark: &str) {
        let Some(id) = self.known.order() else {
            return;
        };
        let cancels = draw(|chance| chance.happens(300));
        for _ in 0..TRIES {
            self.asked();
            let (id, reason) = (id.clone(), Some(mark.to_owned()));
            let slots = &self.system.orders_slots;
            let asked = self.system.ask(slots, move |orders| async move {
                let (commands, origin) = (orders.commands, OrderOrigin::default());
                if cancels {
                    return Some(commands.cancel(&id, reason, None, &origin).await);
                }
                let held = commands.store().get_many(std::slice::from_ref(&id)).await;
                let status = held.ok()?.into_iter().next()??.state.status.next()?;
                Some(commands.advance(&id, status, None, &origin).await)
            });
            match of_orders(asked.await.flatten()) {
                Told::Done(order) => {
                    return self.ordered(&order, if cancels { mark } else { "" });
                }
                Told::Refused => return,
                Told::Unknown => self.pause().await,
            }
        }
    }

    fn ordered(&self, order: &Order, mark: &str) {
        let acknowledged = Acknowledged {
            id: order.id.clone(),
            revision: order.revision,
            mark: mark.to_owned(),
            at: self.system.world.elapsed(),
        };
        self.history.events().orders.insert(acknowledged);
        self.known.add(|names| &mut names.orders, &order.id);
        self.answered("ordered", &order.id, order.revision);
    }
}
