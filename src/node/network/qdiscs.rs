//! Numbers of queueing disciplines and interfaces: names as `tc` and the kernel write them, without those that are 0.

use ktrace_bundle::node::{Counters, Qdisc};
use netlink_packet_route::link::Stats64;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcStats2};

fn counters<const N: usize>(pairs: [(&str, u64); N]) -> Counters {
    pairs.into_iter().filter(|(_, value)| *value > 0).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A queueing discipline, but for the name of its interface.
pub fn of(message: &TcMessage) -> Qdisc {
    let (handle, parent) = (message.header.handle, message.header.parent);
    let parent = match parent {
        TcHandle::ROOT => "root".to_owned(),
        TcHandle::INGRESS => "ingress".to_owned(),
        TcHandle { major, minor } => format!("{major:x}:{minor:x}"),
    };
    let mut qdisc = Qdisc { handle: format!("{:x}:", handle.major), parent, ..Qdisc::default() };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
            TcAttribute::Stats2(stats) => stats.iter().for_each(|it| add(&mut qdisc.counters, it)),
            _ => {}
        }
    }
    qdisc
}

fn add(known: &mut Counters, stats: &TcStats2) {
    match stats {
        TcStats2::Basic(it) => known.extend(counters([("bytes", it.bytes), ("packets", it.packets.into())])),
        TcStats2::Queue(it) => known.extend(counters([
            ("drops", it.drops.into()),
            ("overlimits", it.overlimits.into()),
            ("requeues", it.requeues.into()),
            ("qlen_packets", it.qlen.into()),
            ("backlog_bytes", it.backlog.into()),
        ])),
        _ => {}
    }
}

/// What of a queue is a level, and has no difference.
pub const LEVELS: [&str; 2] = ["qlen_packets", "backlog_bytes"];

/// The statistics of an interface.
pub fn of_link(it: &Stats64) -> Counters {
    counters([
        ("rx_packets", it.rx_packets),
        ("tx_packets", it.tx_packets),
        ("rx_bytes", it.rx_bytes),
        ("tx_bytes", it.tx_bytes),
        ("rx_errors", it.rx_errors),
        ("tx_errors", it.tx_errors),
        ("rx_dropped", it.rx_dropped),
        ("tx_dropped", it.tx_dropped),
        ("multicast", it.multicast),
        ("collisions", it.collisions),
        ("rx_length_errors", it.rx_length_errors),
        ("rx_over_errors", it.rx_over_errors),
        ("rx_crc_errors", it.rx_crc_errors),
        ("rx_frame_errors", it.rx_frame_errors),
        ("rx_fifo_errors", it.rx_fifo_errors),
        ("rx_missed_errors", it.rx_missed_errors),
        ("tx_aborted_errors", it.tx_aborted_errors),
        ("tx_carrier_errors", it.tx_carrier_errors),
        ("tx_fifo_errors", it.tx_fifo_errors),
        ("tx_heartbeat_errors", it.tx_heartbeat_errors),
        ("tx_window_errors", it.tx_window_errors),
        ("rx_compressed", it.rx_compressed),
        ("tx_compressed", it.tx_compressed),
        ("rx_nohandler", it.rx_nohandler),
        ("rx_otherhost_dropped", it.rx_otherhost_dropped),
    ])
}
