use super::*;
use crate::kb::release;

fn topic(question: &str) -> Topic {
    Topic::new(&release(), question)
}

#[test]
fn services_ports_and_addresses_are_understood() {
    let t = topic("why is postgres slow?");
    assert_eq!((t.services, t.ports), (["postgres"].into(), [5432, 6432].into()));
    let t = topic("what is wrong with 10.1.2.3 and [fd00::7]? port 8443");
    assert_eq!(t.addresses, ["10.1.2.3", "fd00::7"].map(|a| a.parse().unwrap()).into());
    assert_eq!(t.ports, [8443].into());
    assert_eq!(topic("port 9 stalls 30 times for 5 s").ports, [9].into());
    assert!(topic("why does nothing work").ports.is_empty());
}

#[test]
fn words_choose_rules() {
    assert_eq!(topic("dns lookups time out after 5s").rules.first(), Some(&"dns.retry_5s"));
    assert!(topic("why is postgres slow?").rules.contains(&"connect.slow"));
    assert!(topic("who sends resets").rules.contains(&"tcp.reset_by_peer"));
}

#[test]
fn the_same_question_is_understood_the_same_way() {
    let question = "why are connections to redis refused now and then?";
    assert_eq!(topic(question), topic(question));
}
