//! Any bytes are read or refused, as JSON and as YAML, and what is accepted reads back to the
//! same and resolves or is refused, without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula_spec::{Checked, ConfigErrors, DeploymentDefaults, ServeConfig, resolve};

fuzz_target!(|bytes: &[u8]| {
    check(ServeConfig::from_json(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        check(ServeConfig::from_yaml(text));
    }
});

fn check(read: Result<Checked, ConfigErrors>) {
    let config = match read {
        Ok(checked) => checked.config,
        Err(errors) => {
            assert!(!errors.to_string().is_empty());
            return;
        }
    };
    let text = config.to_json().to_string();
    let again = ServeConfig::from_json(text.as_bytes());
    assert_eq!(again.map(|checked| checked.config), Ok(config.clone()));
    for app in &config.applications {
        for entry in &app.deployments {
            let code = DeploymentDefaults { name: entry.name.clone(), ..Default::default() };
            if let Ok(settled) = resolve(&code, Some(entry), app) {
                assert!(serde_json::to_string(&settled).is_ok());
            }
        }
    }
}
