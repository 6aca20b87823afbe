//! Finds the kind of a request's operation. The beginning of the document does not show it: comments, fragments and
//! other operations may come first.

use async_graphql::{Request, parser::types::OperationType};
use tandem_front_door::graphql::OperationKind;

/// The kind of the operation that will run, as the front door found it. Without a front door the document is examined.
/// `None` if no operation can run, because the document does not parse or has no operation of that name.
pub(super) fn of(request: &mut Request, found: Option<OperationKind>) -> Option<OperationType> {
    match found {
        Some(OperationKind::Query) => Some(OperationType::Query),
        Some(OperationKind::Mutation) => Some(OperationType::Mutation),
        Some(OperationKind::Subscription) => Some(OperationType::Subscription),
        None => by_document(request),
    }
}

fn by_document(request: &mut Request) -> Option<OperationType> {
    let name = request.operation_name.clone();
    let mut operations = request.parsed_query().ok()?.operations.iter();
    let chosen = match name {
        Some(name) => operations.find(|(known, _)| known.is_some_and(|known| *known == name)),
        None => operations.next().filter(|_| operations.next().is_none()),
    };
    chosen.map(|(_, operation)| operation.node.ty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_operation_that_is_carried_out_whatever_stands_before_it() {
        let mutation = Some(OperationType::Mutation);
        for (document, name, kind) in [
            ("mutation { a }", None, mutation),
            ("# of the client\n,mutation { a }", None, mutation),
            ("fragment F on X { a } mutation { ...F }", None, mutation),
            ("query A { a } mutation B { b }", Some("B"), mutation),
            ("query mutation { a }", None, Some(OperationType::Query)),
            ("{ mutation }", None, Some(OperationType::Query)),
            ("mutation A { a }", None, mutation),
            ("query A { a } mutation B { b }", Some("C"), None),
            ("query A { a } mutation B { b }", None, None),
            ("mutation {", None, None),
        ] {
            let mut request = Request::new(document);
            request.operation_name = name.map(str::to_owned);
            assert_eq!(of(&mut request, None), kind, "{document}");
        }
    }

    #[test]
    fn what_the_front_door_found_is_not_looked_for_again() {
        let mut request = Request::new("{ a }");
        let found = Some(OperationKind::Mutation);
        assert_eq!(of(&mut request, found), Some(OperationType::Mutation));
    }
}
