//! How a new template takes over, and how one that does not come to life is taken back.

use std::collections::BTreeSet;

use super::action::Action;
use super::generations::{FAILURES_MAX, STUCK_MS_MAX};
use super::groups::{Group, Strategy, parse};
use super::model::{FILE, Model, cpus, texts};
use super::pods::{Stage, Wait};
use super::verdicts::Verdicts;

/// The groups with the images and the min of that many pods.
fn file(image: &str, min: u32, surge: u32) -> Vec<Group> {
    let file = FILE.replace("image: one", &format!("image: {image}"));
    let mut groups = parse(&file).unwrap();
    groups.truncate(1);
    groups[0].min = min;
    groups[0].surge = surge;
    groups
}

fn blue_green(image: &str, min: u32) -> Vec<Group> {
    let mut groups = file(image, min, 1);
    groups[0].strategy = Strategy::BlueGreen { bake_ms: 30_000 };
    groups
}

/// Three busy pods of the first template; then the head starts with the other file.
fn rolling_to(wanted: Vec<Group>) -> (Model, BTreeSet<String>) {
    let mut model = Model::new();
    model.wanted = file("one", 3, 1);
    model.groups = model.wanted.clone();
    model.settle();
    model.fill();
    let old = model.pods.keys().cloned().collect();
    model.restart_with(wanted);
    (model, old)
}

/// A roll-out that was ended for want of its image.
fn given_up(image: &str) -> (Model, BTreeSet<String>) {
    let (mut model, old) = rolling_to(file(image, 3, 1));
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    model.stick(&bad, "ErrImagePull");
    model.pass();
    model.after(STUCK_MS_MAX).pass();
    model.come_to_rest();
    assert!(model.why().contains("ErrImagePull"), "{}", model.why());
    (model, old)
}

impl Model {
    fn new_pods(&self, old: &BTreeSet<String>) -> Vec<String> {
        let new = self.pods.keys().filter(|uid| !old.contains(*uid));
        new.cloned().collect()
    }

    /// Passes and moves replicas until nothing more is planned.
    fn come_to_rest(&mut self) {
        for _ in 0..100 {
            let planned = self.after(1_000).pass();
            self.start_all();
            self.move_replicas();
            if planned.is_empty() && self.pass().is_empty() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.pass());
    }

    fn why(&self) -> String {
        let aborted = self.generations.aborted().get("small");
        aborted.map_or_else(String::new, |aborted| aborted.why.clone())
    }

    fn is_served_by(&self, pods: &BTreeSet<String>) -> bool {
        let workers = &self.demand.workers;
        pods.iter().all(|uid| {
            let worker = workers.get(uid);
            worker.is_some_and(|worker| !worker.draining && worker.replicas > 0)
        })
    }
}

#[test]
fn as_many_pods_as_the_surge_says_are_replaced_at_a_time() {
    let (mut model, old) = rolling_to(file("two", 3, 2));
    model.pass();
    assert_eq!(model.new_pods(&old).len(), 2);
    assert!(
        model.is_served_by(&old),
        "nothing goes before they are there"
    );
    model.start_all();
    model.pass();
    let draining = model.demand.workers.values().filter(|w| w.draining);
    assert_eq!(draining.count(), 2);
    model.come_to_rest();
    assert!(model.pods.keys().all(|uid| !old.contains(uid)));
    assert_eq!(model.pods.len(), 3);
}

#[test]
fn replicas_of_one_pod_that_spread_over_two_new_ones_leave_no_pod_too_many() {
    let (mut model, old) = rolling_to(file("two", 3, 2));
    model.pass();
    model.start_all();
    let (gone, _) = model.pods.pop_first().unwrap();
    model.demand.workers.remove(&gone);
    for uid in model.new_pods(&old) {
        model.demand.workers.get_mut(&uid).unwrap().replicas = 1;
    }
    let planned = model.pass();
    assert_eq!(planned.len(), 1, "{planned:?}");
    assert!(matches!(&planned[0].action, Action::Drain { uid, .. } if old.contains(uid)));
}

#[test]
fn a_template_whose_image_does_not_come_is_taken_back_and_the_pods_before_stay() {
    let (mut model, old) = rolling_to(file("two", 3, 2));
    model.pass();
    for uid in model.new_pods(&old) {
        model.stick(&uid, "ErrImagePull: no such image");
    }
    model.pass();
    assert_eq!(
        texts(&model.after(STUCK_MS_MAX - 1).pass()),
        Vec::<String>::new()
    );
    model.after(1).pass();
    assert!(
        model.why().contains("ErrImagePull: no such image"),
        "{}",
        model.why()
    );
    model.come_to_rest();
    assert_eq!(model.pods.keys().cloned().collect::<BTreeSet<_>>(), old);
    assert!(model.is_served_by(&old));
    for _ in 0..20 {
        let planned = model.after(60_000).pass();
        assert_eq!(
            texts(&planned),
            Vec::<String>::new(),
            "it is not tried again"
        );
    }
}

#[test]
fn after_a_template_was_taken_back_new_pods_are_made_from_the_one_before() {
    let (mut model, old) = rolling_to(file("two", 3, 1));
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    model.stick(&bad, "InvalidImageName");
    model.pass();
    model.after(STUCK_MS_MAX).pass();
    model.come_to_rest();
    model.demand.unplaced = vec![cpus(1.0)];
    model.pass();
    let new = model.new_pods(&old).remove(0);
    let first = old.iter().next().unwrap();
    assert_eq!(model.pods[&new].generation, model.pods[first].generation);
}

#[test]
fn a_template_whose_worker_ends_again_and_again_is_taken_back_and_replicas_come_home() {
    let (mut model, old) = rolling_to(file("two", 3, 1));
    model.pass();
    model.start_all();
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    // It joined, one of the old ones is on its way out, and then it crashes.
    model.demand.workers.remove(&bad);
    let pod = model.pods.get_mut(&bad).unwrap();
    pod.restarts = FAILURES_MAX;
    pod.waits = Some(Wait {
        text: "CrashLoopBackOff".to_owned(),
        is_stuck: false,
    });
    model.pass();
    assert!(
        model
            .why()
            .contains("was restarted 3 times (CrashLoopBackOff)")
    );
    model.come_to_rest();
    let generation = &model.groups[0].template.generation;
    assert_eq!(model.pods.len(), 3);
    assert!(model.pods.values().all(|pod| pod.generation == *generation));
    let busy = model.demand.workers.values().filter(|w| w.replicas > 0);
    assert_eq!(busy.count(), 3, "no replica was lost");
}

#[test]
fn a_template_that_is_refused_again_and_again_is_taken_back() {
    let (mut model, old) = rolling_to(file("two", 3, 1));
    let generation = model.groups[0].template.generation.clone();
    for _ in 0..FAILURES_MAX {
        assert_eq!(model.why(), "");
        let why = "violates PodSecurity".to_owned();
        model.ledger.failed("small", &generation, why);
        model
            .ledger
            .refused("p", "small", "violates".to_owned(), model.now_ms);
        model.pass();
    }
    assert_eq!(model.why(), "violates PodSecurity");
    assert!(model.is_served_by(&old));
}

#[test]
fn a_template_whose_pods_find_no_node_is_taken_back_when_a_start_takes_no_longer() {
    let (mut model, old) = rolling_to(file("two", 3, 1));
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    model.pods.get_mut(&bad).unwrap().stage = Stage::Unschedulable;
    model.pass();
    model.after(model.groups[0].startup_ms).pass();
    assert!(
        model.why().contains("no node has room for it"),
        "{}",
        model.why()
    );
}

#[test]
fn pods_in_which_replicas_fail_that_run_elsewhere_end_the_roll_out() {
    let (mut model, old) = rolling_to(file("two", 3, 1));
    model.pass();
    model.start_all();
    let bad = model.new_pods(&old).remove(0);
    model.demand.workers.get_mut(&bad).unwrap().failures = FAILURES_MAX;
    model.pass();
    assert!(
        model
            .why()
            .contains("replicas that run elsewhere fail in it")
    );
}

#[test]
fn the_failure_of_one_pod_among_those_that_work_is_not_the_templates() {
    let (mut model, _) = rolling_to(file("two", 3, 1));
    let generation = model.groups[0].template.generation.clone();
    for _ in 0..2 * FAILURES_MAX {
        model
            .ledger
            .failed("small", &generation, "a bad node".to_owned());
        model.pass();
        model.start_all();
        model.move_replicas();
    }
    model.come_to_rest();
    assert_eq!(model.why(), "");
}

#[test]
fn a_first_template_has_nothing_to_go_back_to() {
    let mut model = Model::new();
    model.pass();
    for uid in model.new_pods(&BTreeSet::new()) {
        model.stick(&uid, "ErrImagePull");
    }
    model.pass();
    model.after(2 * STUCK_MS_MAX).pass();
    assert_eq!(model.why(), "");
}

#[test]
fn a_good_template_after_a_bad_one_takes_over() {
    let (mut model, old) = rolling_to(file("bad", 3, 1));
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    model.stick(&bad, "ErrImagePull");
    model.pass();
    model.after(STUCK_MS_MAX).pass();
    model.restart_with(file("good", 3, 1));
    model.come_to_rest();
    let generation = &model.wanted[0].template.generation;
    assert_eq!(model.pods.len(), 3);
    assert!(model.pods.values().all(|pod| pod.generation == *generation));
}

#[test]
fn a_template_that_was_taken_back_is_not_tried_by_the_next_head() {
    let (mut model, old) = given_up("bad");
    let why = model.why();
    model.take_over_with(file("bad", 3, 1));
    model.come_to_rest();
    assert_eq!(model.why(), why);
    assert_eq!(model.new_pods(&old), Vec::<String>::new());
    assert!(model.is_served_by(&old));
}

#[test]
fn the_next_head_makes_pods_of_the_template_before_when_none_of_it_is_left() {
    let (mut model, old) = given_up("bad");
    let before = model.groups[0].template.clone();
    model.pods.clear();
    model.demand.workers.clear();
    model.take_over_with(file("bad", 3, 1));
    model.come_to_rest();
    assert_eq!(model.new_pods(&old).len(), 3);
    assert!(
        model
            .pods
            .values()
            .all(|pod| pod.generation == before.generation)
    );
    assert_eq!(model.groups[0].template, before);
}

#[test]
fn a_template_that_comes_back_after_another_one_is_tried_again() {
    let (mut model, _) = given_up("bad");
    model.take_over_with(file("one", 3, 1));
    assert_eq!(
        model.generations.verdicts(),
        Verdicts::new(),
        "nothing is kept of it"
    );
    model.take_over_with(file("bad", 3, 1));
    assert_eq!(model.why(), "");
}

#[test]
fn what_is_kept_of_a_roll_out_and_cannot_be_read_is_no_verdict() {
    let (mut model, _) = given_up("bad");
    let whole = model.generations.verdicts().remove("small").unwrap();
    for text in [
        "",
        "{}",
        "none of ours",
        &whole.replace("containers", "boxes"),
    ] {
        model.restart_with(file("bad", 3, 1));
        let kept = Verdicts::from([("small".to_owned(), text.to_owned())]);
        model.generations.recall(&model.wanted, &kept);
        assert_eq!(model.why(), "", "{text}");
    }
}

#[test]
fn blue_green_brings_a_whole_second_set_then_moves_all_then_keeps_the_first_for_a_while() {
    let (mut model, old) = rolling_to(blue_green("two", 3));
    model.pass();
    assert_eq!(model.new_pods(&old).len(), 3);
    let mut new = model.new_pods(&old);
    let last = new.pop().unwrap();
    for uid in &new {
        model.start(uid);
    }
    assert_eq!(texts(&model.pass()), Vec::<String>::new(), "one is missing");
    assert!(model.is_served_by(&old));
    model.start(&last);
    model.pass();
    assert!(old.iter().all(|uid| model.ledger.is_resting(uid)));
    model.move_replicas();
    model.pass();
    let planned = model.after(29_999).pass();
    assert_eq!(texts(&planned), Vec::<String>::new(), "all six are kept");
    assert_eq!(model.pods.len(), 6);
    model.after(1).pass();
    model.come_to_rest();
    assert_eq!(model.new_pods(&old).len(), 3);
    assert_eq!(model.pods.len(), 3);
}

#[test]
fn blue_green_goes_back_to_the_pods_that_were_kept() {
    let (mut model, old) = rolling_to(blue_green("two", 3));
    model.pass();
    model.start_all();
    model.pass();
    model.move_replicas();
    model.pass();
    let bad = model.new_pods(&old).remove(0);
    model.pods.get_mut(&bad).unwrap().restarts = FAILURES_MAX;
    model.after(10_000).pass();
    assert!(
        model.why().contains("was restarted 3 times"),
        "{}",
        model.why()
    );
    model.come_to_rest();
    assert_eq!(model.pods.keys().cloned().collect::<BTreeSet<_>>(), old);
    assert!(model.is_served_by(&old));
}

#[test]
fn a_cordoned_node_does_not_bring_a_second_set_of_pods() {
    let (mut model, old) = rolling_to(blue_green("one", 3));
    let first = old.iter().next().unwrap();
    model.pods.get_mut(first).unwrap().cordoned = true;
    model.pass();
    assert_eq!(model.new_pods(&old).len(), 1);
}
