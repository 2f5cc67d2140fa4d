use super::*;
use crate::testing::{EventBuilder, START_BOOT_NS, an_event};

const END: u64 = START_BOOT_NS + 60_000_000_000;

struct Pairs {
    dns: DnsPairs,
    seq: u64,
}

impl Pairs {
    fn new(max: usize) -> Self {
        Self { dns: DnsPairs::new(BTreeSet::from([53]), max), seq: 0 }
    }

    /// What became of this event.
    fn see(&mut self, event: EventBuilder) -> Datagram {
        let mut event = event.build();
        self.seq += 1;
        self.dns.annotate(&mut event, self.seq);
        match event.payload {
            Payload::UdpSend(d) | Payload::UdpRecv(d) => d,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, ms: u64) -> Datagram {
        self.see(an_event().udp_send().at_ms(ms))
    }

    fn recv(&mut self, ms: u64) -> Datagram {
        self.see(an_event().udp_recv().at_ms(ms))
    }

    fn counts(&self) -> DnsCounts {
        let counts = self.dns.counts(END);
        assert_eq!(counts.sent, counts.answered + counts.unanswered + counts.pending + counts.untracked);
        counts
    }
}

fn recv() -> Datagram {
    Datagram { bytes: Some(112), ..Datagram::default() }
}

#[test]
fn one_outstanding_query_gives_an_exact_round_trip() {
    let mut p = Pairs::new(8);
    assert_eq!(p.send(10), Datagram { bytes: Some(45), ..Datagram::default() });
    assert_eq!(p.recv(12), Datagram { dns_rtt_ns: Some(2_000_000), query_seq: Some(1), ..recv() });
    assert_eq!(p.counts(), DnsCounts { sent: 1, answered: 1, ..DnsCounts::default() });
    assert_eq!(p.dns.summary(END).rtt_us.max, Some(2000));
}

#[test]
fn a_query_that_a_load_balancer_sent_to_another_port_is_paired_with_the_reply_of_the_backend() {
    let mut p = Pairs::new(8);
    let asked = Some("10.96.0.10:53".parse::<std::net::SocketAddr>().unwrap());
    let asked = asked.map(|at| Endpoint::new(at.ip(), at.port()));
    let query = an_event().udp_send().to("10.244.1.5:5353").at_ms(10);
    p.see(query.payload(|payload| match payload {
        Payload::UdpSend(d) => d.asked = asked,
        other => panic!("{other:?}"),
    }));
    let reply = |ms| an_event().udp_recv().to("10.244.1.5:5353").at_ms(ms);
    assert_eq!(p.see(reply(12)), Datagram { dns_rtt_ns: Some(2_000_000), query_seq: Some(1), ..recv() });
    assert_eq!(p.see(reply(13)), recv(), "nothing says any more that it is DNS");
    assert_eq!(p.counts(), DnsCounts { sent: 1, answered: 1, ..DnsCounts::default() });
}

#[test]
fn two_outstanding_queries_make_the_first_reply_ambiguous() {
    let mut p = Pairs::new(8);
    p.send(10);
    p.send(10);
    assert_eq!(p.recv(12), Datagram { ambiguous: true, ..recv() });
    assert_eq!(p.recv(13), Datagram { dns_rtt_ns: Some(3_000_000), query_seq: Some(2), ..recv() });
    assert_eq!(p.counts(), DnsCounts { sent: 2, answered: 2, ambiguous: 1, ..DnsCounts::default() });
}

#[test]
fn a_lost_reply_of_a_and_aaaa_leaves_one_query_unanswered_and_invents_no_slow_one() {
    let mut p = Pairs::new(8);
    p.send(0);
    p.send(0);
    assert!(p.recv(2).ambiguous);
    p.send(5000);
    p.send(5000);
    assert_eq!(p.recv(5002), Datagram { ambiguous: true, ..recv() });
    assert_eq!(p.recv(5003), Datagram { ambiguous: true, ..recv() });
    let counts = DnsCounts { sent: 4, answered: 3, ambiguous: 3, unanswered: 1, ..DnsCounts::default() };
    assert_eq!(p.counts(), counts);
    assert_eq!(p.dns.summary(END).rtt_us.n, 0);
}

#[test]
fn a_reply_without_a_query_is_a_duplicate() {
    let mut p = Pairs::new(8);
    p.send(1);
    p.recv(2);
    assert_eq!(p.recv(3), Datagram { duplicate: true, ..recv() });
    assert_eq!(p.dns.summary(END).duplicate, 1);
}

#[test]
fn a_reply_that_is_older_than_the_query_is_not_its_reply() {
    let mut p = Pairs::new(8);
    p.send(10);
    assert_eq!(p.recv(9), Datagram { duplicate: true, ..recv() });
}

#[test]
fn a_reply_after_five_seconds_is_late() {
    let mut p = Pairs::new(8);
    p.send(0);
    let late = Datagram { dns_rtt_ns: Some(5_000_001_000), query_seq: Some(1), late: true, ..recv() };
    assert_eq!(p.see(an_event().udp_recv().at_us(5_000_001)), late);
    assert_eq!(p.counts(), DnsCounts { sent: 1, answered: 1, late: 1, ..DnsCounts::default() });
}

#[test]
fn a_query_near_the_end_is_pending_and_no_suspect() {
    let mut p = Pairs::new(8);
    p.send(55_000);
    p.send(55_001);
    assert_eq!(p.counts(), DnsCounts { sent: 2, unanswered: 1, pending: 1, ..DnsCounts::default() });
    let mut only_pending = Pairs::new(8);
    only_pending.send(59_000);
    assert_eq!(only_pending.dns.suspects(END), []);
}

#[test]
fn a_receive_without_a_remote_end_takes_one_query_off_but_proves_no_round_trip() {
    let mut p = Pairs::new(8);
    p.send(0);
    assert_eq!(p.see(an_event().udp_recv().to("*").at_ms(1)), Datagram { ambiguous: true, ..recv() });
    assert_eq!(p.counts(), DnsCounts { sent: 1, answered: 1, ambiguous: 1, ..DnsCounts::default() });
    assert_eq!(p.see(an_event().udp_recv().to("*").at_ms(2)), recv());
}

#[test]
fn a_receive_without_a_remote_end_settles_nothing_between_two_servers() {
    let mut p = Pairs::new(8);
    p.send(0);
    p.see(an_event().udp_send().to("10.0.0.2:53"));
    assert_eq!(p.see(an_event().udp_recv().to("*").at_ms(1)), Datagram { ambiguous: true, ..recv() });
    assert_eq!(p.counts(), DnsCounts { sent: 2, unanswered: 2, ..DnsCounts::default() });
}

#[test]
fn failures_and_other_ports_are_neither_queries_nor_replies() {
    let mut p = Pairs::new(8);
    p.see(an_event().udp_send().error("ENETUNREACH"));
    p.see(an_event().udp_send().to("10.0.0.2:123"));
    assert_eq!(p.counts(), DnsCounts::default());
    p.send(0);
    let refused = p.see(an_event().udp_recv().error("ECONNREFUSED").at_ms(1));
    assert_eq!((refused.dns_rtt_ns, refused.ambiguous, refused.duplicate), (None, false, false));
    assert_eq!(p.see(an_event().udp_recv().to("10.0.0.2:123").at_ms(1)), recv());
    assert_eq!(p.counts().unanswered, 1);
}

#[test]
fn sockets_namespaces_and_servers_are_kept_apart() {
    let mut p = Pairs::new(8);
    p.send(0);
    assert!(p.see(an_event().udp_recv().socket(9).at_ms(1)).duplicate);
    assert!(p.see(an_event().udp_recv().netns(9).at_ms(1)).duplicate);
    assert!(p.see(an_event().udp_recv().to("10.0.0.2:53").at_ms(1)).duplicate);
    assert_eq!(p.recv(1).query_seq, Some(1));
}

#[test]
fn suspects_name_the_client_of_the_query_most_unanswered_first() {
    let mut p = Pairs::new(8);
    p.send(1);
    for ms in [2, 3] {
        p.see(an_event().udp_send().by("web", 7).socket(2).to("10.0.0.2:53").at_ms(ms));
    }
    let suspects = p.dns.suspects(END);
    let named: Vec<_> =
        suspects.iter().map(|s| (s.comm.as_deref(), s.pid, s.server.as_str(), s.counts.unanswered)).collect();
    assert_eq!(named, [(Some("web"), Some(7), "10.0.0.2:53", 2), (Some("api"), Some(1847), "10.96.0.10:53", 1)]);
    assert!(suspects[0].first_at < suspects[0].last_at);
}

#[test]
fn the_table_is_bounded_and_what_it_cannot_hold_is_counted() {
    let mut p = Pairs::new(1);
    p.send(1);
    p.see(an_event().udp_send().by("web", 7).socket(2).at_ms(1));
    let reply = p.see(an_event().udp_recv().by("web", 7).socket(2).at_ms(2));
    assert_eq!(reply, recv(), "may well be the reply to the query that was not remembered");
    assert_eq!(p.counts(), DnsCounts { sent: 2, unanswered: 1, untracked: 1, ..DnsCounts::default() });
    assert_eq!(p.dns.unlisted(), 1);
}
