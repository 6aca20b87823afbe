//! What a mutation of an order may return. The caller sees the order that it may change. Of the order's customer,
//! including the customer's other orders, it sees only what it may read anyway.

use async_graphql::{Context, SelectionField, registry::Registry};
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, access};

use super::query::customer_of_order;

/// Checks that the caller may see every field that the mutation selects, for an order of this customer.
///
/// # Errors
/// FORBIDDEN if the caller may not. The check runs before anything is changed, so that a change that was made never
/// answers FORBIDDEN.
pub(super) fn require_shown(ctx: &Context<'_>, customer_id: &str) -> Result<(), ApiError> {
    let access = access(ctx);
    let may_see = |scope| access.require_or_own(scope, customer_id).is_ok();
    all_may_be_seen(ctx, &may_see)
}

/// The same check for an order that exists already.
///
/// # Errors
/// The errors of [`require_shown`], and an error if the order cannot be read.
pub(super) async fn require_shown_of_order(ctx: &Context<'_>, id: &str) -> Result<(), ApiError> {
    let access = access(ctx);
    let refused = match all_may_be_seen(ctx, &|scope| access.require(scope).is_ok()) {
        Ok(()) => return Ok(()),
        Err(refused) => refused,
    };
    // For a caller who is not a customer, it makes no difference whose order it is.
    if access.require(Scope::Own).is_err() {
        return Err(refused);
    }
    let customer_id = customer_of_order(ctx, id).await?;
    require_shown(ctx, &customer_id)
}

fn all_may_be_seen(ctx: &Context<'_>, may_see: &impl Fn(Scope) -> bool) -> Result<(), ApiError> {
    let registry = &ctx.schema_env.registry;
    let mutation = ctx.field();
    let answer = registry
        .mutation_type
        .as_ref()
        .and_then(|root| registry.types.get(root))
        .and_then(|root| root.field_by_name(mutation.name()))
        .ok_or_else(|| ApiError::internal("a mutation that the schema does not have"))?;
    match first_hidden(registry, &answer.ty, &mutation, may_see) {
        None => Ok(()),
        Some((scope, name)) => Err(ApiError::forbidden(format!(
            "this needs a token with the scope `{scope}`: without it the answer to a change does not show `{name}`; nothing was changed"
        ))),
    }
}

/// The first selected field that the caller may not see, with the scope that the schema requires for it. `kind` is the
/// type of `field`.
fn first_hidden<'a>(
    registry: &Registry,
    kind: &str,
    field: &SelectionField<'a>,
    may_see: &impl Fn(Scope) -> bool,
) -> Option<(Scope, &'a str)> {
    let kind = registry.concrete_type_by_name(kind)?;
    field.selection_set().find_map(|selected| {
        // `__typename` is not declared in the schema. Everybody may see it.
        let declared = kind.field_by_name(selected.name())?;
        let required = declared
            .requires_scopes
            .iter()
            .filter_map(|scope| scope.parse::<Scope>().ok())
            .find(|scope| *scope != Scope::Own && !may_see(*scope));
        match required {
            Some(scope) => Some((scope, selected.name())),
            None => first_hidden(registry, &declared.ty, &selected, may_see),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{Request, Variables};
    use serde_json::{Value, json};
    use tandem_authentication::{Access, Principal, Scopes};

    use crate::{graphql::schema, test_support::World};

    const CHANGES: [&str; 3] = [
        r#"mutation { change: placeOrder(input: { customerId: "1", items: [
            { product: { guid: "g", title: "t", price: "1" }, quantity: 1 }] }) { order { ...order } } }"#,
        "mutation($id: ID!) { change: advanceOrder(id: $id, to: CONFIRMED) { order { ...order } } }",
        "mutation($id: ID!) { change: cancelOrder(id: $id) { order { ...order } } }",
    ];
    /// Selections on an order that show its customer, each with the scope that it requires.
    const HIDDEN: [(&str, &str); 7] = [
        ("id customer { name { firstName } }", "customers:read"),
        ("c: customer { n: contact { email } }", "customers:read"),
        (
            "customer { id } ... on Order { customer { ... { addresses { city } } } }",
            "customers:read",
        ),
        ("customer { replica { revision } }", "customers:read"),
        ("customer { orders { nodes { id } } }", "orders:read"),
        ("customer { orders { edges { cursor } } }", "orders:read"),
        (
            "customer { orders { nodes { customer { name { lastName } } } } }",
            "orders:read",
        ),
    ];

    /// Two customers, the first of whom has an order.
    struct Shop {
        world: World,
        order: String,
    }

    impl Shop {
        async fn new() -> Self {
            let world = World::new().await;
            for id in ["1", "2"] {
                world.customer(id).await;
            }
            let order = world.place("1", "1").await.id;
            Self { world, order }
        }

        async fn answer(&self, access: Access, document: &str) -> Value {
            let request = Request::new(document)
                .variables(Variables::from_json(json!({ "id": self.order })))
                .data(access)
                .data(self.world.backing.loaders());
            let schema = schema(self.world.backing.clone());
            serde_json::to_value(schema.execute(request).await).unwrap()
        }

        async fn change(&self, who: (&str, &str), change: &str, selected: &str) -> Value {
            let document = format!("{change} fragment order on Order {{ {selected} }}");
            self.answer(bearer(who), &document).await
        }

        /// All orders, unfiltered.
        async fn orders(&self) -> Value {
            let all = "{ orders { nodes { id status revision } } }";
            self.answer(Access::Open, all).await
        }
    }

    fn bearer((subject, scopes): (&str, &str)) -> Access {
        Access::Bearer(Principal {
            subject: subject.into(),
            scopes: Scopes::of_claim(scopes),
            expires_at: u64::MAX,
        })
    }

    #[tokio::test]
    async fn a_change_whose_answer_may_not_be_shown_is_refused_before_it_is_made() {
        let shop = Shop::new().await;
        let before = shop.orders().await;
        // The second caller is a customer, but the order belongs to the other one.
        let callers = [("7", "orders:write"), ("2", "orders:write self")];
        for change in CHANGES {
            for (selected, scope) in HIDDEN {
                for who in callers {
                    let refused = shop.change(who, change, selected).await;
                    let what = format!("{who:?} {change} {selected}: {refused}");
                    let error = &refused["errors"][0];
                    assert_eq!(error["extensions"]["code"], "FORBIDDEN", "{what}");
                    let message = error["message"].as_str().unwrap();
                    assert!(message.contains(scope), "{what}");
                    assert!(message.contains("nothing was changed"), "{what}");
                    assert_eq!(shop.orders().await, before, "{what}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_change_is_made_by_who_may_see_its_answer() {
        let all = HIDDEN.map(|(selected, _)| selected).join(" ");
        let order =
            "id shipTo { city } total changes { nodes { revision } } customer { __typename id }";
        for (who, changes, selected) in [
            (("7", "orders:write"), &CHANGES[..], order),
            (
                ("7", "orders:write orders:read customers:read"),
                &CHANGES[..],
                all.as_str(),
            ),
            (("1", "orders:write self"), &CHANGES[..], all.as_str()),
            (("1", "self"), &[CHANGES[0], CHANGES[2]][..], all.as_str()),
        ] {
            for change in changes {
                let shop = Shop::new().await;
                let made = shop.change(who, change, selected).await;
                let what = format!("{who:?} {change} {selected}: {made}");
                assert_eq!(made.get("errors"), None, "{what}");
                assert!(made["data"]["change"]["order"].is_object(), "{what}");
            }
        }
    }

    #[tokio::test]
    async fn who_may_not_cancel_is_told_the_scope_that_it_takes() {
        let shop = Shop::new().await;
        let before = shop.orders().await;
        for who in [
            ("2", "self"),
            ("2", "orders:read self"),
            ("7", "orders:read"),
        ] {
            let refused = shop.change(who, CHANGES[2], "id").await;
            let error = &refused["errors"][0];
            assert_eq!(error["extensions"]["code"], "FORBIDDEN", "{refused}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("orders:write"), "{who:?}: {message}");
        }
        assert_eq!(shop.orders().await, before);
    }
}
