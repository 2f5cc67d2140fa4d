//! The keys of a line, in the order in which they are written: the one table that both directions are made from.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess};

use super::put::Put;
use super::reading::{Keys, Table, Text, read};
use super::values::{CapsEff, End, Kind, Timestamp, Tuple};
use crate::attribution::OwnerSource;
use crate::event::{PacketDir, Proto, Role, When};
use crate::nat::Nat;
use crate::peer::PeerVia;
use crate::tcp::TcpState;
use crate::why::Why;
use crate::workload::Via;

/// Declares a struct whose fields are keys: [`read`] reads it, [`Put`] writes it, absent fields are not written. A name after the
/// fields is that of a count of the keys that are none of them.
macro_rules! keys {
    ($(#[$doc:meta])* $name:ident$(<$life:lifetime>)? { $($field:ident $key:literal: $type:ty,)* } $($rest:ident)?) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name$(<$life>)? {
            $(pub $field: $type,)*
            $(pub $rest: u64,)?
        }

        impl<'de$(: $life, $life)?> Deserialize<'de> for $name$(<$life>)? {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let mut object = Self::default();
                read(d, &mut object)?;
                Ok(object)
            }
        }

        impl<'de$(: $life, $life)?> Keys<'de> for $name$(<$life>)? {
            fn table() -> &'static Table {
                static TABLE: Table = Table::of(&[$($key),*]);
                &TABLE
            }

            fn take<A: MapAccess<'de>>(&mut self, place: usize, map: &mut A) -> Result<(), A::Error> {
                #[allow(non_camel_case_types, reason = "they are the fields")]
                enum Place { $($field),* }
                $(if place == Place::$field as usize {
                    self.$field = map.next_value()?;
                    return Ok(());
                })*
                Ok(())
            }

            $(fn skipped(&mut self) {
                self.$rest += 1;
            })?
        }

        impl$(<$life>)? $name$(<$life>)? {
            /// Appends one JSON object.
            pub fn write(&self, out: &mut Vec<u8>) {
                out.push(b'{');
                $(self.$field.put(concat!("\"", $key, "\":"), out);)*
                // every key that was put left a comma behind
                if out.last() == Some(&b',') {
                    out.pop();
                }
                out.push(b'}');
            }
        }
    };
}

keys! {
    /// Every key of version 1 that this crate handles.
    Line<'a> {
        v "v": Option<u32>,
        seq "seq": Option<u64>,
        ts "ts": Option<Timestamp>,
        kind "type": Option<Text<'a>>,
        when "when": Option<When>,
        node "node": Option<Text<'a>>,
        comm "comm": Option<Text<'a>>,
        thread "thread": Option<Text<'a>>,
        pid "pid": Option<u32>,
        tid "tid": Option<u32>,
        ppid "ppid": Option<u32>,
        uid "uid": Option<u32>,
        gid "gid": Option<u32>,
        tuple "tuple": Option<Tuple>,
        old_state "old_state": Option<TcpState>,
        new_state "new_state": Option<TcpState>,
        handshake_ns "handshake_ns": Option<u64>,
        syn_retrans_count "syn_retrans_count": Option<u64>,
        bytes "bytes": Option<u64>,
        dns_rtt_ns "dns_rtt_ns": Option<u64>,
        query_seq "query_seq": Option<u64>,
        ambiguous "ambiguous": bool,
        late "late": bool,
        duplicate "duplicate": bool,
        sample "sample": Option<u64>,
        asked "asked": Option<End>,
        syscall_ns "syscall_ns": Option<u64>,
        what "kind": Option<Kind>,
        state "state": Option<TcpState>,
        dir "dir": Option<PacketDir>,
        reason "reason": Option<Text<'a>>,
        reason_id "reason_id": Option<u32>,
        symbol "symbol": Option<Text<'a>>,
        dev "dev": Option<Text<'a>>,
        count "count": Option<u64>,
        first_boot_ns "first_boot_ns": Option<u64>,
        queued_bytes "queued_bytes": Option<u64>,
        duration_ns "duration_ns": Option<u64>,
        rx_queue_bytes "rx_queue_bytes": Option<u64>,
        tx_queue_bytes "tx_queue_bytes": Option<u64>,
        age_ns "age_ns": Option<u64>,
        backlog "backlog": Option<u64>,
        accept_queue "accept_queue": Option<u64>,
        tx_bytes "tx_bytes": Option<u64>,
        rx_bytes "rx_bytes": Option<u64>,
        tx_segs_count "tx_segs_count": Option<u64>,
        rx_segs_count "rx_segs_count": Option<u64>,
        retrans_count "retrans_count": Option<u64>,
        srtt_us "srtt_us": Option<u64>,
        min_rtt_us "min_rtt_us": Option<u64>,
        error "error": Option<Text<'a>>,
        errno "errno": Option<u16>,
        soft_error "soft_error": bool,
        nonblocking "nonblocking": bool,
        time_wait "time_wait": bool,
        gave_up_after_ns "gave_up_after_ns": Option<u64>,
        proto "proto": Option<Proto>,
        laddr "laddr": Option<IpAddr>,
        lport "lport": Option<u16>,
        raddr "raddr": Option<IpAddr>,
        rport "rport": Option<u16>,
        role "role": Option<Role>,
        socket "socket": Option<u64>,
        boot_ns "boot_ns": Option<u64>,
        cpu "cpu": Option<u32>,
        owner "owner": Option<OwnerSource>,
        proc_start_ns "proc_start_ns": Option<u64>,
        ns "ns": Option<Namespaces>,
        sec "sec": Option<Sec>,
        cgroup_id "cgroup_id": Option<u64>,
        k8s "k8s": Option<K8s<'a>>,
        unit "unit": Option<Text<'a>>,
        peer "peer": Option<PeerKeys<'a>>,
        conntrack "conntrack": Option<Arc<Nat>>,
        why "why": Why,
    }
    rest
}

keys! {
    /// Inode numbers of namespaces.
    Namespaces {
        net "net": Option<u32>,
        mnt "mnt": Option<u32>,
        pid "pid": Option<u32>,
        user "user": Option<u32>,
    }
}

keys! {
    /// A container of a pod.
    K8s<'a> {
        pod_uid "pod_uid": Option<Text<'a>>,
        namespace "namespace": Option<Text<'a>>,
        pod "pod": Option<Text<'a>>,
        container "container": Option<Text<'a>>,
        container_id "container_id": Option<Text<'a>>,
        workload "workload": Option<Text<'a>>,
        workload_from "workload_from": Option<Text<'a>>,
        via "via": Option<Via>,
    }
}

keys! {
    /// The remote end.
    PeerKeys<'a> {
        namespace "namespace": Option<Text<'a>>,
        pod "pod": Option<Text<'a>>,
        node "node": Option<Text<'a>>,
        via "via": Option<PeerVia>,
    }
}

keys! {
    /// Security context.
    Sec {
        seccomp_mode "seccomp_mode": Option<u32>,
        caps_eff "caps_eff": Option<CapsEff>,
    }
}
