//! The schemas of `analyze schema` against reality: every line and document of every bundle, every report, and what is
//! none.

use std::collections::BTreeSet;

use jsonschema::Validator;
use ktrace_analyzer::schema::{BUNDLE, FINDINGS};
use ktrace_bundle::coverage::LossRecord;
use ktrace_bundle::ledger::DropReason;
use ktrace_bundle::process::ProcessRecord;
use ktrace_bundle::workload::{Via, Workload, WorkloadRecord};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::{cases, fixtures, report, run};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The name of the definition for a member's lines, or for its document.
fn definition(member: &str) -> String {
    let schema = &parsed(BUNDLE)["properties"][member];
    let reference = schema["items"]["$ref"].as_str().or_else(|| schema["$ref"].as_str());
    reference.unwrap_or_else(|| panic!("{member}")).strip_prefix("#/$defs/").unwrap().to_owned()
}

fn validator(schema: &Value, definition: &str) -> Validator {
    let schema = json!({
        "$schema": schema["$schema"], "$ref": format!("#/$defs/{definition}"), "$defs": schema["$defs"],
    });
    jsonschema::validator_for(&schema).unwrap()
}

/// The same schema, with every key that it does not describe forbidden.
fn strict(mut schema: Value) -> Value {
    // what all lines of a node have is described apart from what each kind of them has
    let node = schema["$defs"]["node_record"].clone();
    for kind in node["allOf"].as_array().into_iter().flatten() {
        let name = kind["then"]["$ref"].as_str().unwrap().replace("#/$defs/", "");
        for (key, described) in node["properties"].as_object().unwrap() {
            schema["$defs"][&name]["properties"][key] = described.clone();
        }
    }
    close(&mut schema);
    if let Some(node) = schema["$defs"].get_mut("node_record").and_then(Value::as_object_mut) {
        node.remove("additionalProperties");
    }
    schema
}

fn close(value: &mut Value) {
    let describes_keys = value.get("properties").is_some_and(Value::is_object);
    if describes_keys && value["type"] == "object" && value.get("additionalProperties").is_none() {
        value["additionalProperties"] = json!(false);
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(close),
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

/// Lines of a `.jsonl`, or the one document.
fn records(member: &str, bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    if member.ends_with(".jsonl") { text.lines().map(parsed).collect() } else { vec![parsed(text)] }
}

fn complain(validator: &Validator, value: &Value, what: &str) {
    if let Some(error) = validator.iter_errors(value).next() {
        panic!("{what}: {error}: {value}");
    }
}

fn scenes() -> impl Iterator<Item = (&'static str, Scene)> {
    cases::all().map(|case| (case.name, (case.build)()))
}

#[test]
fn the_schemas_are_schemas() {
    for schema in [BUNDLE, FINDINGS] {
        let schema = parsed(schema);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(jsonschema::meta::is_valid(&schema));
    }
    assert_eq!(run(&["analyze", "schema", "findings"], &[]), FINDINGS);
    assert_eq!(run(&["analyze", "schema"], &[]), BUNDLE);
}

#[test]
fn every_record_of_every_bundle_is_described_to_its_last_key() {
    let schema = strict(parsed(BUNDLE));
    let members: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    let validators: Vec<Validator> = members.iter().map(|m| validator(&schema, &definition(m))).collect();
    let mut seen = BTreeSet::new();
    for (case, scene) in scenes() {
        for (name, bytes) in scene.members() {
            let at = members.iter().position(|m| m == name).unwrap_or_else(|| panic!("{name}"));
            for record in records(name, &bytes) {
                complain(&validators[at], &record, &format!("{case} {name}"));
                seen.insert(name);
            }
        }
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

#[test]
fn members_that_no_story_has_are_described_as_they_are_written() {
    let schema = strict(parsed(BUNDLE));
    let check = |member: &str, value: Value| complain(&validator(&schema, &definition(member)), &value, member);
    let loss = LossRecord {
        v: 1,
        from_ns: 0,
        to_ns: 1_000_000_000,
        undated: true,
        hook: "udp".to_owned(),
        seen: 5,
        written: 3,
        dropped: [(DropReason::RingFull, 2)].into(),
        missed: 1,
    };
    check("coverage.jsonl", json!(loss));
    let workload = Workload {
        pod_uid: "0b1c".to_owned(),
        namespace: Some("shop".to_owned()),
        pod: Some("api-1".to_owned()),
        container: None,
        container_id: None,
        workload: Some("api".to_owned()),
        workload_from: Some("pod-template-hash".to_owned()),
        via: Via::Cri,
    };
    let why = [("k8s.container".to_owned(), "not_found".to_owned())].into();
    let at = "2026-01-24T21:57:54.326118Z".parse().ok();
    check(
        "workloads.jsonl",
        json!(WorkloadRecord { v: 1, cgroup_id: 7, k8s: workload, created_at: at, ended_at: at, why }),
    );
    let mut process = ProcessRecord::new(7, 1, 1, "api".to_owned());
    process.exe = Some("/bin/api".to_owned());
    process.is_as_called = true;
    process.exit_at = at;
    check("processes.jsonl", json!(process));
}

#[test]
fn every_report_over_every_bundle_is_described_to_its_last_key() {
    let schema = strict(parsed(FINDINGS));
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (case, scene) in scenes() {
        let made = tempfile::tempdir().unwrap();
        scene.write(made.path());
        complain(&validator, &report(made.path()), case);
    }
    let demo = fixtures().join("demo.bundle.tgz");
    complain(&validator, &report(&demo), "demo");
}

/// Something that no key holds which held this.
fn wrong(value: &Value) -> Value {
    if value.is_object() || value.is_array() { json!(-1.5) } else { json!({"wrong": []}) }
}

/// Every record of a kind less a key that is always there, and with a key of another type, must be refused.
fn refuses_mutations(schema: &Value, definition: &str, record: &Value) {
    let (validator, what) = (validator(schema, definition), format!("{definition}: {record}"));
    complain(&validator, record, &what);
    let is_required = |key: &str| schema["$defs"][definition]["required"].as_array().unwrap().contains(&json!(key));
    for (key, value) in record.as_object().unwrap() {
        let mut changed = record.clone();
        changed[key] = wrong(value);
        assert!(!validator.is_valid(&changed), "{key} of another type: {what}");
        if is_required(key) {
            changed.as_object_mut().unwrap().remove(key);
            assert!(!validator.is_valid(&changed), "without {key}: {what}");
        }
    }
}

#[test]
fn a_record_less_a_key_or_with_another_type_is_refused() {
    let schema = parsed(BUNDLE);
    for (_, scene) in scenes().step_by(12) {
        for (name, bytes) in scene.members() {
            for record in records(name, &bytes).into_iter().take(2) {
                refuses_mutations(&schema, &definition(name), &record);
            }
        }
    }
    let schema = parsed(FINDINGS);
    let made = tempfile::tempdir().unwrap();
    scenes().find(|(case, _)| *case == "dns-dead-server").unwrap().1.write(made.path());
    refuses_mutations(&schema, "finding", &report(made.path())["findings"][0]);
}

#[test]
fn an_event_of_its_type_needs_the_keys_of_its_type() {
    let schema = parsed(BUNDLE);
    let validator = validator(&schema, "event");
    let mut seen = BTreeSet::new();
    for (_, scene) in scenes() {
        let members = scene.members();
        for event in records(members[0].0, &members[0].1) {
            let key = match event["type"].as_str().unwrap() {
                "tcp_state" => "new_state",
                "connect" => "syscall_ns",
                "tcp_retransmit" | "tcp_stall" => "kind",
                "listen_overflow" | "drop" => "count",
                "tcp_reset" => "dir",
                _ => continue,
            };
            if seen.insert(event["type"].as_str().unwrap().to_owned()) {
                let mut without = event.clone();
                without.as_object_mut().unwrap().remove(key);
                assert!(validator.is_valid(&event) && !validator.is_valid(&without), "{key}: {event}");
            }
        }
    }
    assert_eq!(seen.len(), 7, "{seen:?}");
}
