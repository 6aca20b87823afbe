//! Gives every error of a response a code, whichever library made it.

use std::sync::{Arc, OnceLock};

use async_graphql::extensions::{
    Extension, ExtensionContext, ExtensionFactory, NextExecute, NextParseQuery, NextRequest,
    NextResolve, NextSubscribe, NextValidation, ResolveInfo,
};
use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{Response, ServerError, ServerResult, ValidationResult, Value, Variables};
use futures::StreamExt;
use futures::stream::BoxStream;
use tandem_front_door::graphql::VariablesChecked;

use super::INTERNAL_MESSAGE;
use super::async_graphql_messages::{field_of, is_refused_input};
use crate::error_code::ErrorCode;
use crate::graphql::documents::KeptDocument;
use crate::graphql::field_errors::FieldErrors;

/// Gives every error a code. Errors of the GraphQL layer itself (syntax, validation, wrong types, limits) get
/// `BAD_USER_INPUT`, with the field if it is known. Errors without a code from resolvers get `INTERNAL` and lose their
/// text. The extension also puts null in the place of every failed field, and orders the members as the document does.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorCodes;

impl ExtensionFactory for ErrorCodes {
    fn create(&self) -> Arc<dyn Extension> {
        Arc::new(OfRequest::default())
    }
}

/// The state of one request: its failed fields, and its document, which has the order of the members.
#[derive(Debug, Default)]
struct OfRequest {
    fields: FieldErrors,
    document: OnceLock<KeptDocument>,
}

#[async_trait::async_trait]
impl Extension for OfRequest {
    async fn request(&self, context: &ExtensionContext<'_>, next: NextRequest<'_>) -> Response {
        with_codes(next.run(context).await)
    }

    fn subscribe<'s>(
        &self,
        context: &ExtensionContext<'_>,
        stream: BoxStream<'s, Response>,
        next: NextSubscribe<'_>,
    ) -> BoxStream<'s, Response> {
        next.run(context, stream).map(with_codes).boxed()
    }

    async fn parse_query(
        &self,
        context: &ExtensionContext<'_>,
        query: &str,
        variables: &Variables,
        next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        let document = next.run(context, query, variables).await?;
        self.document.get_or_init(|| {
            let kept = context.data_opt::<KeptDocument>();
            kept.cloned()
                .unwrap_or_else(|| KeptDocument::new(document.clone()))
        });
        Ok(document)
    }

    /// Validates a cached document once. Afterwards only the values of variables may be wrong, and the front door has
    /// checked them.
    async fn validation(
        &self,
        context: &ExtensionContext<'_>,
        next: NextValidation<'_>,
    ) -> Result<ValidationResult, Vec<ServerError>> {
        let kept = context.data_opt::<KeptDocument>();
        let is_checked = context.data_opt::<VariablesChecked>().is_some();
        let known = kept.filter(|_| is_checked);
        if let Some(result) = known.and_then(KeptDocument::validated) {
            return Ok(result);
        }
        let result = next.run(context).await?;
        if let Some(kept) = kept {
            kept.is_valid(result);
        }
        Ok(result)
    }

    async fn execute(
        &self,
        context: &ExtensionContext<'_>,
        operation: Option<&str>,
        next: NextExecute<'_>,
    ) -> Response {
        let mut response = next.run(context, operation).await;
        self.fields.finish(&mut response);
        if let Some(document) = self.document.get() {
            document.put_in_order(operation, &mut response.data);
        }
        response
    }

    async fn resolve(
        &self,
        context: &ExtensionContext<'_>,
        info: ResolveInfo<'_>,
        next: NextResolve<'_>,
    ) -> ServerResult<Option<Value>> {
        let kind = info.return_type;
        let resolved = next.run(context, info).await;
        Ok(self.fields.completed(kind, resolved))
    }
}

fn with_codes(mut response: Response) -> Response {
    for error in &mut response.errors {
        classify(error);
    }
    response
}

fn classify(error: &mut ServerError) {
    let has_code = error
        .extensions
        .as_ref()
        .is_some_and(|extensions| extensions.get("code").is_some());
    if has_code {
        return;
    }
    // Errors without a path come from before the first resolver ran.
    let code = if error.path.is_empty() || is_refused_input(&error.message) {
        ErrorCode::BAD_USER_INPUT
    } else {
        tracing::error!(message = error.message, path = ?error.path, "a resolver failed without a code");
        error.message = INTERNAL_MESSAGE.into();
        ErrorCode::INTERNAL
    };
    let extensions = error.extensions.get_or_insert_default();
    extensions.set("code", code.as_str());
    if code == ErrorCode::BAD_USER_INPUT
        && extensions.get("field").is_none()
        && let Some(field) = field_of(&error.message)
    {
        extensions.set("field", field);
    }
}
