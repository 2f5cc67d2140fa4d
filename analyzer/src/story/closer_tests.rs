use ktrace_bundle::event::TcpClose;
use ktrace_bundle::testing::an_event;

use super::*;
use TcpState::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};

fn path(states: &[TcpState]) -> Vec<Event> {
    let steps = states.windows(2).zip(0..);
    steps.map(|(pair, ms)| an_event().tcp_state(pair[0], pair[1]).at_ms(ms).build()).collect()
}

fn told(events: &[Event]) -> Option<(Closer, bool)> {
    by_path(events.iter()).map(|closed| (closed.by, closed.is_reset))
}

#[test]
fn the_first_fin_tells_in_every_path() {
    for (states, by) in [
        (&[SynSent, Established, FinWait1, FinWait2, Close][..], Some(Closer::Local)),
        (&[SynRecv, FinWait1, Close], Some(Closer::Local)),
        (&[Established, FinWait1, Close], Some(Closer::Local)),
        (&[SynSent, Established, CloseWait, LastAck, Close], Some(Closer::Remote)),
        (&[SynRecv, CloseWait, Close], Some(Closer::Remote)),
        (&[Established, FinWait1, Closing, Close], Some(Closer::Both)),
        (&[SynSent, Close], None),
        (&[SynRecv, Close], None),
        (&[SynSent, Established], None),
    ] {
        assert_eq!(told(&path(states)), by.map(|by| (by, false)), "{states:?}");
    }
}

#[test]
fn a_path_without_its_beginning_tells_by_where_it_came_from() {
    for (states, by) in [
        ([FinWait2, Close], Closer::Local),
        ([FinWait1, Close], Closer::Local),
        ([LastAck, Close], Closer::Remote),
        ([CloseWait, Close], Closer::Remote),
        ([Closing, Close], Closer::Both),
    ] {
        assert_eq!(told(&path(&states)), Some((by, false)), "{states:?}");
    }
}

fn cut_off(error: Option<&str>, is_soft: bool) -> Vec<Event> {
    let account = TcpClose { soft_error: is_soft, ..TcpClose::default() };
    let event = an_event().closed(Established, account);
    vec![error.map_or(event.clone(), |name| event.error(name)).build()]
}

#[test]
fn a_connection_that_is_cut_off_tells_by_its_error() {
    for (error, is_soft, expected) in [
        (None, false, (Closer::Local, true)),
        (Some("EHOSTUNREACH"), true, (Closer::Local, true)),
        (Some("ECONNRESET"), false, (Closer::Remote, true)),
        (Some("EPIPE"), false, (Closer::Remote, true)),
        (Some("ECONNABORTED"), false, (Closer::Local, true)),
        (Some("ETIMEDOUT"), false, (Closer::Nobody, false)),
        (Some("EHOSTUNREACH"), false, (Closer::Nobody, false)),
    ] {
        assert_eq!(told(&cut_off(error, is_soft)), Some(expected), "{error:?} {is_soft}");
    }
}

#[test]
fn a_reset_before_any_fin_closes_first_and_one_after_it_does_not() {
    let reset = |dir, state, ms| an_event().tcp_reset(dir, Some(state)).at_ms(ms).build();
    let sent = [reset(PacketDir::Sent, Established, 1)];
    let received = [reset(PacketDir::Received, Established, 1)];
    assert_eq!(told(&sent), Some((Closer::Local, true)));
    assert_eq!(told(&received), Some((Closer::Remote, true)));
    let mut late = path(&[Established, FinWait1]);
    late.push(reset(PacketDir::Received, FinWait1, 5));
    assert_eq!(told(&late), Some((Closer::Local, false)));
    assert_eq!(told(&[reset(PacketDir::Received, SynSent, 1)]), None, "it was never open");
}

#[test]
fn the_other_end_says_the_opposite() {
    let theirs = by_path(path(&[Established, CloseWait]).iter()).unwrap();
    assert_eq!(by_other_end(theirs).by, Closer::Local);
    let both = by_path(path(&[FinWait1, Closing]).iter()).unwrap();
    assert_eq!(by_other_end(both).by, Closer::Both);
    assert_eq!(by_record(ClosedBy::Remote).by, Closer::Remote);
}
