//! Whole files: malformed ones with the exact text that their author reads, and good ones.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use mobula_spec::{Checked, ServeConfig, Warning};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn good(name: &str) -> Checked {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/good")
        .join(name);
    ServeConfig::from_yaml(&fs::read_to_string(path).unwrap()).unwrap()
}

fn lines(warnings: &[Warning]) -> String {
    warnings
        .iter()
        .map(|warning| format!("{warning}\n"))
        .collect()
}

#[test]
fn malformed_files_say_where_what_is_wrong_and_what_is_allowed() {
    let files = files("malformed");
    assert!(files.len() >= 10);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let errors = ServeConfig::from_yaml(&fs::read_to_string(&file).unwrap()).unwrap_err();
        insta::assert_snapshot!(name, errors.to_string());
    }
}

#[test]
fn no_message_repeats_a_password() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed/08_where_code_comes_from.yaml");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains("secret"));
    assert!(
        !ServeConfig::from_yaml(&text)
            .unwrap_err()
            .to_string()
            .contains("secret")
    );
}

#[test]
fn a_good_file_warns_of_what_does_not_act_yet_and_of_nothing_else() {
    insta::assert_snapshot!("good_rag", lines(&good("rag.yaml").warnings));
}

#[test]
fn old_names_and_late_failures_are_warned_of_where_they_stand() {
    insta::assert_snapshot!("good_legacy", lines(&good("legacy.yaml").warnings));
}

#[test]
fn yaml_and_json_of_the_same_config_decode_to_the_same() {
    for file in files("good") {
        let yaml = ServeConfig::from_yaml(&fs::read_to_string(&file).unwrap())
            .unwrap()
            .config;
        let json = serde_json::to_vec(&yaml.to_json()).unwrap();
        assert_eq!(
            ServeConfig::from_json(&json).unwrap().config,
            yaml,
            "{}",
            file.display()
        );
    }
}

#[test]
fn the_examples_of_the_repository_are_accepted_without_a_warning() {
    let files = files("../../../examples");
    let configs: Vec<_> = files
        .iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    assert!(!configs.is_empty());
    for file in configs {
        let checked = ServeConfig::from_yaml(&fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(checked.warnings, [], "{}", file.display());
    }
}
