use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Node, ConfigErrors> {
    read_yaml(text, &mut Findings::default())
}

fn value(text: &str) -> serde_json::Value {
    read(text).unwrap().to_json()
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn every_value_knows_its_line() {
    let node = read("# a comment\na: 1\nb:\n  - x\n  - c: 2\n").unwrap();
    let Data::Object(entries) = &node.data else {
        panic!("an object was read")
    };
    assert_eq!((entries[0].line, entries[0].node.line), (Some(2), Some(2)));
    assert_eq!(entries[1].line, Some(3));
    let Data::List(items) = &entries[1].node.data else {
        panic!("a list was read")
    };
    assert_eq!((items[0].line, items[1].line), (Some(4), Some(5)));
}

#[test]
fn aliases_are_written_out() {
    assert_eq!(
        value("a: &x {n: 1}\nb: *x"),
        json!({"a": {"n": 1}, "b": {"n": 1}})
    );
}

#[test]
fn merge_keys_give_way_to_own_keys_and_to_earlier_objects() {
    let text = "base: &b {n: 1, m: 1}\nmore: &c {m: 2, k: 2}\nx:\n  <<: [*b, *c]\n  n: 9\n";
    assert_eq!(value(text)["x"], json!({"n": 9, "m": 1, "k": 2}));
    assert_eq!(
        value("a: &a {n: 1}\nx: {n: 2, <<: *a}")["x"],
        json!({"n": 2})
    );
    assert_eq!(value("'<<': 1"), json!({"<<": 1}));
    assert!(refusal("a:\n  <<: 5").contains("takes an object or a list of objects"));
}

#[test]
fn keys_that_are_no_strings_become_strings() {
    assert_eq!(
        value("1: a\non: b\n~: c\n1.5: d"),
        json!({"1": "a", "true": "b", "null": "c", "1.5": "d"})
    );
    assert!(refusal("{[1]: a}").contains("is no key"));
    assert!(refusal("? {a: 1}\n: b").contains("is no key"));
}

#[test]
fn of_a_key_given_twice_the_last_value_counts_and_a_warning_names_the_line() {
    let mut findings = Findings::default();
    let node = read_yaml("a: 1\nb: 2\na: 3\n", &mut findings).unwrap();
    assert_eq!(node.to_json(), json!({"a": 3, "b": 2}));
    let warnings = findings.finish().unwrap();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].line, Some(3));
}

#[test]
fn a_merged_key_that_is_overridden_is_not_given_twice() {
    let mut findings = Findings::default();
    read_yaml("a: &a {n: 1}\nx:\n  <<: *a\n  n: 2\n", &mut findings).unwrap();
    assert_eq!(findings.finish().unwrap(), []);
}

#[test]
fn quoted_words_and_blocks_stay_strings() {
    assert_eq!(
        value("a: 'yes'\nb: \"1\"\nc: |\n  5\nd: !!str 5\ne: ! 5"),
        json!({
            "a": "yes", "b": "1", "c": "5\n", "d": "5", "e": "5"
        })
    );
}

#[test]
fn foreign_tags_are_refused() {
    assert!(refusal("a: !!python/object:os.system x").contains("not known here"));
    assert!(refusal("a: !secret x").contains("not allowed"));
    assert!(refusal("a: !!set {x}").contains("not allowed"));
}

#[test]
fn one_document_is_allowed_and_needed() {
    assert!(refusal("a: 1\n---\nb: 2\n").starts_with("line 2: a second document"));
    assert!(refusal("").contains("empty"));
    assert!(refusal("# nothing\n").contains("empty"));
    assert_eq!(value("---\na: 1\n...\n"), json!({"a": 1}));
}

#[test]
fn deep_documents_are_refused_before_the_stack_ends() {
    let flow = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(refusal(&flow).contains("deeper than 64 levels"));
    // Here the parser's own limit comes first.
    assert!(refusal(&"[".repeat(500_000)).contains("not usable YAML"));
    let block: String = (0..100).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(refusal(&block).contains("deeper than 64 levels"));
    // Sixty-one levels and an alias of three.
    let text = format!("- &a [[[1]]]\n- {}*a{}\n", "[".repeat(61), "]".repeat(61));
    assert!(refusal(&text).contains("deeper than 64 levels"));
    let text = format!("- &a [[[1]]]\n- {}*a{}\n", "[".repeat(60), "]".repeat(60));
    read(&text).unwrap();
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..20 {
        let names = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{names}]\n"));
    }
    assert!(refusal(&text).contains("more than 200000 values with aliases written out"));
}

#[test]
fn an_alias_bomb_of_one_long_string_is_refused() {
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1_000_000),
        "*a, ".repeat(100)
    );
    assert!(refusal(&text).contains("bytes with aliases written out"));
}

#[test]
fn an_alias_inside_of_what_it_names_is_refused() {
    assert!(refusal("a: &a [*a]").contains("inside of the value that it names"));
}

#[test]
fn broken_text_is_refused_with_its_line() {
    assert!(refusal("a: 1\nb: [1, 2\nc: 3\n").starts_with("line "));
    assert!(refusal("a: \"open\nb: 2\n").contains("line "));
    assert!(refusal("a: 1\nb: @c\n").starts_with("line 2"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn text_of_yaml_signs_is_read_or_refused(text in "[-a1:&*!<>|{}\\[\\],?#%@'\" \n\t~.]{0,60}") {
        let _ = read(&text);
    }
}
