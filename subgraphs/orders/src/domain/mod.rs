//! The domain of orders: items, status, commands and published events. It is pure: no I/O, no clock, no random numbers.

pub mod address;
pub mod error;
pub mod event;
pub mod item;
pub mod order;
pub mod status;
#[cfg(test)]
mod tests;
mod text;

pub use address::{Address, AddressType};
pub use error::OrderError;
pub use event::{ChangeType, OrderChangeEvent};
pub use item::{OrderItem, Product};
pub use order::{Order, Placement};
pub use status::OrderStatus;
