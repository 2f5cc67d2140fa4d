//! Goldens: `fixtures/wire/*.hex` is a record written out by hand after `wire.h`, field by field, and the `.json`
//! beside it the line that it must become.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_rs::{ObjectBuilder, OpenMap, OpenObject};

use super::*;
use crate::kernel::skel::types;

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.extension().is_some_and(|e| e == "hex")).collect()
}

/// The record that a fixture writes out.
pub fn bytes_of(fixture: &Path) -> Vec<u8> {
    let text = fs::read_to_string(fixture).unwrap();
    let digits: String = text.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A capture that began at boot.
pub fn context() -> Context {
    let utc = "2026-01-24T21:57:50Z".parse().unwrap();
    let reasons = reasons::Reasons::with(&[(8, "NETFILTER_DROP")], &[(8, "TCP_ABORT_ON_DATA")]);
    Context { node: "etcd-1".into(), boot_ns: 0, utc, with_security: true, sample: None, reasons: reasons.into() }
}

#[test]
fn every_record_becomes_the_line_that_stands_beside_it() {
    for fixture in fixtures() {
        let event = decode(&bytes_of(&fixture), &context()).unwrap();
        let mut line = Vec::new();
        ktrace_bundle::line::write_event(&mut line, &event);
        let expected = fs::read_to_string(fixture.with_extension("json")).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), expected.trim_end(), "{}", fixture.display());
    }
}

#[test]
fn every_kind_has_one_hook_and_a_fixture() {
    let names: BTreeSet<String> = fixtures()
        .iter()
        .map(|f| f.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned())
        .collect();
    for number in 0..types::kt_kind::KT_KIND_MAX.0 {
        let kind = wire::kind_of(number).unwrap();
        assert_eq!(wire::number_of(kind), number);
        assert_eq!(HOOKS.iter().filter(|h| h.kinds().contains(&kind)).count(), 1, "{}", kind.as_str());
        assert!(names.contains(kind.as_str()), "fixtures/wire has no {}.hex", kind.as_str());
    }
    assert_eq!(usize::try_from(types::kt_kind::KT_KIND_MAX.0).unwrap(), EventKind::ALL.len());
}

#[test]
fn a_record_of_any_other_length_is_refused() {
    for fixture in fixtures() {
        let bytes = bytes_of(&fixture);
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length], &context()), Err(DecodeError::Length { .. })));
        }
        assert!(matches!(decode(&[&bytes[..], &[0]].concat(), &context()), Err(DecodeError::Length { .. })));
    }
}

#[test]
fn any_changed_byte_is_decoded_or_refused_and_never_a_panic() {
    for fixture in fixtures() {
        let mut bytes = bytes_of(&fixture);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let before = std::mem::replace(&mut bytes[at], value);
                let _ = decode(&bytes, &context());
                bytes[at] = before;
            }
        }
    }
}

#[test]
fn a_number_without_a_name_is_refused() {
    let mut bytes = bytes_of(&fixtures().into_iter().find(|f| f.ends_with("tcp_retransmit.hex")).unwrap());
    let state = bytes.len() - 3;
    bytes[state] = 99;
    assert_eq!(decode(&bytes, &context()), Err(DecodeError::Unknown { what: "tcp state", number: 99 }));
}

/// What must agree between `bpf/` and the table is compared, not remembered.
#[test]
fn the_variants_name_exactly_the_programs_of_the_object() {
    let mut named = BTreeSet::new();
    for variant in HOOKS.iter().flat_map(|h| h.variants()) {
        named.extend(
            variant
                .programs
                .iter()
                .chain(variant.more)
                .chain(variant.seconds)
                .chain(variant.optional.iter().flat_map(|o| o.programs))
                .copied(),
        );
    }
    let named: BTreeSet<_> = named.into_iter().map(str::to_owned).collect();
    for (arch, object) in objects() {
        let built: BTreeSet<_> = object.progs().map(|p| p.name().to_str().unwrap().to_owned()).collect();
        assert_eq!(named, built, "{arch}");
    }
}

/// What the build made for each architecture.
fn objects() -> BTreeMap<String, OpenObject> {
    let folders = fs::read_dir(env!("OUT_DIR")).unwrap().map(|e| e.unwrap().path());
    let made = folders.filter(|folder| folder.join("ktrace.bpf.o").exists());
    let name = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
    made.map(|f| (name(&f), ObjectBuilder::default().open_file(f.join("ktrace.bpf.o")).unwrap())).collect()
}

#[test]
fn every_architecture_with_a_register_layout_has_its_object() {
    let vmlinux = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("vmlinux")).unwrap().map(Result::unwrap);
    let folders = vmlinux.filter(|e| e.file_type().unwrap().is_dir());
    let layouts: BTreeSet<_> = folders.map(|e| e.file_name().into_string().unwrap()).collect();
    assert_eq!(layouts, objects().into_keys().collect());
    assert!(layouts.contains("arm64"));
}

#[test]
fn all_architectures_attach_to_the_same_places_and_keep_the_same_maps() {
    let shape = |object: &OpenObject| {
        let programs: BTreeMap<_, _> = object.progs().map(|p| (p.name().to_owned(), p.section().to_owned())).collect();
        let size = |m: &OpenMap<'_>| (m.map_type(), m.key_size(), m.value_size(), m.max_entries(), m.map_flags());
        let maps: BTreeMap<_, _> = object.maps().map(|m| (m.name().to_owned(), format!("{:?}", size(&m)))).collect();
        (programs, maps)
    };
    let objects = objects();
    let x86 = shape(&objects["x86"]);
    for (arch, object) in &objects {
        assert_eq!(shape(object), x86, "{arch}");
    }
}

#[test]
fn a_filter_by_port_says_that_translated_ports_are_not_looked_up() {
    let hooks = |flags: &[&str]| -> Vec<&str> {
        let plan = match crate::cli::parse([&["ktrace", "--node", "n1"], flags].concat()).unwrap() {
            crate::cli::Request::Capture(args, origins) => Plan::from_args(&args, &origins).unwrap(),
            other => panic!("not a capture: {other:?}"),
        };
        let says_so = |hook: &&&dyn Hook| hook.plan_limits(&plan).iter().any(|limit| limit.contains("NAT"));
        HOOKS.iter().filter(says_so).map(|hook| hook.name()).collect()
    };
    assert_eq!(hooks(&["--ports", "80"]), ["tcp_state", "udp"]);
    assert_eq!(hooks(&["--dns-only"]), ["tcp_state", "udp"]);
    assert!(hooks(&["--cidr", "10.0.0.0/8"]).is_empty());
}
