//! What holds for every config.

use mobula_spec::{Change, ServeConfig, diff};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::setup::{config, settle};

fn entry() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        Just(json!("auto")),
        Just(Value::Null),
        (1u32..50).prop_map(Value::from)
    ];
    let autoscaling = (0u32..5, 5u32..20)
        .prop_map(|(min, max)| json!({"min_replicas": min, "max_replicas": max}));
    let count = prop::option::of(number);
    let scaling = prop::option::of(autoscaling);
    let seconds = prop::option::of(0.001f64..1e6);
    let queued = prop::option::of(prop_oneof![Just(-1i64), 1i64..100]);
    let user = prop::option::of(prop::collection::btree_map("[a-c]", any::<i32>(), 0..3));
    let cpus = prop::option::of(0.0f64..64.0);
    (count, scaling, seconds, queued, user, cpus).prop_map(
        |(count, scaling, seconds, queued, user, cpus)| {
            let mut entry = json!({"name": "D"});
            if let Some(count) = &count {
                entry["num_replicas"] = count.clone();
            }
            if let Some(scaling) = scaling.filter(|_| !count.is_some_and(|n| n.is_number())) {
                entry["autoscaling_config"] = scaling;
            }
            if let Some(seconds) = seconds {
                entry["health_check_period_s"] = seconds.into();
                entry["graceful_shutdown_timeout_s"] = seconds.into();
            }
            if let Some(queued) = queued {
                entry["max_queued_requests"] = queued.into();
            }
            if let Some(user) = user {
                entry["user_config"] = json!(user);
            }
            if let Some(cpus) = cpus {
                entry["ray_actor_options"] = json!({"num_cpus": cpus});
            }
            entry
        },
    )
}

fn document() -> impl Strategy<Value = Value> {
    let locations = ["Disabled", "HeadOnly", "EveryNode"];
    let application = (prop::collection::vec(entry(), 0..3), any::<bool>());
    let applications = prop::collection::vec(application, 0..4);
    let location = prop::sample::select(locations.to_vec());
    let capacity = prop::option::of(0.0f64..=100.0);
    let logging = prop::option::of(prop::sample::select(vec!["DEBUG", "INFO"]));
    let timeout = prop::option::of(-5.0f64..1e9);
    (
        applications,
        location,
        capacity,
        logging,
        timeout,
        any::<u16>(),
    )
        .prop_map(
            |(applications, location, capacity, logging, timeout, port)| {
                let applications: Vec<Value> = applications
                    .into_iter()
                    .enumerate()
                    .map(|(n, (deployments, routed))| {
                        let route = routed.then(|| format!("/{n}"));
                        json!({
                            "name": format!("app{n}"), "route_prefix": route,
                            "import_path": "a:b", "deployments": deployments,
                        })
                    })
                    .collect();
                let logging = logging.map(|level| json!({"log_level": level}));
                json!({
                    "proxy_location": location, "target_capacity": capacity,
                    "logging_config": logging, "applications": applications,
                    "http_options": {
                        "port": port, "request_timeout_s": timeout,
                        "ssl_keyfile": "k", "ssl_certfile": "c", "ssl_keyfile_password": "secret",
                    },
                })
            },
        )
}

proptest! {
    #[test]
    fn a_config_written_out_reads_back_to_the_same(document in document()) {
        let config = config(document).config;
        let text = config.to_json().to_string();
        prop_assert_eq!(&ServeConfig::from_json(text.as_bytes()).unwrap().config, &config);
        // JSON is YAML, but for numbers such as 1e-7, which YAML 1.1 takes for words.
        if !text.contains("e-") {
            prop_assert_eq!(&ServeConfig::from_yaml(&text).unwrap().config, &config);
        }
    }

    #[test]
    fn a_deployment_does_not_differ_from_itself(entry in entry()) {
        let one = settle(entry.clone());
        let two = settle(entry);
        prop_assert_eq!(diff(&one, &two), Change::Nothing);
        prop_assert_eq!(one.process_version(), two.process_version());
    }

    #[test]
    fn a_change_costs_the_same_both_ways_and_something_if_configs_differ(
        old in entry(), new in entry(),
    ) {
        let (old, new) = (settle(old), settle(new));
        let change = diff(&old, &new);
        prop_assert_eq!(change, diff(&new, &old));
        prop_assert_eq!(change == Change::Nothing, old == new);
        prop_assert_eq!(change == Change::Replace, old.process_version() != new.process_version());
        if change == Change::Reconfigure {
            prop_assert_ne!(old.settings_version(), new.settings_version());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ServeConfig::from_json(&bytes);
        let _ = ServeConfig::from_yaml(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_config_with_one_value_exchanged_is_read_or_refused(
        document in document(), at in any::<prop::sample::Index>(), value in any::<i64>(),
    ) {
        let text = document.to_string();
        let places: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
        let at = places[at.index(places.len())];
        let exchanged = format!("{}{value},\"x\":{}", &text[..at], &text[at..]);
        if let Ok(checked) = ServeConfig::from_json(exchanged.as_bytes()) {
            let text = checked.config.to_json().to_string();
            prop_assert_eq!(ServeConfig::from_json(text.as_bytes()).unwrap().config, checked.config);
        }
    }
}

/// A float that comes back from storage a hair off would reconfigure replicas for nothing. This
/// one does, unless `serde_json` is built to read numbers exactly.
#[test]
fn floats_come_back_from_storage_exactly() {
    let text =
        r#"{"applications": [], "http_options": {"request_timeout_s": 1.2745252045451971e17}}"#;
    let config = ServeConfig::from_json(text.as_bytes()).unwrap().config;
    assert_eq!(
        config.http_options.request_timeout_s,
        Some(1.274_525_204_545_197_1e17)
    );
    let again = ServeConfig::from_json(config.to_json().to_string().as_bytes())
        .unwrap()
        .config;
    assert_eq!(again, config);
}

#[test]
fn secrets_are_not_shown() {
    let checked = config(json!({"applications": [], "http_options": {
        "ssl_keyfile": "k", "ssl_certfile": "c", "ssl_keyfile_password": "hunter2"}}));
    let http = &checked.config.http_options;
    assert!(!format!("{http:?}").contains("hunter2"));
    assert!(!serde_json::to_string(http).unwrap().contains("hunter2"));
    assert_eq!(
        http.ssl_keyfile_password.as_ref().unwrap().reveal(),
        "hunter2"
    );
}
