//! Damaged lines and damaged bundles, thousands of them, the same on every run: whatever a stranger's file
//! holds, the reader returns. The only assertions are that it does, and that it delivers no more than there was.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // its helpers are test code outside of tests

use std::fs;

use ktrace_bundle::event::{Event, RetransmitKind, TcpClose, When};
use ktrace_bundle::line::{parse_event, parse_socket, write_event, write_socket};
use ktrace_bundle::node::{Clock, Item, Link};
use ktrace_bundle::reader::{Limits, read};
use ktrace_bundle::tcp::TcpState;
use ktrace_bundle::testing::{a_bundle_on, a_manifest, a_socket, an_event, in_network, of_host};

/// xorshift64*: a fixed sequence that looks like chance.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    /// Changes, removes, doubles or inserts a few bytes.
    fn mangle(&mut self, bytes: &mut Vec<u8>) {
        const TOKENS: [&[u8]; 12] = [
            b"\"",
            b"{",
            b"}",
            b"\n",
            b"\0",
            b"\\u0000",
            b"-1",
            b"1e999",
            b"null",
            b"18446744073709551616",
            b"\xff\xfe",
            b"[[[[",
        ];
        for _ in 0..=self.below(4) {
            let (at, len) = (self.below(bytes.len()), self.below(16));
            let end = (at + len).min(bytes.len());
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] = self.next().to_le_bytes()[0],
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => drop(bytes.splice(at..end, TOKENS[self.below(TOKENS.len())].iter().copied())),
                _ => bytes.truncate(at),
            }
        }
    }
}

fn some_events() -> Vec<Event> {
    let close = TcpClose { tx_bytes: Some(u64::MAX), srtt_us: Some(1), ..TcpClose::default() };
    vec![
        an_event().udp_send().build(),
        an_event().udp_recv().at_ms(2).build(),
        an_event().connect().error("EINPROGRESS").to("[2001:db8::1]:443").build(),
        an_event().tcp_retransmit(RetransmitKind::Syn, TcpState::SynSent).build(),
        an_event().closed(TcpState::SynSent, close).error("ECONNREFUSED").build(),
    ]
}

#[test]
fn damaged_lines_are_refused_or_read_but_never_fatal() {
    let mut chance = Chance(0x6b74_7261_6365_0001);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for event in some_events() {
        let mut line = Vec::new();
        write_event(&mut line, &event);
        seeds.push(line);
    }
    let mut line = Vec::new();
    write_socket(&mut line, &a_socket().build());
    seeds.push(line);
    let mut refused = 0;
    for round in 0..30_000_usize {
        let mut text = seeds[round % seeds.len()].clone();
        chance.mangle(&mut text);
        let (event, socket) = (parse_event(&text, 1), parse_socket(&text));
        refused += usize::from(event.is_err() && socket.is_err());
        if let Ok(parsed) = event {
            // what was read can be written, and then says the same
            let mut again = Vec::new();
            write_event(&mut again, &parsed.record);
            let reread = parse_event(&again, 1).unwrap().record;
            assert_eq!(reread.payload, parsed.record.payload, "{}", String::from_utf8_lossy(&text));
        }
    }
    assert!((10_000..30_000).contains(&refused), "{refused} refused: the damage is too small or too large to tell");
}

#[test]
fn damaged_bundles_are_read_as_far_as_they_go() {
    let out = tempfile::tempdir().unwrap();
    let mut events = some_events();
    let manifest = a_manifest(&events);
    let link = Item::Link(Link { dev: "eth0".into(), mtu: 1500, ..Link::default() });
    let node = [in_network(When::Start, link), of_host(When::End, Item::Clock(Clock::default()))];
    let sealed = a_bundle_on(out.path(), &mut events, &[a_socket().build()], &node, manifest);
    let mut chance = Chance(0x6b74_7261_6365_0002);
    let names = [
        "events.jsonl",
        "sockets.jsonl",
        "coverage.jsonl",
        "workloads.jsonl",
        "node/network.jsonl",
        "node/host.jsonl",
        "manifest.json",
        "summary.json",
    ];
    let whole = names.map(|name| fs::read(sealed.dir.join(name)).unwrap());
    let packed = fs::read(&sealed.tgz).unwrap();
    let mangled = out.path().join("mangled");
    fs::create_dir_all(mangled.join("node")).unwrap();
    for round in 0..2000 {
        let path = if round % 2 == 0 {
            let mut bytes = packed.clone();
            chance.mangle(&mut bytes);
            fs::write(out.path().join("mangled.tgz"), bytes).unwrap();
            out.path().join("mangled.tgz")
        } else {
            let victim = chance.below(names.len());
            for (at, (name, bytes)) in names.iter().zip(&whole).enumerate() {
                let mut bytes = bytes.clone();
                if at == victim {
                    chance.mangle(&mut bytes);
                }
                fs::write(mangled.join(name), bytes).unwrap();
            }
            mangled.clone()
        };
        let mut delivered = 0_u64;
        if let Ok(report) = read(&path, &Limits::default(), &mut |_| delivered += 1) {
            assert!(report.events + report.sockets <= delivered && delivered < 100, "round {round}: {report:?}");
        }
    }
}
