use ktrace_bundle::testing::a_nat;

use super::*;

fn query(text: &str) -> FlowQuery {
    text.parse().unwrap()
}

fn is_on(flow: &str, local: &str, remote: &str, nat: Option<&Nat>) -> bool {
    let selector = Selector { flow: Some(query(flow)), ..Selector::default() };
    let [local, remote] = [local, remote].map(|text| parse_endpoint(text).unwrap());
    selector.is_on(&Course { proto: Proto::Tcp, local, remote, nat, asked: None })
}

#[test]
fn a_flow_is_named_by_an_end_or_by_both_in_either_order() {
    let (client, server) = ("10.42.1.15:41001", "10.42.2.8:80");
    for (flow, expected) in [
        ("10.42.2.8:80", true),
        ("10.42.2.8", true),
        ("*:80", true),
        ("tcp *:80", true),
        ("udp *:80", false),
        ("10.42.2.8:8080", false),
        ("10.42.1.15:41001->10.42.2.8:80", true),
        ("10.42.1.15:41001 -> 10.42.2.8:80", true),
        ("tcp 10.42.2.8->10.42.1.15", true),
        ("10.42.1.15->10.42.1.15", false),
    ] {
        assert_eq!(is_on(flow, client, server, None), expected, "{flow}");
        assert_eq!(is_on(flow, server, client, None), expected, "{flow} at the server");
    }
}

#[test]
fn v6_addresses_need_no_brackets_and_mapped_ones_are_v4() {
    assert!(is_on("fd00::7", "[fd00::1]:40000", "[fd00::7]:80", None));
    assert!(is_on("[fd00::7]:80", "[fd00::1]:40000", "[fd00::7]:80", None));
    assert!(is_on("::ffff:10.42.2.8", "10.42.1.15:41001", "10.42.2.8:80", None));
}

#[test]
fn every_name_of_a_translated_flow_finds_it_at_both_ends() {
    let nat = a_nat("ESTABLISHED", "10.42.1.15:41001", "10.96.0.80:80", "10.244.2.2:8080", "192.168.0.1:1024");
    let ends = [("10.42.1.15:41001", "10.96.0.80:80"), ("10.244.2.2:8080", "192.168.0.1:1024")];
    for (local, remote) in ends {
        for flow in
            ["10.96.0.80:80", "10.244.2.2:8080", "192.168.0.1", "10.42.1.15->10.244.2.2", "10.42.1.15->10.96.0.80"]
        {
            assert!(is_on(flow, local, remote, Some(&nat)), "{flow} of {local}");
        }
        assert!(!is_on("10.96.0.80->10.244.2.2", local, remote, Some(&nat)), "both are the server's");
    }
}

#[test]
fn what_names_no_flow_is_an_error() {
    for text in ["", "*", "nonsense", "10.0.0.1:99999", "10.0.0.1->", "sctp 10.0.0.1", "10.0.0.1:80:80"] {
        assert!(matches!(text.parse::<FlowQuery>(), Err(Error::Flow(said)) if said == text), "{text}");
    }
    assert_eq!(query("1:LQU9qZlK+B5F3KDmev6m5PMibrg="), FlowQuery::Community("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".into()));
}

#[test]
fn a_pod_is_named_with_or_without_its_namespace() {
    let pod = |text: &str| text.parse::<PodQuery>().unwrap();
    let web = Workload {
        namespace: Some("shop".into()),
        pod: Some("web-1".into()),
        ..Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into())
    };
    for (text, expected) in [
        ("web-1", true),
        ("shop/web-1", true),
        ("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10", true),
        ("other/web-1", false),
        ("web", false),
    ] {
        assert_eq!(pod(text).is(&web), expected, "{text}");
    }
    for text in ["", "/", "/web-1", "shop/", "a/b/c"] {
        assert!(matches!(text.parse::<PodQuery>(), Err(Error::Pod(_))), "{text}");
    }
}
