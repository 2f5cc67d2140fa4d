//! The contract's document against what is written: every key and every name, in the order in which they stand.

use std::borrow::Cow;

use super::keys::{K8s, PeerKeys};
use super::tests::{an_event, text};
use super::*;
use crate::audit::{AuditReason, Unaudited};
use crate::event::{PacketDir, RetransmitKind, Role, When};
use crate::keys::DOCUMENT;
use crate::nat::{Direction, Nat};
use crate::peer::PeerVia;
use crate::why::Why;
use crate::workload::Via;

fn every_key_of_nat() -> Nat {
    let [a, b] = [1, 2].map(|last| Endpoint::new([192, 0, 2, last].into(), 80));
    let ends = |from, to| Direction { from, to };
    Nat { status: Some(1), zone: 1, mark: 1, ..Nat::new("REPLIED", ends(a, a), ends(b, b), 1) }
}

#[test]
fn conntrack_is_read_as_it_was_written() {
    let mut event = an_event();
    event.id.nat = Some(every_key_of_nat().into());
    assert_eq!(parse_event(text(&event).as_bytes(), 1).unwrap().record, event);
}

/// A line with every key; a new field does not compile until it is here, and then not pass until it is documented.
fn every_key() -> Line<'static> {
    let text = || Some(Text(Cow::Borrowed("x")));
    let n = Some(1);
    Line {
        v: Some(1),
        seq: n,
        ts: Some(Timestamp(an_event().at)),
        kind: text(),
        when: Some(When::End),
        node: text(),
        comm: text(),
        thread: text(),
        pid: Some(1),
        tid: Some(1),
        ppid: Some(1),
        uid: Some(1),
        gid: Some(1),
        tuple: Some(Tuple::default()),
        old_state: Some(TcpState::Close),
        new_state: Some(TcpState::Close),
        handshake_ns: n,
        syn_retrans_count: n,
        bytes: n,
        dns_rtt_ns: n,
        query_seq: n,
        ambiguous: true,
        late: true,
        duplicate: true,
        sample: n,
        asked: Some(End(Endpoint::default())),
        syscall_ns: n,
        what: Some(Kind::Retransmit(RetransmitKind::Data)),
        state: Some(TcpState::Close),
        dir: Some(PacketDir::Sent),
        reason: text(),
        reason_id: Some(1),
        symbol: text(),
        dev: text(),
        count: n,
        first_boot_ns: n,
        queued_bytes: n,
        duration_ns: n,
        rx_queue_bytes: n,
        tx_queue_bytes: n,
        age_ns: n,
        backlog: n,
        accept_queue: n,
        tx_bytes: n,
        rx_bytes: n,
        tx_segs_count: n,
        rx_segs_count: n,
        retrans_count: n,
        srtt_us: n,
        min_rtt_us: n,
        error: text(),
        errno: Some(1),
        soft_error: true,
        nonblocking: true,
        time_wait: true,
        gave_up_after_ns: n,
        proto: Some(Proto::Tcp),
        laddr: Some([0, 0, 0, 0].into()),
        lport: Some(1),
        raddr: Some([0, 0, 0, 0].into()),
        rport: Some(1),
        role: Some(Role::Client),
        socket: n,
        boot_ns: n,
        cpu: Some(1),
        owner: Some(OwnerSource::Current),
        proc_start_ns: n,
        ns: Some(Namespaces { net: Some(1), mnt: Some(1), pid: Some(1), user: Some(1) }),
        sec: Some(Sec { seccomp_mode: Some(0), caps_eff: Some(CapsEff(0)) }),
        cgroup_id: n,
        k8s: Some(K8s {
            pod_uid: text(),
            namespace: text(),
            pod: text(),
            container: text(),
            container_id: text(),
            workload: text(),
            workload_from: text(),
            via: Some(Via::Cgroup),
        }),
        unit: text(),
        peer: Some(PeerKeys { namespace: text(), pod: text(), node: text(), via: Some(PeerVia::Cri) }),
        conntrack: Some(every_key_of_nat().into()),
        why: {
            let mut why = Why::none();
            why.set("x", Reason::Gone);
            why
        },
        rest: 0,
    }
}

#[test]
fn the_documented_keys_are_the_keys_that_are_written_in_their_order() {
    let mut line = Vec::new();
    every_key().write(&mut line);
    let line = String::from_utf8(line).unwrap();
    let at = |key: &str| line.find(&format!(r#""{key}":"#)).unwrap_or_else(|| panic!("no `{key}` in {line}"));
    let mut written: Vec<String> = Vec::new();
    for (key, value) in serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line).unwrap() {
        match value {
            serde_json::Value::Object(parts) if key != "why" => {
                written.extend(parts.keys().map(|part| format!("{key}.{part}")));
            }
            _ => written.push(key),
        }
    }
    let documented: Vec<_> = crate::keys::all().map(|key| key.name).collect();
    let missing: Vec<_> = written.iter().filter(|k| !documented.contains(&k.as_str())).collect();
    let surplus: Vec<_> = documented.iter().filter(|k| !written.contains(&(**k).to_owned())).collect();
    assert_eq!((missing, surplus), (vec![], vec![]), "not in docs/bundle-format.md, and only there");
    let top: Vec<_> = documented.iter().filter(|k| !k.contains('.')).map(|k| at(k)).collect();
    assert!(top.is_sorted(), "docs/bundle-format.md lists the keys in another order");
}

#[test]
fn every_name_in_a_closed_list_is_documented() {
    let drops = crate::ledger::DropReason::ALL.map(crate::ledger::DropReason::as_str);
    let kinds = EventKind::ALL.map(EventKind::as_str);
    let names = |values: Vec<serde_json::Value>| -> Vec<String> {
        values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let reasons = names(AuditReason::ALL.iter().map(|r| serde_json::to_value(r).unwrap()).collect());
    let unaudited = names(Unaudited::ALL.iter().map(|r| serde_json::to_value(r).unwrap()).collect());
    assert_eq!((reasons.len(), unaudited.len()), (AuditReason::ALL.len(), Unaudited::ALL.len()));
    let audit = reasons.iter().chain(&unaudited).map(String::as_str);
    for name in Reason::TEXTS.iter().chain(&drops).chain(&kinds).copied().chain(audit) {
        assert!(DOCUMENT.contains(&format!("`{name}`")), "`{name}` is not in docs/bundle-format.md");
    }
}

#[test]
fn the_documented_examples_are_lines_of_this_version() {
    let examples: Vec<_> = DOCUMENT.lines().filter(|l| l.starts_with(r#"{"v":1"#)).collect();
    assert_eq!(examples.len(), 3);
    for (example, number) in examples.into_iter().zip(1..) {
        let parsed = parse_event(example.as_bytes(), 0).unwrap();
        assert_eq!((parsed.record.seq, parsed.unknown_keys), (number, 0));
        assert_eq!(text(&parsed.record), example);
    }
}

#[test]
fn every_key_of_manifest_and_summary_is_documented() {
    let manifest = crate::testing::a_manifest(&[]);
    let dns = crate::dns::DnsPairs::new([53].into(), 1);
    let summary = crate::totals::SummaryBuilder::new().build(&manifest, &dns);
    let of_summary = serde_json::to_value(summary).unwrap();
    for (section, document) in
        [("`manifest.json`", serde_json::to_value(manifest).unwrap()), ("`summary.json`", of_summary)]
    {
        let section = DOCUMENT.split("\n## ").find(|s| s.starts_with(section)).unwrap();
        for key in document.as_object().unwrap().keys() {
            assert!(section.contains(&format!("`{key}`")), "`{key}` is not in docs/bundle-format.md");
        }
    }
}
