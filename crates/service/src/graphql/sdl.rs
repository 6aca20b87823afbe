//! Declares in the SDL which fields need a token. Routers that enforce the directives read it, and so do people.

/// The directive import that async-graphql writes. It knows only one of the two directives.
const IMPORT: &str = "\"@requiresScopes\"]";

/// Declarations that async-graphql cannot make.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'a> {
    /// Types that are entirely closed to callers without a token.
    pub authenticated: &'a [&'a str],
    /// Subscriptions, each with the scope that it needs. The scope `self` is sufficient too.
    pub subscriptions: &'a [(&'a str, &'a str)],
}

/// The SDL with `@authenticated` on types and `@requiresScopes` on subscriptions (Apollo Federation 2.5). It ends with
/// one line break.
#[must_use]
pub fn with_access(sdl: &str, declared: Declared<'_>) -> String {
    let mut text = String::with_capacity(sdl.len() + 256);
    let mut is_in_subscription = false;
    for line in sdl.trim().lines() {
        is_in_subscription = match line {
            "type Subscription {" => true,
            "}" => false,
            _ => is_in_subscription,
        };
        let begins = |keyword: &str, name: &str| {
            line.strip_prefix(keyword)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with([' ', '(', ':']))
        };
        let is_authenticated = declared
            .authenticated
            .iter()
            .any(|name| begins("type ", name));
        if let Some(before) = line.strip_suffix(" {")
            && is_authenticated
        {
            text.push_str(before);
            text.push_str(" @authenticated {\n");
            continue;
        }
        text.push_str(&line.replace(IMPORT, "\"@requiresScopes\", \"@authenticated\"]"));
        let scope = declared
            .subscriptions
            .iter()
            .find(|(name, _)| begins("\t", name));
        if let Some((_, scope)) = scope.filter(|_| is_in_subscription) {
            text.push_str(" @requiresScopes(scopes: [[\"");
            text.push_str(scope);
            text.push_str("\"], [\"self\"]])");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_subscriptions_are_declared_and_nothing_else() {
        let sdl = "type Order @key(fields: \"id\") {\n\tid: ID!\n}\n\ntype OrderItem {\n\tmoved: Int\n}\n\ntype Subscription {\n\t\"Text.\"\n\
                   \tmoved(id: ID): Int!\n\tmovedAway: Int\n}\n\nextend schema @link(import: [\"@key\", \"@requiresScopes\"])\n\n\n";
        let declared = Declared {
            authenticated: &["Order"],
            subscriptions: &[("moved", "orders:read")],
        };
        assert_eq!(
            with_access(sdl, declared),
            "type Order @key(fields: \"id\") @authenticated {\n\tid: ID!\n}\n\ntype OrderItem {\n\tmoved: Int\n}\n\ntype Subscription {\n\t\"Text.\"\n\
             \tmoved(id: ID): Int! @requiresScopes(scopes: [[\"orders:read\"], [\"self\"]])\n\tmovedAway: Int\n}\n\n\
             extend schema @link(import: [\"@key\", \"@requiresScopes\", \"@authenticated\"])\n"
        );
    }
}
