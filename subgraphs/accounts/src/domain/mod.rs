//! The domain of customers: their data, the commands on them, and the events that they publish. It is pure: no I/O, no
//! clock, no random numbers.

mod address;
mod card;
mod contact;
mod customer;
pub mod event;
mod id;
mod name;
mod violation;

pub use address::{Address, AddressType, MAX_ADDRESSES};
pub use card::{
    CardDraft, CardNumber, CardVault, CreditCard, CreditCardType, MAX_CARDS, VaultError,
};
pub use contact::{Contact, EmailForm};
pub(crate) use contact::{MAX_EMAIL, MAX_PHONE};
pub use customer::{
    Asked, Change, ChangeType, CreateCustomer, Customer, CustomerError, Part, Person,
    UpdateCustomer,
};
pub use id::CustomerId;
pub use name::Name;
pub(crate) use violation::{MAX_DESCRIPTION, MAX_TEXT};
pub use violation::{Problem, Violation};
