//! What a real nft has printed (`fixtures/rules/`, recorded with nftables 1.0.6 in a namespace), and what none would.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::services::tests::{show, shown};

const PLAIN: &str = include_str!("../../fixtures/rules/nft_plain.json");
const KUBE_PROXY: &str = include_str!("../../fixtures/rules/nft_kube_proxy.json");
const OF_IPTABLES: &str = include_str!("../../fixtures/rules/nft_of_iptables.json");

fn of(text: &str) -> Told {
    read(&mut text.as_bytes()).unwrap()
}

/// A table with one chain where packets come in, and these rules in it.
fn rules(of_chain: &[(&str, serde_json::Value)]) -> String {
    let mut all =
        vec![json!({"chain": {"family": "ip", "table": "t", "name": "in", "type": "nat", "hook": "prerouting"}})];
    let rule = |(chain, expr): &(&str, serde_json::Value)| json!({"rule": {"family": "ip", "table": "t", "chain": chain, "expr": expr}});
    all.extend(of_chain.iter().map(rule));
    json!({"nftables": all}).to_string()
}

#[test]
fn rules_of_every_form_are_read() {
    let told = of(PLAIN);
    assert_eq!((told.omitted, told.foreign), (0, [0, 0]));
    assert_eq!(
        show(&told.services),
        shown(&[
            "tcp *:7 -> 10.7.0.1:7777",
            "tcp *:90 -> 10.244.20.4:9090",
            "tcp *:91 -> 10.244.20.4:9191",
            "tcp *:1000 -> 10.4.0.1:8080",
            "tcp *:2222 -> 10.9.0.1:22",
            "tcp *:8443 -> *:443",
            "tcp *:30080 -> 10.8.0.1:80",
            "tcp 10.96.0.10:53 -> 10.244.20.2:5353",
            "tcp 10.96.0.80:80 -> 10.244.20.3:8080",
            "tcp 10.96.0.81:80 -> 10.244.20.2:8080",
            "tcp 10.96.0.81:8000-8002 -> 10.244.20.2:8080",
            "tcp 10.96.0.82:80 -> 10.244.20.3:8080",
            "tcp 10.96.0.83:80 -> 10.244.20.2:8080",
            "tcp 10.96.0.83:8000-8002 -> 10.244.20.2:8080",
            "tcp 10.96.1.1:80 -> 10.1.0.1:8080",
            "tcp 10.96.1.2:443 -> 10.1.0.2:8443",
            "tcp 10.96.2.1:80 -> 10.2.0.1:8080",
            "tcp 10.96.2.1:81 -> 10.2.0.2:8081",
            "tcp 10.96.2.2:53 -> 10.2.0.3:1053",
            "tcp 10.96.3.1:80 -> 10.3.0.1:* 10.3.0.2:* 10.3.0.3:*",
            "tcp 10.96.3.2:80 -> 10.3.0.1:8080 10.3.0.2:8080",
            "tcp 10.96.3.3:80 -> 10.3.0.1:8081 10.3.0.2:8082",
            "tcp 10.96.4.1:80 -> 10.4.0.1:8080 10.4.0.2:8081",
            "tcp 10.96.5.1:* -> 10.5.0.1:*",
            "tcp 10.96.6.1:100-200 -> 10.6.0.1:1000 10.6.0.1:1001 10.6.0.1:1002",
            "tcp 10.96.6.2:80 -> 10.6.0.1:80 10.6.0.2:80 10.6.0.3:80",
            "tcp 10.96.7.1:80 -> 10.7.1.1:8080",
            "tcp 10.96.8.1:* -> 10.4.0.1:8080",
            "tcp 10.96.9.1:* -> *:9999",
            "tcp fd00::10:80 -> fd00::1:8080",
            "tcp fd00::11:80 -> fd00::2:8080",
            "udp 10.96.0.10:53 -> 10.244.20.2:5353",
            "udp 10.96.0.99:53 -> 10.0.0.53:5353",
            "udp 10.96.2.2:53 -> 10.2.0.3:1053",
            "udp 10.96.5.1:* -> 10.5.0.1:*",
        ])
    );
}

#[test]
fn the_tables_of_kube_proxy_are_read_with_the_names_of_services() {
    let told = of(KUBE_PROXY);
    assert_eq!(
        show(&told.services),
        shown(&[
            "tcp 1.2.3.4:80 -> 10.180.0.1:8080 10.180.0.2:8080 (ns1/svc1:p80)",
            "tcp 172.30.0.41:80 -> 10.180.0.1:8080 10.180.0.2:8080 (ns1/svc1:p80)",
            "tcp 192.168.0.2:3001 -> 10.180.0.1:8080 10.180.0.2:8080 (ns1/svc1:p80)",
            "udp 172.30.0.42:53 -> 10.180.0.3:5353 (ns2/svc2:dns)",
        ])
    );
    assert_eq!((told.omitted, told.foreign), (0, [0, 0]));
}

#[test]
fn what_iptables_made_is_counted_and_not_guessed() {
    let told = of(OF_IPTABLES);
    assert_eq!(show(&told.services), shown(&[]));
    assert!(told.foreign[0] > 20 && told.foreign[1] == 0, "{told:?}");
}

#[test]
fn other_families_hooks_and_tables_translate_nothing() {
    let dnat = json!([{"dnat": {"addr": "10.0.0.1", "port": 1}}]);
    let text = rules(&[("in", dnat)]);
    assert_eq!(show(&of(&text).services), ["tcp *:* -> 10.0.0.1:1", "udp *:* -> 10.0.0.1:1"]);
    for (from, to) in [("nat", "filter"), ("prerouting", "postrouting"), ("\"in\",\"table\"", "\"out\",\"table\"")] {
        let other = text.replacen(from, to, 1);
        assert_ne!(other, text);
        assert_eq!(show(&of(&other).services), shown(&[]), "{other}");
    }
    assert_eq!(show(&of(&text.replace("\"ip\"", "\"bridge\"")).services), shown(&[]));
}

#[test]
fn chains_in_a_circle_end() {
    let to = |chain: &str| json!([{"jump": {"target": chain}}]);
    let dnat = json!([{"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}},
                      {"redirect": {"port": 1053}}]);
    let text = rules(&[("in", to("a")), ("a", to("b")), ("b", to("a")), ("b", to("in")), ("b", dnat)]);
    assert_eq!(show(&of(&text).services), ["udp *:53 -> *:1053"]);
}

#[test]
fn a_huge_set_narrows_nothing_down_and_a_huge_map_is_cut() {
    let many: Vec<_> = (0..70_000u32).map(|n| json!([std::net::Ipv4Addr::from(n).to_string(), 1000 + n % 2])).collect();
    let daddr = json!({"payload": {"protocol": "ip", "field": "daddr"}});
    let map = json!([{"dnat": {"port": {"map": {"key": daddr, "data": {"set": many}}}}}]);
    let told = of(&rules(&[("in", map)]));
    assert_eq!(told.services.len(), 1 << 14);
    assert!(told.omitted > 0);

    let keys: Vec<_> = (0..10_000u32).map(|n| json!(std::net::Ipv4Addr::from(n).to_string())).collect();
    let set = json!([{"match": {"op": "==", "left": daddr, "right": {"set": keys}}}, {"redirect": {"port": 1}}]);
    assert_eq!(show(&of(&rules(&[("in", set)])).services), ["tcp *:* -> *:1", "udp *:* -> *:1"]);
}

#[test]
fn what_is_no_ruleset_is_refused() {
    for text in ["", "null", "{}", "[]", "Error: syntax", "{\"nftables\": {}}", "{\"nftables\": ["] {
        assert!(read(&mut text.as_bytes()).is_err(), "{text}");
    }
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let words = [
        "ip",
        "ip6",
        "tcp",
        "udp",
        "th",
        "daddr",
        "dport",
        "@m",
        "a",
        "in",
        "t",
        "10.0.0.1",
        "fd00::1",
        "==",
        "l4proto",
        "nat",
        "prerouting",
        "shop/api:http",
    ];
    let keys = [
        "rule", "chain", "set", "map", "family", "table", "name", "type", "hook", "expr", "match", "op", "left",
        "right", "payload", "protocol", "field", "meta", "key", "data", "vmap", "goto", "jump", "target", "dnat",
        "redirect", "addr", "port", "concat", "elem", "val", "comment", "range", "xt",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<u32>().prop_map(|n| json!(n % 70_000)),
        proptest::sample::select(words.to_vec()).prop_map(|word| json!(word)),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
            proptest::collection::vec((proptest::sample::select(keys.to_vec()), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..12_000) {
        let _ = read(&mut bytes.as_slice());
        let mut mixed = PLAIN.as_bytes()[..cut.min(PLAIN.len())].to_vec();
        mixed.extend(bytes);
        let _ = read(&mut mixed.as_slice());
    }

    #[test]
    fn any_json_of_its_words_is_read_without_a_panic(
        items in proptest::collection::vec(value(), 0..6), exprs in proptest::collection::vec(value(), 0..6)
    ) {
        let rules: Vec<_> = exprs.into_iter().map(|expr| ("in", expr)).collect();
        let mut text: serde_json::Value = serde_json::from_str(&self::rules(&rules)).unwrap();
        text["nftables"].as_array_mut().unwrap().extend(items);
        let _ = read(&mut text.to_string().as_bytes());
    }
}
