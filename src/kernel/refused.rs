//! The kernel side's own tables of what it refused → numbers by process and by flow.
//!
//! Read once, when the rings are drained: from then on nothing adds to them. What found no room in a table is in the
//! totals of the counters and in no row.

use ktrace_bundle::event::{Endpoint, EventKind};
use ktrace_bundle::totals::{Numbers, Refused, RefusedFlow, RefusedProcess};
use libbpf_rs::{MapCore, MapFlags};

use super::session::{Session, SessionError};
use super::skel::types::{kt_amount, kt_counters, kt_flow_key, kt_histogram, kt_process_key, kt_process_row};
use crate::hooks::wire::{self, DecodeError};

const HISTOGRAMS: usize = kt_histogram::KT_HIST_MAX.0 as usize;
const BUCKETS: usize = kt_histogram::KT_HIST_BUCKETS.0 as usize;

/// Place and number of values.
type Buckets = Vec<(usize, u64)>;

impl Session {
    /// What was refused since the gate opened; `counters` are those of the same moment.
    ///
    /// # Errors
    /// A table could not be read.
    pub fn refused(&self, counters: &[(EventKind, kt_counters)]) -> Result<Refused, SessionError> {
        let timed = |kind: &EventKind| matches!(kind, EventKind::TcpState | EventKind::Connect);
        let is_any = counters.iter().any(|(kind, c)| timed(kind) && c.refused.events > 0);
        let [handshake, syscall, srtt] = if is_any { self.histograms()? } else { Default::default() };
        Ok(Refused {
            totals: counters.iter().map(|(kind, c)| (*kind, numbers(&c.refused))).collect(),
            processes: rows(&self.skel.maps.process_rows, process)?,
            flows: rows(&self.skel.maps.flow_rows, flow)?,
            handshake,
            syscall,
            srtt,
        })
    }

    /// By `enum kt_histogram`: the buckets that hold something.
    fn histograms(&self) -> Result<[Buckets; HISTOGRAMS], SessionError> {
        let mut found = [const { Buckets::new() }; HISTOGRAMS];
        for (which, buckets) in found.iter_mut().enumerate() {
            for at in 0..BUCKETS {
                let key = u32::try_from(which * BUCKETS + at).unwrap_or(u32::MAX).to_ne_bytes();
                let value = self.skel.maps.histograms.lookup(&key, MapFlags::ANY);
                let value = value.map_err(SessionError::map("cannot read the histograms"))?.unwrap_or_default();
                let n = value.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
                if n > 0 {
                    buckets.push((at, n));
                }
            }
        }
        Ok(found)
    }
}

fn rows<T>(map: &impl MapCore, row: fn(&[u8], &[u8]) -> Result<T, DecodeError>) -> Result<Vec<T>, SessionError> {
    let mut rows = Vec::new();
    for key in map.keys() {
        let value = map.lookup(&key, MapFlags::ANY).map_err(SessionError::map("cannot read what was refused"))?;
        rows.extend(value.map(|value| row(&key, &value)).transpose()?);
    }
    Ok(rows)
}

fn process(key: &[u8], value: &[u8]) -> Result<RefusedProcess, DecodeError> {
    let kt_process_key { start_ns, pid, reserved: _ } = wire::read(key)?;
    let kt_process_row { n, comm } = wire::read(value)?;
    let owner = (pid != 0).then(|| (pid, start_ns, wire::text(&comm)));
    Ok(RefusedProcess { owner, numbers: numbers(&n) })
}

fn flow(key: &[u8], value: &[u8]) -> Result<RefusedFlow, DecodeError> {
    let kt_flow_key { laddr, raddr, netns, lport, rport, family, proto, reserved: _ } = wire::read(key)?;
    Ok(RefusedFlow {
        netns,
        proto: wire::proto_of(proto)?,
        local: Endpoint { addr: wire::address(family, laddr)?, port: wire::port(lport) },
        remote: Endpoint { addr: wire::address(family, raddr)?, port: wire::port(rport) },
        numbers: numbers(&wire::read(value)?),
    })
}

/// Adds up what two CPUs counted.
pub(super) fn add(sum: &mut kt_amount, n: &kt_amount) {
    let kt_amount { events, tx_bytes, rx_bytes, connections, retrans } = n;
    sum.events += events;
    sum.tx_bytes += tx_bytes;
    sum.rx_bytes += rx_bytes;
    sum.connections += connections;
    sum.retrans.iter_mut().zip(retrans).for_each(|(s, n)| *s += n);
}

fn numbers(n: &kt_amount) -> Numbers {
    let kt_amount { events, tx_bytes, rx_bytes, connections, retrans: [data, syn, synack, probe] } = *n;
    Numbers { events, tx_bytes, rx_bytes, connections, data, syn, synack, probe, ..Numbers::default() }
}
