#![allow(clippy::unwrap_used, clippy::expect_used)]
//! Property tests of the rules of orders, and of the order event.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal as Amount;
use tandem_event_contract as event_contract;
use tandem_model::seal::Key;
use tandem_model::{aggregate::Aggregate, event::CloudEvent};
use uuid::Uuid;

use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-23T10:00:00.123Z".parse().unwrap()
}

fn item(price: &str, quantity: i32) -> OrderItem {
    OrderItem {
        product: Product {
            guid: "p-1".into(),
            title: "Hammer".into(),
            description: None,
            price: price.parse().unwrap(),
        },
        quantity,
    }
}

fn place(items: Vec<OrderItem>) -> Result<Order, OrderError> {
    let placement = Placement {
        customer_id: "1".into(),
        items,
        ship_to: None,
    };
    Order::place(Uuid::now_v7().to_string(), placement, now())
}

fn field(error: OrderError) -> String {
    match error {
        OrderError::Invalid { field, .. } => field,
        other => panic!("not about a value: {other}"),
    }
}

const STATES: [OrderStatus; 5] = [
    OrderStatus::Placed,
    OrderStatus::Confirmed,
    OrderStatus::Shipped,
    OrderStatus::Delivered,
    OrderStatus::Cancelled,
];

#[test]
fn a_placed_order_is_at_revision_one() {
    let order = place(vec![item("12.50", 2)]).unwrap();
    assert_eq!(order.revision, 1);
    assert_eq!(order.status, OrderStatus::Placed);
    assert_eq!(order.total.to_string(), "25.00");
    assert!(Order::is_id(&order.id));
}

#[test]
fn an_order_goes_one_step_at_a_time() {
    let placed = place(vec![item("1", 1)]).unwrap();
    let refused = placed
        .advance(OrderStatus::Shipped, None, now())
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "an order that is PLACED cannot become SHIPPED; it can become CONFIRMED or CANCELLED"
    );
    let mut order = placed;
    for (step, to) in [
        OrderStatus::Confirmed,
        OrderStatus::Shipped,
        OrderStatus::Delivered,
    ]
    .into_iter()
    .enumerate()
    {
        order = order.advance(to, Some(step as i64 + 1), now()).unwrap();
        assert_eq!((order.status, order.revision), (to, step as i64 + 2));
    }
    let refused = order.cancel(None, None, now()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "an order that is DELIVERED cannot become CANCELLED; that is its last state"
    );
}

#[test]
fn an_order_is_cancelled_until_it_is_shipped() {
    let placed = place(vec![item("1", 1)]).unwrap();
    let confirmed = placed.advance(OrderStatus::Confirmed, None, now()).unwrap();
    let shipped = confirmed
        .advance(OrderStatus::Shipped, None, now())
        .unwrap();
    for order in [&placed, &confirmed] {
        let cancelled = order
            .cancel(Some("no longer wanted".into()), None, now())
            .unwrap();
        assert_eq!(cancelled.status, OrderStatus::Cancelled);
        assert_eq!(
            cancelled.cancellation_reason.as_deref(),
            Some("no longer wanted")
        );
        assert!(cancelled.cancel(None, None, now()).is_err());
    }
    assert!(shipped.cancel(None, None, now()).is_err());
}

#[test]
fn a_stale_revision_is_refused_before_anything_else() {
    let placed = place(vec![item("1", 1)]).unwrap();
    let conflict = OrderError::RevisionConflict {
        expected: 7,
        actual: 1,
    };
    assert_eq!(
        placed.advance(OrderStatus::Delivered, Some(7), now()),
        Err(conflict.clone())
    );
    assert_eq!(placed.cancel(None, Some(7), now()), Err(conflict));
}

#[test]
fn each_refused_value_is_named() {
    let wrong = |items| field(place(items).unwrap_err());
    assert_eq!(wrong(vec![]), "items");
    assert_eq!(wrong(vec![item("1", 1); 101]), "items");
    assert_eq!(wrong(vec![item("1", 1), item("1", 0)]), "items[1].quantity");
    assert_eq!(wrong(vec![item("1", 1_000_001)]), "items[0].quantity");
    assert_eq!(wrong(vec![item("-0.01", 1)]), "items[0].product.price");
    assert_eq!(
        wrong(vec![item("1000000000000", 1)]),
        "items[0].product.price"
    );
    assert_eq!(
        wrong(vec![item("0.000000001", 1)]),
        "items[0].product.price"
    );
    let mut blank = item("1", 1);
    blank.product.title = "  ".into();
    assert_eq!(wrong(vec![blank]), "items[0].product.title");
    let mut control = item("1", 1);
    control.product.guid = "a\u{0}b".into();
    assert_eq!(wrong(vec![control]), "items[0].product.guid");
    for hidden in ["\u{200B}", "Bo\u{202E}ok", "Book\u{2028}"] {
        let mut unseen = item("1", 1);
        unseen.product.title = hidden.into();
        assert_eq!(wrong(vec![unseen]), "items[0].product.title");
    }
    let mut lines = item("1", 1);
    lines.product.description = Some("one\n\ttwo, and می\u{200C}خواهم".to_owned());
    assert!(place(vec![lines]).is_ok());
    let mut long = item("1", 1);
    long.product.description = Some("x".repeat(4_001));
    assert_eq!(wrong(vec![long]), "items[0].product.description");
}

#[test]
fn the_largest_order_has_an_exact_total() {
    let order = place(vec![item("999999999999.99999999", 1_000_000); 100]).unwrap();
    assert_eq!(order.total.to_string(), "99999999999999999999.00000000");
}

#[test]
fn a_clock_that_is_set_back_makes_no_change_older_than_the_last() {
    let placed = place(vec![item("1", 1)]).unwrap();
    let earlier = now() - TimeDelta::days(1);
    let confirmed = placed
        .advance(OrderStatus::Confirmed, None, earlier)
        .unwrap();
    assert_eq!(confirmed.updated_at, placed.placed_at);
}

#[test]
fn the_fields_of_every_list_are_there() {
    let order = place(vec![item("1", 1)]).unwrap();
    for name in Order::INDEXES.iter().flat_map(|fields| fields.iter()) {
        let stored = serde_json::to_value(&order).unwrap();
        assert_eq!(order.field(name).as_deref(), stored[name].as_str());
    }
}

prop_compose! {
    fn any_item()(units in 0_i64..=i64::MAX / 1_000_000_000, scale in 0_u32..=8, quantity in 1..=1_000_000) -> OrderItem {
        let mut item = item("0", quantity);
        item.product.price = Amount::new(units % 1_000_000_000_000, scale);
        item
    }
}

proptest! {
    #[test]
    fn a_total_is_the_exact_sum_in_any_order(mut items in prop::collection::vec(any_item(), 1..=100)) {
        // The expected total in hundred-millionths, computed with integers.
        let exact: i128 = items
            .iter()
            .map(|item| {
                let price = item.product.price;
                price.mantissa() * 10_i128.pow(8 - price.scale()) * i128::from(item.quantity)
            })
            .sum();
        let total = place(items.clone()).unwrap().total;
        prop_assert_eq!(total, Amount::from_i128_with_scale(exact, 8));
        items.reverse();
        prop_assert_eq!(place(items).unwrap().total, total);
    }

    #[test]
    fn any_walk_counts_every_change_and_takes_only_allowed_steps(steps in prop::collection::vec(0_usize..5, 0..12)) {
        let mut order = place(vec![item("1", 1)]).unwrap();
        for step in steps {
            let to = STATES[step];
            let tried = if to == OrderStatus::Cancelled {
                order.cancel(None, Some(order.revision), now())
            } else {
                order.advance(to, Some(order.revision), now())
            };
            match tried {
                Ok(changed) => {
                    prop_assert_eq!(changed.revision, order.revision + 1);
                    prop_assert_eq!(changed.status, to);
                    let allowed = order.status.next() == Some(to)
                        || (to == OrderStatus::Cancelled && order.status.can_be_cancelled());
                    prop_assert!(allowed);
                    prop_assert_eq!(&changed.items, &order.items);
                    order = changed;
                }
                Err(error) => {
                    let refused = OrderError::InvalidTransition { from: order.status, to };
                    prop_assert_eq!(error, refused);
                }
            }
        }
    }

    #[test]
    fn an_event_brings_the_whole_order_back(items in prop::collection::vec(any_item(), 1..=5), cancelled in any::<bool>()) {
        let mut order = place(items).unwrap();
        if cancelled {
            order = order.cancel(Some("why not".into()), None, now()).unwrap();
        }
        let event = OrderChangeEvent::of(&order, "somebody").into_cloud_event(Uuid::now_v7(), None).unwrap();
        prop_assert_eq!(OrderChangeEvent::read(&event.into()).unwrap().into_order(), order);
    }

    #[test]
    fn no_text_makes_a_price_panic(text in ".{0,40}") {
        let _ = text.parse::<tandem_model::values::Decimal>();
    }
}

fn event() -> CloudEvent {
    let order = place(vec![item("12.50", 2)]).unwrap();
    OrderChangeEvent::of(&order, "anonymous")
        .into_cloud_event(Uuid::now_v7(), None)
        .unwrap()
}

#[test]
fn a_field_of_a_later_version_is_ignored() {
    let mut event = event();
    event.data = event.data.replacen('{', "{\"giftWrap\":true,", 1);
    event.data_schema = "urn:tandem:schema:order-change-event:v2".into();
    assert!(OrderChangeEvent::read(&event.into()).is_ok());
}

#[test]
fn an_event_that_contradicts_its_envelope_is_refused() {
    let mut other = event();
    other.subject = Uuid::now_v7().to_string();
    assert!(OrderChangeEvent::read(&other.into()).is_err());
    let mut kind = event();
    kind.kind = "CustomerChangeEvent".into();
    assert!(OrderChangeEvent::read(&kind.into()).is_err());
}

#[test]
fn the_committed_json_schema_is_the_one_of_the_code() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schema/events/order-change-event.v1.json"
    );
    crate::committed::assert_same(path, &OrderChangeEvent::json_schema().unwrap());
}

#[test]
fn every_version_ever_published_is_read() {
    for sample in event_contract::samples("order-change-event") {
        let more = sample.with_body(|body| body["giftWrap"] = true.into());
        for message in [&sample.message, &more] {
            let event = tandem_model::cloudevents::read(message).unwrap();
            let read = OrderChangeEvent::read(&event)
                .unwrap_or_else(|refused| panic!("{}: {refused}", sample.name));
            let read = serde_json::to_value(read.into_order()).unwrap();
            assert_eq!(&read, sample.expected("orders"), "{}", sample.name);
        }
    }
}

#[test]
fn the_schema_breaks_no_reader_or_writer_of_its_version() {
    let schema = OrderChangeEvent::json_schema().unwrap();
    event_contract::assert_compatible("order-change-event", &schema);
}

#[test]
fn an_event_fits_its_json_schema() {
    let schema = serde_json::from_str(&OrderChangeEvent::json_schema().unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let body = serde_json::from_str(&event().data).unwrap();
    assert!(validator.is_valid(&body));
}

#[test]
fn a_sealed_event_shows_neither_address_nor_reason_and_opens_with_its_key_alone() {
    let sealer = crate::test_support::sealer();
    let (key, wrapped) = tandem_event_path::data_keys::DataKey::make(&sealer, "1");
    let customer = crate::replica::contract::customer("1", 1);
    let placement = Placement {
        customer_id: "1".into(),
        items: vec![crate::test_support::item("1", 1)],
        ship_to: Some(customer.addresses[0].clone()),
    };
    let now = chrono::Utc::now();
    let mut order = Order::place(Uuid::now_v7().to_string(), placement, now).unwrap();
    order.data_key = Some(wrapped.clone());
    let order = order.cancel(Some("Unwanted".into()), None, now).unwrap();
    let sealed = OrderChangeEvent::of(&order, "test").seal(&key).unwrap();
    let event = sealed.into_cloud_event(Uuid::now_v7(), None).unwrap();
    assert!(!event.data.contains("123 Main Street") && !event.data.contains("Unwanted"));
    let event = event.into();
    let read = || OrderChangeEvent::read(&event).unwrap();
    assert_eq!(read().changed_fields, ["cancellationReason", "status"]);
    let opened = read().open(Key::Here(&key, &wrapped)).unwrap().into_order();
    assert_eq!(opened, order);
    let forgotten = read().open(Key::Erased).unwrap().into_order();
    assert_eq!(forgotten, order.without_person());
}
