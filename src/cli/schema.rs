//! `tandem schema`: prints the contracts, from which the files in schema/ are made, and checks whether a change of them
//! is breaking.

use clap::{Args, Subcommand, ValueEnum};

use super::compatibility::{self, CheckSettings};
use crate::terminal::tell;

/// What to do with schemas.
#[derive(Args, Clone, Debug)]
pub(super) struct SchemaSettings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print a schema to standard output.
    Print {
        /// Which one.
        schema: Schema,
    },
    /// Compare what was promised with what is to be: which change breaks whom. Ends with an error if one does.
    Check(CheckSettings),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Schema {
    /// schema/accounts.graphql
    Accounts,
    /// schema/orders.graphql
    Orders,
    /// schema/events/customer-change-event.v2.json
    EventCustomerChange,
    /// schema/events/order-change-event.v1.json
    EventOrderChange,
    /// schema/asyncapi.json: all topics.
    Asyncapi,
}

/// Prints a schema, or compares two.
///
/// # Errors
///
/// When a schema cannot be made, and when a check finds a breaking change.
pub(super) fn run(settings: &SchemaSettings) -> anyhow::Result<()> {
    let schema = match &settings.action {
        Action::Print { schema } => schema,
        Action::Check(settings) => return compatibility::check(settings),
    };
    let text = match schema {
        Schema::Accounts => tandem_accounts::sdl(),
        Schema::Orders => tandem_orders::graphql::sdl(),
        Schema::EventCustomerChange => tandem_accounts::event_json_schema(),
        Schema::EventOrderChange => tandem_orders::domain::OrderChangeEvent::json_schema()?,
        Schema::Asyncapi => super::asyncapi::document()?,
    };
    tell(text.trim_end());
    Ok(())
}
