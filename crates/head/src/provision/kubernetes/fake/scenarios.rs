//! tests/kubernetes/scenarios.yaml against the fake.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::cluster::{Cluster, groups};

const FILE: &str = include_str!("../../../../../../tests/kubernetes/scenarios.yaml");

#[derive(Deserialize)]
struct Scenario {
    name: String,
    group: Value,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(rename = "do")]
    does: Map<String, Value>,
    #[serde(default)]
    expect: Map<String, Value>,
}

#[tokio::test(start_paused = true)]
async fn every_scenario_of_the_real_control_plane_runs_on_the_fake_too() {
    let scenarios: Vec<Scenario> = serde_saphyr::from_str(FILE).unwrap();
    assert!(!scenarios.is_empty());
    for scenario in &scenarios {
        run(scenario).await;
    }
}

async fn run(scenario: &Scenario) {
    let mut cluster = Cluster::new();
    cluster.start_head(groups(&scenario.group, "1")).await;
    for (index, step) in scenario.steps.iter().enumerate() {
        let place = format!("{}, step {}", scenario.name, index + 1);
        let before = cluster.pods();
        let victim = before.first().cloned().unwrap_or_default();
        let never = step.expect.get("never").and_then(Value::as_str);
        let made = |cluster: &Cluster| cluster.api.state().made(never.unwrap_or_default());
        let made_before = made(&cluster);
        for (what, value) in &step.does {
            happens(&mut cluster, scenario, what, value, &victim).await;
        }
        let waits = step.expect.contains_key("message");
        cluster
            .until(&place, |cluster| {
                let mut expected = step.expect.iter();
                let all =
                    expected.all(|(what, value)| is_so(cluster, what, value, &before, &victim));
                all && (waits || cluster.is_served())
            })
            .await;
        assert_eq!(made(&cluster), made_before, "{place}: never {never:?}");
        let wrongs = &cluster.api.state().wrongs;
        assert!(wrongs.is_empty(), "{place}: {wrongs:?}");
    }
}

async fn happens(
    cluster: &mut Cluster,
    scenario: &Scenario,
    what: &str,
    value: &Value,
    victim: &str,
) {
    let number = || value.as_u64().unwrap() as usize;
    match what {
        "replicas" => match value.as_object() {
            None => cluster.want(number()),
            Some(each) => cluster.want_each(each.iter().map(|(name, wanted)| {
                let wanted = wanted.as_u64().unwrap() as usize;
                (name.clone(), wanted)
            })),
        },
        "quota" => cluster.api.state().quota = Some(number()),
        "level" => value
            .as_str()
            .unwrap()
            .clone_into(&mut cluster.api.state().level),
        "template" => {
            let groups = groups(&scenario.group, value.as_str().unwrap());
            cluster.start_head(groups).await;
        }
        "head" => cluster.start_head(groups(&scenario.group, "1")).await,
        "evict" => cluster.evict(victim),
        "delete" => cluster.delete(victim),
        "kill" => cluster.kill(victim),
        other => panic!("do: {other} is unknown"),
    }
}

fn is_so(cluster: &Cluster, what: &str, value: &Value, before: &[String], victim: &str) -> bool {
    let pods = cluster.pods();
    match what {
        "pods" => value.as_u64() == Some(pods.len() as u64),
        "versions" => *value == Value::from(cluster.versions()),
        "message" => cluster.trouble().contains(value.as_str().unwrap()),
        "event" => {
            let state = cluster.api.state();
            let words = value.as_str().unwrap();
            state.notes.iter().any(|note| note.contains(words))
        }
        "kept" => before.iter().all(|pod| pods.contains(pod)),
        // Looked at when all the rest is so.
        "never" => true,
        "gone" => !pods.iter().any(|pod| pod == victim),
        other => panic!("expect: {other} is unknown"),
    }
}
