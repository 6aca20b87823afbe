//! `tandem schema print`: the contracts as the code has them. The files in schema/ are made from this.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

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

/// Prints what was asked for.
///
/// # Errors
///
/// When standard output cannot be written.
pub(super) fn print(settings: &SchemaSettings) -> anyhow::Result<()> {
    let Action::Print { schema } = &settings.action;
    let text = match schema {
        Schema::Accounts => tandem_accounts::sdl(),
        Schema::Orders => tandem_orders::graphql::sdl(),
        Schema::EventCustomerChange => tandem_accounts::event_json_schema(),
        Schema::EventOrderChange => tandem_orders::domain::OrderChangeEvent::json_schema()?,
        Schema::Asyncapi => super::asyncapi::document()?,
    };
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", text.trim_end())?;
    Ok(output.flush()?)
}
