//! Converts what a parser or a validator found wrong in a document into our errors with their locations.

use apollo_compiler::parser::{SourceMap, SourceSpan};
use apollo_compiler::response::GraphQLError;
use apollo_compiler::validation::DiagnosticList;

use super::error::{Location, Refused, RequestError};

/// The most errors of one document that are reported.
pub(super) const MOST_ERRORS: usize = 10;
/// How the validator's message about an object without selections begins.
const NO_SELECTIONS: &str = "interface, union and object types must have a subselection";

pub(super) fn refused(
    errors: &DiagnosticList,
    of_kind: &dyn Fn(String, Option<Location>) -> RequestError,
) -> Refused {
    let mut written: Vec<GraphQLError> = errors
        .iter()
        .take(MOST_ERRORS * 2)
        .map(|error| error.to_json())
        .collect();
    // If all selections of a field are invalid, the validator also reports that the field has none. The actual mistake
    // comes first, because many clients show only the first error.
    written.sort_by_key(|error| error.message.starts_with(NO_SELECTIONS));
    let mut told: Vec<RequestError> = written
        .into_iter()
        .take(MOST_ERRORS)
        .map(|written| {
            let location = written.locations.first().map(|place| Location {
                line: place.line,
                column: place.column,
            });
            let argument = required_argument(&written.message).map(str::to_owned);
            let told = of_kind(written.message, location);
            match argument {
                Some(argument) => told.with("field", argument),
                None => told,
            }
        })
        .collect();
    if told.is_empty() {
        told.push(of_kind("the document is not valid".to_owned(), None));
    }
    Refused::of(told)
}

/// The location at which a part of a document begins.
pub(super) fn place(span: Option<SourceSpan>, sources: &SourceMap) -> Option<Location> {
    let begin = span?.line_column(sources)?;
    Some(Location {
        line: begin.line,
        column: begin.column,
    })
}

/// Extracts the argument's name from "the required argument `Query.customer(id:)` is not provided".
fn required_argument(message: &str) -> Option<&str> {
    let coordinate = message
        .strip_prefix("the required argument `")?
        .split('`')
        .next()?;
    coordinate.rsplit_once('(')?.1.strip_suffix(":)")
}
