//! Interprets the messages of async-graphql. They are the only way to learn why it refused an input, and which one.

/// Whether a message says that an input was refused.
pub(super) fn is_refused_input(message: &str) -> bool {
    undefined_variable(message).is_some()
        || REFUSED_INPUT
            .iter()
            .any(|prefix| message.starts_with(prefix))
}

/// The beginnings of async-graphql's messages for an argument or an entity representation that it cannot read when it
/// calls a resolver.
const REFUSED_INPUT: &[&str] = &[
    "Failed to parse \"",
    "Expected input type \"",
    "Invalid value for argument \"",
    "Entity not found.",
];

/// The variable that an operation needs and the request lacks.
fn undefined_variable(message: &str) -> Option<&str> {
    message
        .strip_prefix("Variable ")?
        .strip_suffix(" is not defined.")
}

/// The field that a message of async-graphql is about.
pub(super) fn field_of(message: &str) -> Option<String> {
    if let Some(variable) = undefined_variable(message) {
        return Some(variable.to_owned());
    }
    // Field "create" argument "input" of type "Query" is required but not provided
    if message.starts_with("Field \"") && message.ends_with("is required but not provided") {
        let (_, argument) = message.split_once(" argument \"")?;
        return argument.split('"').next().map(str::to_owned);
    }
    // Invalid value for argument "input.addresses.0.type", expected type "AddressType"
    let (path, reason) = message
        .strip_prefix("Invalid value for argument \"")?
        .split_once("\", ")?;
    let path = bracket_indices(path);
    // A missing or unknown field is reported at its parent.
    let child = reason
        .strip_prefix("field \"")
        .or_else(|| reason.strip_prefix("unknown field \""))
        .and_then(|rest| rest.split('"').next());
    Some(match child {
        Some(child) => format!("{path}.{child}"),
        None => path,
    })
}

/// async-graphql writes `addresses.0.type`; everywhere else we write `addresses[0].type`.
fn bracket_indices(path: &str) -> String {
    let mut written = String::with_capacity(path.len());
    for segment in path.split('.') {
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            written.push('[');
            written.push_str(segment);
            written.push(']');
        } else {
            if !written.is_empty() {
                written.push('.');
            }
            written.push_str(segment);
        }
    }
    written
}
