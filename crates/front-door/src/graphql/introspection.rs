//! Limits how deep the lists of an introspection may nest: each level multiplies the answer by the size of the schema.

use apollo_compiler::executable::ExecutableDocument;
use apollo_compiler::introspection;
use apollo_compiler::validation::Valid;

use super::error::RequestError;

/// Refuses an introspection that nests deeper than tools do.
///
/// # Errors
/// When the lists of the introspection nest too deep.
pub(super) fn check(document: &Valid<ExecutableDocument>) -> Result<(), RequestError> {
    for operation in document.operations.iter() {
        introspection::check_max_depth(document, operation)
            .map_err(|error| RequestError::validation(error.message().to_string(), None))?;
    }
    Ok(())
}
