//! What real tools have printed (`fixtures/rules/`, recorded with iptables 1.8.9 in a namespace), and what nobody would.

use proptest::prelude::*;

use super::*;
use crate::services::tests::{show, shown};

const NFT: &str = include_str!("../../fixtures/rules/iptables_nft.txt");
const LEGACY: &str = include_str!("../../fixtures/rules/iptables_legacy.txt");
const LEGACY6: &str = include_str!("../../fixtures/rules/ip6tables_legacy.txt");

fn of(text: &str) -> (Vec<Declared>, u64) {
    read(&mut text.as_bytes(), RuleSource::Iptables).unwrap()
}

fn nat(rules: &str) -> Vec<String> {
    show(&of(&format!("*nat\n{rules}COMMIT\n")).0)
}

#[test]
fn rules_of_kube_proxy_and_others_are_read_from_either_kind_of_iptables() {
    let expected = shown(&[
        "tcp *:15 -> *:15001",
        "tcp *:81 -> 10.9.1.4:8081",
        "tcp *:82 -> *:8082",
        "tcp *:30080 -> 10.244.1.5:8080 10.244.1.6:8080 (shop/api:http)",
        "tcp 1.2.3.4:80 -> 10.244.1.5:8080 10.244.1.6:8080 (shop/api:http)",
        "tcp 10.9.0.1:80 -> 10.9.1.1:*",
        "tcp 10.9.0.1:443 -> 10.9.1.1:*",
        "tcp 10.9.0.1:8000-8010 -> 10.9.1.1:*",
        "tcp 10.9.0.2:1000-1010 -> 10.9.1.2:2000 10.9.1.2:2001 10.9.1.2:2002 10.9.1.3:2000 10.9.1.3:2001 10.9.1.3:2002",
        "tcp 10.9.0.4:* -> 10.9.1.5:*",
        "tcp 10.9.0.5:* -> 10.9.1.6:86",
        "tcp 10.9.0.6:5000-5010 -> 10.9.1.7:6000 10.9.1.7:6001 10.9.1.7:6002 10.9.1.7:6003 10.9.1.7:6004 10.9.1.7:6005 \
         10.9.1.7:6006 10.9.1.7:6007 10.9.1.7:6008 10.9.1.7:6009 10.9.1.7:6010",
        "tcp 10.9.0.7:* -> 10.244.1.5:8080 10.244.1.6:8080 (shop/api:http)",
        "tcp 10.96.0.80:80 -> 10.244.1.5:8080 10.244.1.6:8080 (shop/api:http)",
        "udp *:16 -> *:16001 *:16002",
        "udp 10.9.0.4:* -> 10.9.1.5:*",
        "udp 10.96.0.10:53 -> 10.244.0.2:5353 (kube-system/kube-dns:dns)",
    ]);
    for text in [NFT, LEGACY] {
        let (services, omitted) = of(text);
        assert_eq!((show(&services), omitted), (expected.clone(), 0));
    }
}

#[test]
fn rules_of_ip6tables_are_read() {
    let (services, _) = read(&mut LEGACY6.as_bytes(), RuleSource::Ip6tables).unwrap();
    assert_eq!(
        show(&services),
        shown(&[
            "tcp fd00::10:80 -> fd00::1:8080",
            "udp fd00::11:53 -> fd00::1:5353 fd00::2:5353",
            "udp fd00::12:* -> fd00::3:*"
        ])
    );
}

#[test]
fn only_comments_of_kube_proxys_chains_name_a_service() {
    let rule = "-A PREROUTING -d 10.0.0.1/32 -p tcp -m comment --comment \"shop/api:http\" -m tcp --dport 80 -j X\n\
                -A X -p tcp -j DNAT --to-destination 10.0.0.2:8080\n";
    assert_eq!(nat(rule), ["tcp 10.0.0.1:80 -> 10.0.0.2:8080"]);
    let kubes = "-A PREROUTING -j KUBE-SERVICES\n".to_owned() + &rule.replace("PREROUTING", "KUBE-SERVICES");
    assert_eq!(nat(&kubes), ["tcp 10.0.0.1:80 -> 10.0.0.2:8080 (shop/api:http)"]);
}

#[test]
fn what_looks_like_an_option_in_a_comment_is_none() {
    let rule = "-A PREROUTING -m comment --comment \"-j DNAT --dport 1\" -p udp -m udp --dport 53 -j DNAT --to-destination :1053\n";
    assert_eq!(nat(rule), ["udp *:53 -> *:1053"]);
    assert_eq!(nat(&rule.replace("\"-j DNAT --dport 1\"", "--dport")), ["udp *:53 -> *:1053"]);
}

#[test]
fn chains_in_a_circle_and_chains_without_an_end_are_left() {
    let circle =
        "-A PREROUTING -j A\n-A A -j B\n-A B -j A\n-A B -p tcp -m tcp --dport 80 -j DNAT --to-destination :81\n";
    assert_eq!(nat(circle), ["tcp *:80 -> *:81"]);
    let long: String = (0..1000).map(|n| format!("-A C{n} -j C{}\n", n + 1)).collect();
    let text = format!("*nat\n-A PREROUTING -j C0\n{long}-A C1000 -p tcp -j DNAT --to-destination :81\nCOMMIT\n");
    assert_eq!(of(&text), (vec![], 1));
}

#[test]
fn rules_beyond_the_bounds_are_counted() {
    // each of 20,000 addresses is a service
    let rules: String = (0..20_000u32)
        .map(|n| format!("-A PREROUTING -d {} -p tcp -j DNAT --to-destination :1\n", IpAddr::V4(n.into())))
        .collect();
    let (services, omitted) = of(&format!("*nat\n{rules}COMMIT\n"));
    assert_eq!((services.len(), omitted), (1 << 14, 20_000 - (1 << 14)));
    // each of 300 rules has 256 backends
    let rules: String = (1..=300)
        .map(|n| format!("-A OUTPUT -p tcp --dport {n} -j DNAT --to-destination 10.0.0.0-10.0.0.255\n"))
        .collect();
    let (services, omitted) = of(&format!("*nat\n{rules}COMMIT\n"));
    assert_eq!(services.iter().map(|it| it.backends.len()).sum::<usize>(), 1 << 16);
    assert_eq!(omitted, 300 * 256 - (1 << 16));
}

#[test]
fn many_ways_to_the_same_chain_are_walked_once() {
    // 2^30 ways through thirty chains with two rules each
    let ways: String = (0..30).map(|n| format!("-A C{n} -j C{}\n", n + 1).repeat(2)).collect();
    let text = format!("-A PREROUTING -j C0\n{ways}-A C30 -p tcp -m tcp --dport 80 -j DNAT --to-destination :81\n");
    assert_eq!(nat(&text), ["tcp *:80 -> *:81"]);
}

#[test]
fn other_tables_count_for_nothing_and_a_cut_one_is_refused() {
    assert_eq!(show(&of("*filter\n-A OUTPUT -p tcp -j DNAT --to-destination :1\nCOMMIT\n").0), shown(&[]));
    assert_eq!(show(&of("# Table `nat' is incompatible, use 'nft' tool.\n").0), shown(&[]));
    let cut = read(&mut "*nat\n-A OUTPUT -p tcp -j DNAT".as_bytes(), RuleSource::Iptables);
    assert_eq!(cut.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut text = b"*nat\n".to_vec();
        text.extend(bytes);
        text.extend(b"\nCOMMIT\n");
        let _ = read(&mut text.as_slice(), RuleSource::Iptables);
    }

    #[test]
    fn any_words_of_rules_are_read_without_a_panic(
        rules in proptest::collection::vec(proptest::collection::vec(0usize..WORDS.len(), 0..12), 0..12)
    ) {
        let line = |rule: &Vec<usize>| format!("-A {}\n", rule.iter().map(|it| WORDS[*it]).collect::<Vec<_>>().join(" "));
        let _ = nat(&rules.iter().map(line).collect::<String>());
    }
}

const WORDS: &[&str] = &[
    "PREROUTING",
    "OUTPUT",
    "KUBE-A",
    "B",
    "-j",
    "-g",
    "-p",
    "tcp",
    "udp",
    "icmp",
    "-d",
    "10.0.0.1/32",
    "10.0.0.0/8",
    "fd00::1",
    "--dport",
    "--dports",
    "80",
    "1:2,3",
    "65536",
    "9:8",
    "!",
    "DNAT",
    "REDIRECT",
    "--to-destination",
    "10.0.0.1-10.0.0.3:1-3",
    "[fd00::1]:5",
    "[",
    ":",
    "-",
    "--to-ports",
    "--comment",
    "\"",
    "\\",
    "a/b:c",
];
