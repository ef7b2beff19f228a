//! Classes and tenants.

use super::*;

/// A queue with one slot, which is taken.
fn ordered(queued_max: i64) -> (Test, ReplicaKey) {
    let mut queue = queue(1, queued_max, 1);
    queue.set_ordered(true);
    let (key, _, _) = started(queue.admit(Wish::default(), Dice::new(0), || 0));
    (queue, key)
}

fn released(queue: &mut Test, key: ReplicaKey) -> Vec<u32> {
    let started = queue.release(key);
    started.iter().map(|start| start.waiter).collect()
}

#[test]
fn an_ordered_queue_starts_by_class_and_in_turns_and_one_that_is_not_by_age() {
    for (is_ordered, wanted) in [(true, [4, 1, 3, 2]), (false, [1, 2, 3, 4])] {
        let (mut queue, key) = ordered(-1);
        let wishes = [
            ranked(1, "many"),
            ranked(1, "many"),
            ranked(1, "few"),
            ranked(0, "many"),
        ];
        for (waiter, wish) in (1..).zip(wishes) {
            queue.admit(wish, Dice::new(0), || waiter);
        }
        // What waits already is put in order, or out of it.
        queue.set_ordered(!is_ordered);
        queue.set_ordered(is_ordered);
        let started: Vec<u32> = (0..4).flat_map(|_| released(&mut queue, key)).collect();
        assert_eq!(started, wanted, "ordered: {is_ordered}");
    }
}

#[test]
fn one_that_a_replica_refused_keeps_its_place_in_an_ordered_queue() {
    let (mut queue, key) = ordered(-1);
    queue.admit(ranked(0, "high"), Dice::new(0), || 1);
    let refused = queue.refused(key, 0, Dice::new(0), || 9);
    assert_eq!(refused.admission, Admission::Wait(0));
    let started = queue.resume(key, Dice::new(0));
    assert_eq!(started[0].waiter, 9);
    assert_eq!(released(&mut queue, key), [1]);
}

#[test]
fn a_full_queue_is_not_one_tenants_alone() {
    let (mut queue, _) = ordered(3);
    for waiter in 1..=3 {
        queue.admit(ranked(1, "many"), Dice::new(0), || waiter);
    }
    let few = ranked(1, "few");
    let full = Refusal::Full { queued: 3, max: 3 };
    assert_eq!(
        queue.admit(few, Dice::new(0), || 4),
        Admission::Refuse(full)
    );
    // The newest of whoever has the most goes.
    assert_eq!(queue.make_room(few.rank), Some(3));
    assert_eq!(queue.admit(few, Dice::new(0), || 4), Admission::Wait(4));
    assert_eq!(queue.make_room(few.rank), None, "two to one is fair");
    let high = ranked(0, "many");
    assert_eq!(
        queue.make_room(high.rank),
        Some(2),
        "a lower class makes room"
    );
    assert_eq!(queue.make_room(ranked(2, "few").rank), None);
    queue.set_ordered(false);
    assert_eq!(queue.make_room(high.rank), None);
}
