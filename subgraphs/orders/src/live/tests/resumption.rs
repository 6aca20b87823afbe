//! A subscriber that resumes after its cursor has no gap and hears nothing twice. Invalid cursors are refused.

use futures::{FutureExt, StreamExt};

use super::{advanced, audit, begun, error, everything, fresh, next, seen, subscribe};
use crate::{
    domain::Order,
    live::LiveError,
    test_support::{MemoryLog, World, event},
};

#[tokio::test]
async fn a_subscriber_resumes_behind_its_cursor_and_goes_over_to_live() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    let (one, two) = (fresh("1"), fresh("2"));
    world.order_log.append(0, &event(&one));
    world.order_log.append(1, &event(&two));
    let first = next(&mut updates).await;
    next(&mut updates).await;
    drop(updates);
    // While nobody listens: further changes, and all events again after a crash.
    let (one_b, two_b) = (advanced(&one), advanced(&two));
    for (partition, change) in [(0, &one), (0, &one_b), (1, &two), (1, &two_b)] {
        world.order_log.append(partition, &event(change));
    }
    audit(&world).await;
    let mut resumed = subscribe(&world, everything(), Some(&first.cursor));
    let mut missed = Vec::new();
    for _ in 0..3 {
        missed.push(seen(&next(&mut resumed).await));
    }
    missed.sort();
    // Of the two first changes, the one after the cursor; then both second ones.
    let behind = if first.order.id == one.id { &two } else { &one };
    let mut expected = vec![
        (behind.id.clone(), 1),
        (one.id.clone(), 2),
        (two.id.clone(), 2),
    ];
    expected.sort();
    assert_eq!(missed, expected);
    world.order_log.append(0, &event(&advanced(&one_b)));
    assert_eq!(seen(&next(&mut resumed).await), (one.id.clone(), 3));
    assert!(resumed.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_cursor_of_another_instance_that_is_ahead_repeats_nothing() {
    let log = MemoryLog::new(1);
    let (ahead, behind) = (World::on(log.clone()).await, World::on(log.clone()).await);
    begun(&ahead).await;
    begun(&behind).await;
    let mut updates = subscribe(&ahead, everything(), None);
    let changes: Vec<Order> = (0..50).map(|_| fresh("1")).collect();
    for change in &changes {
        log.append(0, &event(change));
    }
    let mut cursor = None;
    for change in &changes {
        let update = next(&mut updates).await;
        assert_eq!(update.order.id, change.id);
        cursor = Some(update.cursor);
    }
    let mut elsewhere = subscribe(&behind, everything(), cursor.as_deref());
    let last = fresh("1");
    log.append(0, &event(&last));
    audit(&behind).await;
    assert_eq!(seen(&next(&mut elsewhere).await), (last.id, 1));
}

#[tokio::test]
async fn resuming_under_traffic_leaves_no_gap_and_repeats_nothing() {
    let world = World::new().await;
    begun(&world).await;
    let mut updates = subscribe(&world, everything(), None);
    world.order_log.append(0, &event(&fresh("1")));
    let mut cursor = next(&mut updates).await.cursor;
    drop(updates);
    let log = world.order_log.clone();
    let traffic = tokio::spawn(async move {
        let mut expected = Vec::new();
        for n in 0..600 {
            let order = fresh("1");
            log.append(n % 3, &event(&order));
            if n % 5 == 0 {
                log.append(n % 3, &event(&order));
            }
            expected.push(order.id);
            tokio::task::yield_now().await;
        }
        expected
    });
    let auditing = async {
        tandem_backends::eventually("the audit trail holds all", async || {
            audit(&world).await;
            world.order_log.messages().len() >= 721
        })
        .await;
        audit(&world).await;
    };
    let listening = async {
        let mut received = Vec::new();
        while received.len() < 600 {
            let mut updates = subscribe(&world, everything(), Some(&cursor));
            for _ in 0..47.min(600 - received.len()) {
                let update = next(&mut updates).await;
                cursor = update.cursor;
                received.push(update.order.id.clone());
            }
        }
        received
    };
    let ((), mut received) = tokio::join!(auditing, listening);
    let mut expected = traffic.await.unwrap();
    expected.sort();
    received.sort();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn a_cursor_that_is_none_is_refused() {
    let world = World::new().await;
    begun(&world).await;
    let feed = &world.backing.live.orders;
    for text in ["", "nonsense", "e30", "W10", "eyIwIjotMX0"] {
        assert!(
            matches!(
                feed.subscribe(everything(), Some(text)),
                Err(LiveError::BadCursor(_))
            ),
            "{text}"
        );
    }
    // `{"0":5}` for an empty log, `{"9":0}` for a log with three partitions.
    for text in ["eyIwIjo1fQ", "eyI5IjowfQ"] {
        let mut updates = subscribe(&world, everything(), Some(text));
        assert!(
            matches!(error(&mut updates).await, LiveError::BadCursor(_)),
            "{text}"
        );
        assert!(updates.next().await.is_none());
    }
}
