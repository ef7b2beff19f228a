//! Manifests as users have them, and what comes of each.

use insta::assert_snapshot;

use super::*;

fn shown(manifest: &str) -> String {
    let imported = translate(rayservice_of(manifest, None).unwrap()).unwrap();
    let (values, serve) = texts(&imported).unwrap();
    let notes: String = imported
        .notes
        .iter()
        .map(|note| format!("note: {note}\n"))
        .collect();
    format!("{values}---\n{serve}---\n{notes}")
}

fn refusal(manifest: &str, name: Option<&str>) -> String {
    let imported = rayservice_of(manifest, name).and_then(translate);
    format!("{:#}", imported.err().unwrap())
}

#[test]
fn an_embedder_and_a_reranker_become_the_rag_application() {
    assert_snapshot!(shown(include_str!("testdata/embedder-reranker.yaml")));
}

#[test]
fn a_classifier_on_gpus_keeps_its_path_and_its_autoscaling() {
    assert_snapshot!(shown(include_str!("testdata/classifier-gpu.yaml")));
}

#[test]
fn python_code_that_is_not_known_is_kept_and_named() {
    assert_snapshot!(shown(include_str!("testdata/python.yaml")));
}

#[test]
fn what_is_no_rayservice_is_refused_with_what_is_missing() {
    assert_eq!(
        refusal("kind: RayCluster\nmetadata: {name: a}\n", None),
        "no document is a RayService (`kind: RayService`)"
    );
    let two = "kind: RayService\nmetadata: {name: a}\n---\nkind: RayService\nmetadata: {name: b}\n";
    assert_eq!(
        refusal(two, None),
        "several documents are a RayService; choose with --name: a, b"
    );
    assert_eq!(
        refusal(two, Some("c")),
        "no document is a RayService named 'c'"
    );
    assert_eq!(
        refusal(two, Some("b")),
        "spec.serveConfigV2 is missing: there is no Serve config to import"
    );
    let list = "kind: RayService\nmetadata: {name: a}\nspec: {serveConfigV2: 'applications: []', rayClusterConfig: {headGroupSpec: {template: {spec: {containers: [{name: h}]}}}, workerGroupSpecs: 3}}";
    assert_eq!(
        refusal(list, None),
        "spec.rayClusterConfig.workerGroupSpecs must be a list"
    );
    let config = "kind: RayService\nmetadata: {name: a}\nspec: {serveConfigV2: '{'}";
    assert!(refusal(config, None).starts_with("spec.serveConfigV2: "));
}

#[test]
fn a_token_in_clear_text_is_neither_carried_over_nor_shown() {
    let manifest = include_str!("testdata/python.yaml");
    assert!(manifest.contains("hf_in_clear_text"));
    assert!(!shown(manifest).contains("hf_in_clear_text"));
}

#[test]
fn files_that_are_there_are_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "values", "serve").unwrap();
    let refused = write(dir.path(), "other", "other").unwrap_err().to_string();
    assert!(
        refused.contains("values.yaml is there already"),
        "{refused}"
    );
    let kept = std::fs::read_to_string(dir.path().join("serve.yaml")).unwrap();
    assert_eq!(kept, "serve");
}
