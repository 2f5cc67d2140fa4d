//! The packet filters of the node and of namespaces that were seen: rules that count or throw away. A tool is started only where
//! there is something for it to print, and nothing is asked that would load a module.

mod iptables;
mod nft;
mod text;

use std::fs::File;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Instant;

use ktrace_bundle::node::{Filter, Item};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockProtocol;

use super::desk::{Order, Part};
use super::netlink::Netlink;
use super::out::Out;
use super::places::{self, Map};
use super::rose::Rose;
use crate::services::presence::{NF_TABLES, is_unused, lacking};
use crate::services::{sources, tool};

/// Rules of a namespace that are told; those that throw away have room of their own.
const MOST: [u64; 2] = [4096, 1024];
/// `NFT_MSG_GETTABLE`, below `NFNL_SUBSYS_NFTABLES`.
const GET_TABLES: u16 = 10 << 8 | 1;
/// The old iptables by family: its tool, and where the kernel lists its tables.
const OLD: [(&str, &str); 2] =
    [("iptables", "/proc/thread-self/net/ip_tables_names"), ("ip6tables", "/proc/thread-self/net/ip6_tables_names")];

/// Whether nftables can be asked.
enum Nft {
    /// Nobody has rules there.
    Unused,
    /// It must not be asked, and why.
    Untold(String),
    /// By this tool, or why there is none.
    By(Result<PathBuf, String>),
}

/// What the thread keeps between two looks.
pub struct Filters {
    rose: Rose,
    home: io::Result<File>,
    nft: Nft,
    /// By family.
    old: [Result<PathBuf, String>; 2],
}

impl Filters {
    /// Finds the tools.
    pub fn new() -> Self {
        Self {
            rose: Rose::default(),
            home: File::open("/proc/thread-self/ns/net"),
            nft: match lacking(&[NF_TABLES]) {
                None => Nft::By(tool::locate(&["nft"])),
                Some(why) if is_unused(&why) => Nft::Unused,
                Some(why) => Nft::Untold(why),
            },
            old: OLD.map(|(name, _)| sources::locate_old(name)),
        }
    }

    /// Looks at the node's namespaces, then at the others.
    pub fn look(&mut self, order: &Order, out: &mut Out) -> Vec<Part> {
        let begin = Instant::now();
        let (places, more) = places::of(&order.seen);
        let (count, mut map) = (places.len(), Map::default());
        for (at, place) in places.iter().enumerate() {
            out.at(Some(place.netns));
            if out.is_late() {
                out.at(None);
                out.no_time("packet filters", Some((count - at) as u64));
                break;
            }
            // the thread is in the first one
            let entered = at == 0 || map.find(place).is_some_and(|(it, _)| setns(it, CloneFlags::CLONE_NEWNET).is_ok());
            if entered {
                self.one(out);
            } else {
                out.absent("packet filters", "the namespace is gone, or cannot be entered");
            }
        }
        out.at(None);
        out.no_room("packet filters", more);
        if let Ok(home) = &self.home
            && let Err(e) = setns(home, CloneFlags::CLONE_NEWNET)
        {
            // the next look begins where the thread is: it must not take that for the node's
            self.nft = Nft::Untold(format!("the thread cannot go back to the node's namespace: {e}"));
        }
        vec![Part { source: "node_filters", counts: std::mem::take(&mut out.counts), took: begin.elapsed() }]
    }

    /// The namespace that the thread is in.
    fn one(&mut self, out: &mut Out) {
        match &self.nft {
            Nft::By(_) if !has_tables(out.until()) => {}
            Nft::By(Ok(nft)) => {
                let mut taker = Taker::new(out, &mut self.rose);
                let until = taker.out.until();
                let read = |text: &mut dyn BufRead| nft::read(text, &mut |it| taker.take(it));
                let outcome = tool::run(nft, &["-j", "list", "ruleset"], left(until), read);
                taker.finish("nftables", outcome);
            }
            Nft::By(Err(why)) | Nft::Untold(why) => out.absent("nftables", why),
            Nft::Unused => {}
        }
        for ((name, tables), tool) in OLD.iter().zip(&self.old) {
            if std::fs::read_to_string(tables).unwrap_or_default().trim().is_empty() {
                continue;
            }
            match tool {
                Ok(path) => {
                    let mut taker = Taker::new(out, &mut self.rose);
                    let until = taker.out.until();
                    let read = |text: &mut dyn BufRead| iptables::read(text, name, &mut |it| taker.take(it));
                    let outcome = tool::run(path, &["--modprobe", "/bin/false", "-c"], left(until), read);
                    taker.finish(name, outcome);
                }
                Err(why) => out.absent(name, why),
            }
        }
    }
}

fn left(until: Instant) -> std::time::Duration {
    until.saturating_duration_since(Instant::now())
}

/// Whether the namespace has a table of nftables: most pods have none, and a tool for each would take seconds.
fn has_tables(until: Instant) -> bool {
    let Ok(mut netlink) = Netlink::open(SockProtocol::NetlinkNetFilter) else { return true };
    let mut count = 0;
    let asked = netlink.dump(GET_TABLES, &[0; 4], until, &mut |_| count += 1);
    count > 0 || asked.is_err()
}

/// Takes rules one by one, as many as there is room for.
struct Taker<'a> {
    out: &'a mut Out,
    rose: &'a mut Rose,
    told: [u64; 2],
    omitted: u64,
}

impl<'a> Taker<'a> {
    const fn new(out: &'a mut Out, rose: &'a mut Rose) -> Self {
        Self { out, rose, told: [0; 2], omitted: 0 }
    }

    /// A rule that counted nothing is not told, but for those that throw away: that they did not is worth knowing.
    fn take(&mut self, mut rule: Filter) {
        let key = (self.out.netns(), &rule.tool, &rule.family, &rule.table, &rule.chain, rule.number);
        rule.rose = rule.packets.and_then(|packets| self.rose.one(self.out.when, key, packets));
        let throws_away = throws_away(&rule.verdict);
        if !throws_away && rule.packets.unwrap_or(0) == 0 {
            return;
        }
        let [plain, telling] = &mut self.told;
        let (told, most) = if throws_away { (telling, MOST[1]) } else { (plain, MOST[0]) };
        if *told < most {
            *told += 1;
            self.out.put(Item::Filter(rule));
        } else {
            self.omitted += 1;
        }
    }

    fn finish(self, what: &str, outcome: Result<u64, String>) {
        let cut = outcome.as_ref().map_or(0, |cut| *cut);
        self.out.no_room(what, self.omitted + cut);
        if let Err(why) = outcome {
            self.out.absent(what, why);
        }
    }
}

/// Whether packets end there.
fn throws_away(verdict: &str) -> bool {
    matches!(verdict, "drop" | "reject" | "policy drop")
}
