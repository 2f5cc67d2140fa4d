//! `README.md` of a bundle: for people and agents who have nothing but the bundle.

use crate::ledger::DropReason;
use crate::manifest::Manifest;

const FILES: &str = "\
## Files
| file | what it is |
|---|---|
| `summary.json` | read this first: totals, DNS, connections, top talkers, what was not measured |
| `events.jsonl` | one event per line; `seq` is the line number |
| `sockets.jsonl` | TCP and UDP sockets that existed when the window opened (`\"when\":\"start\"`) and closed (`\"end\"`) |
| `coverage.jsonl` | when events were lost, if any: one line per hook and second |
| `workloads.jsonl` | pods and containers with what they are called, by `cgroup_id`: names that came after an event's line |
| `processes.jsonl` | the processes behind the sockets and those above them, those that have ended included, by `(pid, proc_start_ns)` |
| `flows.jsonl` | what became of each flow: both ends, how it ended, and who really answered, by `(netns, socket, tuple)` |
| `node/network.jsonl` | the network at both looks (`when`): links, routes, neighbours, qdiscs, counters, listeners, rules; `item` says what a line is |
| `node/host.jsonl` | pressure, CPU and memory of the machine and of pods, resolvers, the clock, at both looks |
| `services.json` | which backends stand behind which address, with attempts and failures |
| `conntrack.json` | the tables of connection tracking: entries, limits, counters |
| `manifest.json` | what was asked, which hooks were attached, and the ledger: where every event went |

A key that is absent is not known; `why` gives the reason. Units are in the names: `_ns`, `_us`, `_bytes`, `_count`.
`tuple` is always `local -> remote`, seen from the process that is named. `owner` says how that process was found;
`inherited` means the listener's, until the connection was accepted. No payload was recorded.
";

/// The text for a bundle of this name.
pub(super) fn text(manifest: &Manifest, stem: &str) -> String {
    let ledger = &manifest.ledger;
    let seconds = manifest.duration_ns / 1_000_000_000;
    let verdict = if manifest.complete { "complete as asked" } else { "degraded, see `degraded` in `manifest.json`" };
    let dropped: Vec<String> = DropReason::ALL
        .iter()
        .filter_map(|r| ledger.dropped.get(r).filter(|n| **n > 0).map(|n| format!("{} {n}", r.as_str())))
        .collect();
    let dropped = if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") };
    format!(
        "# {stem}\n\n\
         A ktrace capture: {seconds} s from {start} on, {verdict}.\n\
         Events: {seen} seen, {written} written, dropped: {dropped}.\n\n\
         {FILES}\n\
         ## First questions\n\
         ```sh\n{questions}```\n",
        start = manifest.head.start_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        seen = ledger.seen,
        written = ledger.written,
        questions = questions(stem),
    )
}

fn questions(stem: &str) -> String {
    format!(
        "# the causes, ranked, with their evidence\n\
         analyze {stem}.bundle.tgz\n\
         # clients whose DNS queries stayed unanswered\n\
         jq -c '.dns_suspects[]' summary.json\n\
         # connections that failed, by process, destination and error\n\
         jq -r 'select(.old_state==\"SYN_SENT\" and .new_state==\"CLOSE\") | [.comm,.pid,.tuple,.error // \"gave up\"] | @tsv' events.jsonl | sort | uniq -c | sort -rn\n\
         # the event that a finding calls #48\n\
         sed -n 48p events.jsonl | jq\n\
         # bytes per process, in SQL\n\
         duckdb -c \"select comm, pid, sum(bytes) from read_json_auto('events.jsonl') where type like 'udp%' group by all order by 3 desc\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::a_manifest;

    #[test]
    fn what_was_lost_is_said_in_the_third_line() {
        let mut manifest = a_manifest(&[]);
        let lossless = text(&manifest, "ktrace.n.20260124T215754Z");
        assert!(lossless.contains("60 s from 2026-01-24T21:57:54Z on, complete as asked"), "{lossless}");
        assert!(lossless.contains("dropped: none."), "{lossless}");
        manifest.complete = false;
        manifest.ledger.dropped.insert(DropReason::RingFull, 7);
        let lossy = text(&manifest, "ktrace.n.20260124T215754Z");
        assert!(lossy.contains("degraded") && lossy.contains("dropped: ring_full 7."), "{lossy}");
        assert!((25..=40).contains(&lossy.lines().count()), "{} lines", lossy.lines().count());
    }
}
