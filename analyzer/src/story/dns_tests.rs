use ktrace_bundle::testing::{EventBuilder, an_event};

use super::*;
use crate::story::tests::{Bundle, tell_all};
use crate::story::{Selector, Story};

const MS: u64 = 1_000_000;

fn query(seq: u64, us: u64, socket: u64, server: &str) -> EventBuilder {
    let local = format!("10.42.1.15:{}", 40_000 + socket);
    an_event().udp_send().from(&local).to(server).socket(socket).seq(seq).at_us(us)
}

fn answer(seq: u64, us: u64, socket: u64, server: &str) -> EventBuilder {
    let local = format!("10.42.1.15:{}", 40_000 + socket);
    an_event().udp_recv().from(&local).to(server).socket(socket).seq(seq).at_us(us)
}

fn stories(events: impl IntoIterator<Item = EventBuilder>) -> Vec<Story> {
    let bundle = Bundle::of(events.into_iter().map(EventBuilder::build));
    tell_all(&bundle, &Selector { pid: Some(1847), ..Selector::default() }).stories
}

fn lines(story: &Story) -> Vec<u64> {
    story.steps.iter().filter_map(|step| step.seq).collect()
}

const ONE: &str = "10.96.0.10:53";
const TWO: &str = "10.96.0.11:53";

#[test]
fn two_questions_at_once_are_one_attempt_and_a_later_one_is_another() {
    let told = stories([
        query(1, 0, 7, ONE),
        query(2, 100, 7, ONE).bytes(46),
        answer(3, 900, 7, ONE),
        answer(4, 1000, 7, ONE),
        query(5, 500_000, 7, ONE),
        answer(6, 501_000, 7, ONE),
    ]);
    assert_eq!(told.iter().map(lines).collect::<Vec<_>>(), [vec![1, 2, 3, 4], vec![5, 6]]);
    assert_eq!(told[0].outcome.text, "answered after 1.00 ms, 2 queries");
}

#[test]
fn the_same_question_after_a_silence_is_asked_again_unless_it_was_answered() {
    let again = |gap_us| stories([query(1, 0, 7, ONE), query(2, gap_us, 7, ONE)]).len();
    assert_eq!([again(899_999), again(900_000), again(11_000_000), again(11_000_001)], [2, 1, 1, 2]);
    let other_size = stories([query(1, 0, 7, ONE), query(2, 5_000_000, 7, ONE).bytes(60)]);
    assert_eq!(other_size.len(), 2);
    let answered = stories([query(1, 0, 7, ONE), answer(2, 900, 7, ONE), query(3, 5_000_000, 7, ONE)]);
    assert_eq!(answered.len(), 2);
}

#[test]
fn another_server_within_six_seconds_is_the_same_attempt() {
    let elsewhere = |gap_us| stories([query(1, 0, 7, ONE), query(2, gap_us, 8, TWO), answer(3, gap_us + 900, 8, TWO)]);
    let told = elsewhere(6_000_000);
    assert_eq!(told.iter().map(lines).collect::<Vec<_>>(), [[1, 2, 3]]);
    assert_eq!(told[0].outcome.text, "answered after 6.00 s, 2 queries to 2 servers");
    assert_eq!(told[0].others, [TWO].map(|text| ktrace_bundle::line::parse_endpoint(text).unwrap()));
    assert_eq!(elsewhere(6_000_001).len(), 2);
    let same_server = stories([query(1, 0, 7, ONE), query(2, 5_000_000, 8, ONE)]);
    assert_eq!(same_server.len(), 2, "another socket to the same server is another question");
}

#[test]
fn each_way_to_fail_has_its_words() {
    let outcome = |events: Vec<EventBuilder>| stories(events)[0].outcome.clone();
    let refused = outcome(vec![query(1, 0, 7, ONE), answer(2, 300, 7, ONE).error("ECONNREFUSED")]);
    assert_eq!(
        (refused.kind, refused.text.as_str()),
        ("refused", "refused after 300 µs, ECONNREFUSED (ICMP port unreachable), 1 query")
    );
    let unsent = outcome(vec![query(1, 0, 7, ONE).error("ENETUNREACH")]);
    assert_eq!(unsent.kind, "not_sent");
    let silent = outcome(vec![query(1, 0, 7, ONE), query(2, 5_000_000, 7, ONE)]);
    assert_eq!((silent.kind, silent.text.as_str()), ("unanswered", "no answer, 2 queries over 5.00 s"));
    let young = outcome(vec![query(1, 57_000_000, 7, ONE)]);
    assert_eq!(young.text, "not answered 3.00 s later, when the window closed, 1 query");
    let in_part = outcome(vec![query(1, 0, 7, ONE), query(2, 10, 7, ONE), answer(3, 900, 7, ONE)]);
    assert_eq!(in_part.kind, "answered_in_part");
}

#[test]
fn a_lookup_is_joined_up_to_a_second_before_the_connection_and_not_later() {
    let joined = |begun_us: u64, pid: u32, netns: u32| {
        let syn = an_event().tcp_state(ktrace_bundle::tcp::TcpState::Close, ktrace_bundle::tcp::TcpState::SynSent);
        let syn = syn.from("10.42.1.15:50000").to("10.42.2.8:80").socket(90).seq(3).at_us(begun_us);
        let bundle = Bundle::of([
            query(1, 0, 7, ONE).build(),
            answer(2, 900, 7, ONE).build(),
            syn.by("api", pid).netns(netns).build(),
        ]);
        let told = tell_all(&bundle, &Selector { seq: Some(3), ..Selector::default() });
        lines(&told.stories[0])
    };
    let netns = ktrace_bundle::testing::NETNS;
    assert_eq!(joined(1_000_900, 1847, netns), [1, 2, 3], "just within a second of the answer");
    assert_eq!(joined(1_000_901, 1847, netns), [3]);
    assert_eq!(joined(899, 1847, netns), [3], "before the answer was read");
    assert_eq!(joined(2000, 1848, netns), [3], "another process");
    assert_eq!(joined(2000, 1847, 5), [3], "another network namespace");
}

#[test]
fn a_lookup_that_begins_a_connection_is_not_told_twice_and_says_that_it_is_likely() {
    let syn = an_event().tcp_state(ktrace_bundle::tcp::TcpState::Close, ktrace_bundle::tcp::TcpState::SynSent);
    let syn = syn.from("10.42.1.15:50000").to("10.42.2.8:80").socket(90).seq(3).at_us(1500);
    let told = stories([query(1, 0, 7, ONE), answer(2, 900, 7, ONE), syn]);
    assert_eq!(told.iter().map(lines).collect::<Vec<_>>(), [[1, 2, 3]]);
    assert_eq!(told[0].steps[0].what, "likely its lookup: query of 45 B to 10.96.0.10:53");
    assert_eq!((told[0].steps[0].place, told[0].steps[2].since_start_ns), (Place::Lookup, 3 * MS / 2));
}
