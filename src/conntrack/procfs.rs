//! Connection tracking as text: what is left without CAP_NET_ADMIN. It has neither the status bits nor a notice of what
//! comes and goes. A line that is not as the kernel writes it is counted and passed over.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};

use ktrace_bundle::event::Proto;

use super::counters::{Counters, add};
use super::entry::{Entry, TcpState, Tuple};

/// The longest line that is read; the kernel's are some 200 bytes, and a security label may follow.
const LONGEST: usize = 1 << 10;
/// Most bytes of a table that are read: some two million connections.
const MOST_BYTES: u64 = 512 << 20;
/// Most bytes of the counters that are read: a line of 160 for each of 1,600 CPUs.
const MOST_COUNTERS: u64 = 256 << 10;
/// What flow offload writes in place of `[ASSURED]`.
const OFFLOADED: [&str; 2] = ["[OFFLOAD]", "[HW_OFFLOAD]"];

/// What a table was like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Entries that were taken.
    pub entries: u64,
    /// Entries of other protocols than TCP and UDP.
    pub others: u64,
    /// Lines that could not be read.
    pub undecodable: u64,
    /// It was too long: there may be more.
    pub is_cut: bool,
}

/// Takes all TCP and UDP entries of the network namespace of a process or thread. The state is the reading's only as far
/// as each line goes: what comes or goes meanwhile may be missing or there twice.
///
/// # Errors
/// The kernel has no such table (`NotFound`; also if the process has ended), or it may not be read.
pub fn entries(pid: i32, take: impl FnMut(Entry)) -> io::Result<Table> {
    let open = |name| File::open(format!("/proc/{pid}/net/{name}"));
    let file = open("nf_conntrack").or_else(|_| open("ip_conntrack"))?;
    table(BufReader::with_capacity(64 << 10, file.take(MOST_BYTES)), take)
}

fn table(mut lines: BufReader<io::Take<impl Read>>, mut take: impl FnMut(Entry)) -> io::Result<Table> {
    let mut table = Table::default();
    let mut line = Vec::with_capacity(LONGEST);
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line)? == 0 {
            table.is_cut = lines.get_ref().limit() == 0;
            return Ok(table);
        }
        let is_whole = line.ends_with(b"\n");
        match std::str::from_utf8(&line).ok().filter(|_| is_whole).and_then(parse) {
            Some(Some(entry)) => {
                table.entries += 1;
                take(entry);
            }
            Some(None) => table.others += 1,
            None => table.undecodable += 1,
        }
        if !is_whole {
            lines.skip_until(b'\n')?;
        }
    }
}

/// `Some(None)`: another protocol. With the address family in front (`nf_conntrack`) or without (`ip_conntrack`).
fn parse(line: &str) -> Option<Option<Entry>> {
    let mut words = line.split_ascii_whitespace();
    let mut name = words.next()?;
    if ["ipv4", "ipv6"].contains(&name) {
        name = words.nth(1)?;
    }
    let proto = match (name, words.next()?) {
        ("tcp", "6") => Proto::Tcp,
        ("udp", "17") => Proto::Udp,
        (_, number) => return number.parse::<u8>().ok().map(|_| None),
    };
    let mut line = Line::default();
    words.try_for_each(|word| line.add(word))?;
    line.entry(proto).map(Some)
}

/// The words of a line behind its protocol.
#[derive(Default)]
struct Line {
    ips: [[Option<IpAddr>; 2]; 2],
    ports: [[Option<u16>; 2]; 2],
    tcp_state: Option<TcpState>,
    zone: u16,
    mark: Option<u32>,
    is_unreplied: bool,
    is_assured: bool,
}

impl Line {
    fn add(&mut self, word: &str) -> Option<()> {
        // the first of each is the original direction's
        fn put<T>([original, reply]: &mut [[Option<T>; 2]; 2], end: usize, value: T) -> Option<()> {
            let [original, reply] = [original.get_mut(end)?, reply.get_mut(end)?];
            let free = if original.is_none() { original } else { reply };
            free.replace(value).is_none().then_some(())
        }
        match word.split_once('=') {
            Some(("src", ip)) => put(&mut self.ips, 0, ip.parse().ok()?)?,
            Some(("dst", ip)) => put(&mut self.ips, 1, ip.parse().ok()?)?,
            Some(("sport", port)) => put(&mut self.ports, 0, port.parse().ok()?)?,
            Some(("dport", port)) => put(&mut self.ports, 1, port.parse().ok()?)?,
            Some(("zone" | "zone-orig" | "zone-reply", zone)) => self.zone = zone.parse().ok()?,
            Some(("mark", mark)) => self.mark = Some(mark.parse().ok()?),
            Some(_) => {}
            None if word == "[UNREPLIED]" => self.is_unreplied = true,
            None => {
                self.is_assured |= word == "[ASSURED]" || OFFLOADED.contains(&word);
                self.tcp_state = self.tcp_state.or_else(|| TcpState::from_name(word));
            }
        }
        Some(())
    }

    fn entry(self, proto: Proto) -> Option<Entry> {
        let tuple = |[src, dst]: [Option<IpAddr>; 2], [from, to]: [Option<u16>; 2]| {
            let (src, dst) = src.zip(dst).filter(|(src, dst)| src.is_ipv4() == dst.is_ipv4())?;
            Some(Tuple { proto, src: SocketAddr::new(src, from?), dst: SocketAddr::new(dst, to?) })
        };
        let ([ips, reply_ips], [ports, reply_ports]) = (self.ips, self.ports);
        Some(Entry {
            original: tuple(ips, ports)?,
            reply: tuple(reply_ips, reply_ports)?,
            status: None,
            tcp_state: self.tcp_state.filter(|_| proto == Proto::Tcp),
            zone: self.zone,
            mark: self.mark,
            is_replied: !self.is_unreplied,
            is_assured: self.is_assured,
        })
    }
}

/// The counters of the network namespace of a process or thread, and how many entries it has. Not how many it may have.
///
/// # Errors
/// The kernel has no such file, it may not be read, or is not what it should be (`InvalidData`).
pub fn counters(pid: i32) -> io::Result<Counters> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/net/stat/nf_conntrack"))?.take(MOST_COUNTERS).read_to_string(&mut text)?;
    columns(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Most entries that this process's own network namespace takes; `None`: there is no connection tracking. A kernel with one
/// limit for all says the same everywhere.
pub fn own_limit() -> Option<u64> {
    fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").ok()?.trim_ascii().parse().ok()
}

/// Columns differ between kernels: they go by the names in the first line.
fn columns(text: &str) -> Option<Counters> {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next()?.split_ascii_whitespace().collect();
    let mut sums = Counters::default();
    for line in lines {
        let mut values = line.split_ascii_whitespace();
        for name in &names {
            let value = u32::from_str_radix(values.next()?, 16).ok()?.into();
            let sum = match *name {
                "entries" => {
                    sums.count = Some(value); // the whole table's, on each line
                    continue;
                }
                "found" => &mut sums.found,
                "invalid" => &mut sums.invalid,
                "insert" => &mut sums.insert,
                "insert_failed" => &mut sums.insert_failed,
                "drop" => &mut sums.drop,
                "early_drop" => &mut sums.early_drop,
                "icmp_error" => &mut sums.error,
                "search_restart" => &mut sums.search_restart,
                "clashres" => &mut sums.clash_resolve,
                "chainlength" => &mut sums.chain_toolong,
                _ => continue,
            };
            add(sum, value);
        }
    }
    sums.count.map(|_| sums)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TCP: &str = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.96.0.10 sport=40000 dport=80 \
        src=10.1.0.7 dst=10.0.0.1 sport=8080 dport=40000 [ASSURED] mark=0 zone=0 use=2\n";
    const UDP6: &str = "ipv6     10 udp      17 29 src=fd00:0000:0000:0000:0000:0000:0000:0001 \
        dst=fd00:0000:0000:0000:0000:0000:0000:0002 sport=999 dport=53 packets=1 bytes=60 [UNREPLIED] \
        src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=53 dport=999 \
        packets=0 bytes=0 mark=7 secctx=null zone=5 delta-time=3 use=2\n";
    const ICMP: &str = "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 src=10.0.0.2 dst=10.0.0.1 \
        type=0 code=0 id=7 mark=0 use=2\n";
    const OLD: &str = "udp      17 170 src=10.0.0.1 dst=10.0.0.2 sport=999 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 \
        dport=999 [ASSURED] use=1\n";
    const OFFLOAD: &str = "ipv4     2 tcp      6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 src=10.0.0.2 dst=10.0.0.1 \
        sport=2 dport=1 [OFFLOAD] mark=0 zone=0 use=3\n";

    fn read(text: &[u8]) -> (Table, Vec<Entry>) {
        let mut entries = Vec::new();
        let table = table(BufReader::with_capacity(64, text.take(MOST_BYTES)), |entry| entries.push(entry)).unwrap();
        (table, entries)
    }

    fn entry(proto: Proto, [src, dst, answers, back]: [&str; 4]) -> Entry {
        let [src, dst, answers, back] = [src, dst, answers, back].map(|at| at.parse().unwrap());
        let status = 0;
        let original = Tuple { proto, src, dst };
        Entry { status: None, ..Entry::with_status(original, Tuple { proto, src: answers, dst: back }, status) }
    }

    #[test]
    fn lines_of_both_files_are_read_and_other_protocols_counted() {
        let (table, entries) = read([TCP, ICMP, UDP6, OLD, OFFLOAD].concat().as_bytes());
        assert_eq!(table, Table { entries: 4, others: 1, ..Table::default() });
        let tcp = entry(Proto::Tcp, ["10.0.0.1:40000", "10.96.0.10:80", "10.1.0.7:8080", "10.0.0.1:40000"]);
        let udp6 = entry(Proto::Udp, ["[fd00::1]:999", "[fd00::2]:53", "[fd00::2]:53", "[fd00::1]:999"]);
        let old = entry(Proto::Udp, ["10.0.0.1:999", "10.0.0.2:53", "10.0.0.2:53", "10.0.0.1:999"]);
        let offloaded = entry(Proto::Tcp, ["10.0.0.1:1", "10.0.0.2:2", "10.0.0.2:2", "10.0.0.1:1"]);
        let assured = |entry| Entry { is_replied: true, is_assured: true, ..entry };
        let tcp_state = Some(TcpState::Established);
        let expected = [
            Entry { tcp_state, mark: Some(0), ..assured(tcp) },
            Entry { mark: Some(7), zone: 5, ..udp6 },
            assured(old),
            Entry { mark: Some(0), ..assured(offloaded) },
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_line_that_is_cut_or_too_long_is_counted_and_the_next_one_read() {
        for (bad, count) in [
            (&*TCP.replace("sport=8080 ", ""), 1),
            (&*TCP.replace("sport=40000", "sport=70000"), 1),
            (&*TCP.replace("10.1.0.7", "fd00::1"), 1),
            (&*TCP.replace("mark=0", "sport=3"), 1),
            (&*TCP.replace("use=2", &"x".repeat(1 << 20)), 1),
            ("ipv4\n\n\u{0}\n", 3),
        ] {
            let (table, entries) = read([bad, OLD].concat().as_bytes());
            assert_eq!(
                (table, entries.len()),
                (Table { entries: 1, undecodable: count, ..Table::default() }, 1),
                "{bad:.400}"
            );
        }
        let (table, entries) = read(TCP.trim_end().as_bytes());
        assert_eq!((table.undecodable, entries.len()), (1, 0), "the end is missing");
        let cut = super::table(BufReader::new([TCP, OLD].concat().as_bytes().take(TCP.len() as u64)), drop).unwrap();
        assert_eq!(cut, Table { entries: 1, is_cut: true, ..Table::default() });
    }

    #[test]
    fn counters_go_by_the_names_of_their_columns() {
        let new = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop \
            icmp_error  expect_new expect_create expect_delete search_restart\n\
            00000002  00000001 00000010 00000000 00000003 00000000 00000000 00000004 00000005 00000006 00000007 00000008 \
            00000009  00000000 00000000 00000000 0000000a\n\
            00000002  00000001 00000010 00000000 00000003 00000000 00000000 00000004 00000005 00000006 00000007 00000008 \
            00000009  00000000 00000000 00000000 0000000a\n";
        let expected = Counters {
            count: Some(2),
            max: None,
            found: Some(32),
            invalid: Some(6),
            insert: Some(10),
            insert_failed: Some(12),
            drop: Some(14),
            early_drop: Some(16),
            error: Some(18),
            search_restart: Some(20),
            clash_resolve: Some(2),
            chain_toolong: Some(8),
        };
        assert_eq!(columns(new), Some(expected));
        let old = "entries  searched found\n00000002  00000001 00000010\n";
        assert_eq!(columns(old), Some(Counters { count: Some(2), found: Some(16), ..Counters::default() }));
        for odd in ["", "entries\n", "found\n00000001\n", "entries found\n00000001\n", "entries\nwhat\n"] {
            assert_eq!(columns(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_counted(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (table, entries) = read(&bytes);
            prop_assert_eq!(table.entries, entries.len() as u64);
        }

        #[test]
        fn any_words_are_read_or_counted(words in prop::collection::vec("(src|dst|sport|dport|zone)=[0-9a-f.:]{0,9}", 0..30)) {
            read(format!("ipv4 2 tcp 6 {}\n", words.join(" ")).as_bytes());
            columns(&words.join("\n"));
        }
    }
}
