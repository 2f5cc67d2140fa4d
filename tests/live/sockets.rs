//! Sockets that exist when the window opens and when it closes: listed with their owners, and the events on them
//! have the right owner from the first one on.

use ktrace_bundle::attribution::OwnerSource;
use ktrace_bundle::event::{Proto, SocketRecord, When};
use ktrace_bundle::tcp::TcpState;

use crate::capture::{Bundle, Capture};
use crate::net::{Lab, Netns, SERVER4};
use crate::program::Program;
use crate::truth::{conns, datagrams, is_of_a_program, owner, udp_events};
use crate::workdir::Workdir;
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![
        sockets_older_than_the_window_are_listed_with_their_owners,
        events_on_sockets_older_than_the_window_have_the_right_owner,
        a_connection_that_never_closes_counts_its_bytes_at_the_end,
    ]
}

/// Records of a namespace at one end of the window: protocol, state, own port, owner.
fn listed(bundle: &Bundle, netns: &Netns, when: When) -> Vec<(Proto, Option<TcpState>, u16, u32)> {
    let inode = netns.inode();
    let mine = bundle.sockets.iter().filter(|s| s.when == when && s.id.netns == inode);
    let mut listed: Vec<_> = mine
        .map(|s| {
            let owner = s.id.owner.value().unwrap_or_else(|| panic!("no owner: {s:?}"));
            (s.id.proto, s.state, s.id.local.port.unwrap(), owner.pid)
        })
        .collect();
    listed.sort();
    listed
}

fn sockets_older_than_the_window_are_listed_with_their_owners() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo"));
    server.ready();
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:7007"));
    echo.ready();
    let chat = lab.client.start(&format!("tcp-chat --to {SERVER4}:8080 --rounds 1000"));
    let port = chat.ready().local.port();
    let capture = Capture::start();
    let bundle = capture.stop();

    for when in [When::Start, When::End] {
        let at_server = [
            (Proto::Tcp, Some(TcpState::Established), 8080, server.pid()),
            (Proto::Tcp, Some(TcpState::Listen), 8080, server.pid()),
            (Proto::Udp, None, 7007, echo.pid()),
        ];
        assert_eq!(listed(&bundle, &lab.server, when), at_server);
        let at_client = [(Proto::Tcp, Some(TcpState::Established), port, chat.pid())];
        assert_eq!(listed(&bundle, &lab.client, when), at_client);
    }
}

fn events_on_sockets_older_than_the_window_have_the_right_owner() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo"));
    server.ready();
    let echo = lab.server.start(&format!("udp-echo --listen {SERVER4}:7007"));
    echo.ready();
    let dir = Workdir::new();
    let over = dir.join("over");
    let chat = format!("tcp-chat --to {SERVER4}:8080 --interval-ms 20 --until {}", over.display());
    let chat = lab.client.start(&chat);
    chat.ready();
    let capture = Capture::start();
    let client = lab.client.traffic(&format!("udp-paced --to {SERVER4}:7007 --count 3"));
    let sent = datagrams(Program::run(client).truths());
    echo.truths(2 * sent.len());
    let chat_pid = chat.pid();
    std::fs::write(over, "").unwrap();
    let ended = chat.wait();
    let served = conns(server.truths(1));
    lab.client.wait_until_quiet();
    lab.server.wait_until_quiet();
    let bundle = capture.stop();

    assert_eq!((conns(ended.truths()).len(), served.len()), (1, 1));
    let by_echo = udp_events(&bundle.events, lab.server.inode());
    assert_eq!(by_echo.len(), 2 * sent.len());
    assert!(by_echo.into_iter().all(|e| owner(e).pid == echo.pid()));
    for (netns, pid) in [(&lab.client, chat_pid), (&lab.server, server.pid())] {
        let inode = netns.inode();
        let of_programs = bundle.events.iter().filter(|e| is_of_a_program(e));
        let tcp: Vec<_> = of_programs.filter(|e| e.id.netns == inode && e.id.proto == Proto::Tcp).collect();
        assert!(!tcp.is_empty());
        assert!(tcp.iter().all(|e| owner(e).pid == pid), "not {pid}: {tcp:?}");
    }
}

fn a_connection_that_never_closes_counts_its_bytes_at_the_end() {
    let lab = Lab::new();
    let server = lab.server.start(&format!("tcp-server --listen {SERVER4}:8080 --then echo"));
    server.ready();
    let capture = Capture::start();
    let chat =
        lab.client.start(&format!("tcp-chat --to {SERVER4}:8080 --rounds 1000 --interval-ms 5 --text 0123456789"));
    chat.ready();
    // the answer to a request is told when the next one is over: wait for the kernel's own count instead
    crate::wait::until("some requests", crate::wait::DEADLINE, || {
        let info = lab.client.run("ss -Htino state established");
        let sent = info.split_whitespace().find_map(|w| w.strip_prefix("bytes_sent:"))?.parse::<u64>();
        (sent.ok()? >= 100).then_some(())
    });
    let bundle = capture.stop();
    let inode = lab.client.inode();
    let of = |when| bundle.sockets.iter().filter(|s| s.when == when && s.id.netns == inode).collect::<Vec<_>>();
    assert_eq!(of(When::Start).len(), 0, "it did not exist yet");
    let [SocketRecord { tx_bytes: Some(tx), rx_bytes: Some(rx), id, .. }] = of(When::End)[..] else {
        panic!("{:?}", of(When::End))
    };
    assert!(*tx >= 100 && tx % 10 == 0 && (*tx == *rx || *tx == *rx + 10), "whole requests of 10 bytes: {tx}, {rx}");
    let owner = id.owner.value().unwrap();
    assert_eq!(owner.pid, chat.pid());
    assert_ne!(owner.source, OwnerSource::Inherited);
}
