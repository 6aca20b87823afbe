//! A subscription to orders that begins now: each change once, in order, and only the wanted ones. It ends when it is
//! too slow, and with the service.

use chrono::TimeDelta;
use futures::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::{
    advanced, audit, begun, error, everything, fresh, next, order_of_age, seen, subscribe,
};
use crate::{
    domain::Order,
    live::{FeedRequest, Interest, LiveError, inbox::QUEUE},
    test_support::{LIMIT, MemoryLog, World, event},
};

#[tokio::test]
async fn every_change_comes_once_and_in_order() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let placed = fresh("1");
    let confirmed = advanced(&placed);
    let shipped = advanced(&confirmed);
    // A relay that crashed after the second event publishes again from the first one.
    for change in [&placed, &confirmed, &placed, &confirmed, &shipped] {
        world.order_log.append(0, &event(change));
    }
    for revision in 1..=3 {
        assert_eq!(
            seen(&next(&mut updates).await),
            (placed.id.clone(), revision)
        );
    }
    assert!(updates.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_subscription_that_waits_takes_little_room() {
    let world = World::new().await;
    begun(&world).await;
    let request = FeedRequest {
        heartbeat: Some(LIMIT),
        ..FeedRequest::default()
    };
    let orders = &world.backing.live.orders;
    let items = orders.follow(everything(), request).unwrap();
    // There may be ten thousand subscriptions. State that is used once, or that is the same for all, belongs into a box
    // or behind a pointer.
    let size = std::mem::size_of_val(&items);
    assert!(size <= 1_024, "{size} bytes");
}

#[tokio::test]
async fn only_what_is_wanted_comes() {
    let world = World::new().await;
    begun(&world).await;
    let (one, other) = (fresh("1"), fresh("2"));
    let of = |customer: Option<&str>, order: Option<&Order>| Interest {
        customer_id: customer.map(str::to_owned),
        order_id: order.map(|order| order.id.clone()),
    };
    let mut of_customer = subscribe(&world, of(Some("2"), None), None);
    let mut of_order = subscribe(&world, of(None, Some(&one)), None);
    let mut of_both = subscribe(&world, of(Some("2"), Some(&other)), None);
    let mut of_neither = subscribe(&world, of(Some("2"), Some(&one)), None);
    for change in [&one, &other, &advanced(&one)] {
        world.order_log.append(1, &event(change));
    }
    assert_eq!(seen(&next(&mut of_customer).await), (other.id.clone(), 1));
    assert_eq!(seen(&next(&mut of_order).await), (one.id.clone(), 1));
    assert_eq!(seen(&next(&mut of_order).await), (one.id.clone(), 2));
    assert_eq!(seen(&next(&mut of_both).await), (other.id.clone(), 1));
    assert!(of_neither.next().now_or_never().is_none());
}

#[tokio::test]
async fn who_subscribes_while_the_log_is_away_hears_what_was_appended_meanwhile() {
    let log = MemoryLog::new(2);
    log.set_away(true);
    let old = order_of_age("1", TimeDelta::hours(1));
    log.append(0, &event(&old));
    let world = World::on(log.clone()).await;
    let mut updates = subscribe(&world, everything(), None);
    assert!(updates.next().now_or_never().is_none());
    let placed = order_of_age("1", TimeDelta::zero());
    log.append(0, &event(&placed));
    audit(&world).await;
    log.set_away(false);
    assert_eq!(seen(&next(&mut updates).await), (placed.id.clone(), 1));
    log.append(0, &event(&advanced(&placed)));
    assert_eq!(seen(&next(&mut updates).await), (placed.id, 2));
}

#[tokio::test]
async fn a_slow_subscriber_is_told_where_to_resume() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let last = QUEUE + 50;
    for n in 0..last {
        let order = fresh(&n.to_string());
        world.order_log.append(0, &event(&order));
    }
    // A subscriber of one order that gets its change shows that the feed has passed all earlier changes.
    let marker = fresh("marker");
    let interest = Interest {
        order_id: Some(marker.id.clone()),
        customer_id: None,
    };
    let mut witness = subscribe(&world, interest, None);
    world.order_log.append(0, &event(&marker));
    assert_eq!(next(&mut witness).await.order.id, marker.id);
    for n in 0..QUEUE {
        assert_eq!(next(&mut updates).await.order.customer_id, n.to_string());
    }
    let LiveError::Lagged {
        cursor: Some(cursor),
    } = error(&mut updates).await
    else {
        panic!("not told to have lagged");
    };
    assert!(updates.next().await.is_none());
    audit(&world).await;
    let mut resumed = subscribe(&world, everything(), Some(&cursor));
    for n in QUEUE..last {
        assert_eq!(next(&mut resumed).await.order.customer_id, n.to_string());
    }
    assert_eq!(next(&mut resumed).await.order.id, marker.id);
}

#[tokio::test]
async fn subscriptions_end_with_the_service() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let mut customers = world.backing.live.customers.subscribe("1").await.boxed();
    world.shutdown.request("test");
    assert!(timeout(LIMIT, updates.next()).await.unwrap().is_none());
    assert!(timeout(LIMIT, customers.next()).await.unwrap().is_none());
    let mut late = subscribe(&world, everything(), None);
    assert!(timeout(LIMIT, late.next()).await.unwrap().is_none());
}
