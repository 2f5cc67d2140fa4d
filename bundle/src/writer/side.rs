//! A member of lines beside the events, with a bound of its own: `sockets.jsonl`, `coverage.jsonl`, `workloads.jsonl`,
//! `processes.jsonl`, `flows.jsonl`, and those of `node/`.

use std::fs::File;

use super::journal::Journal;
use super::loose::Loose;
use super::{BundleWriter, WriteError};
use crate::coverage::{LossRecord, MAX_COVERAGE};
use crate::event::SocketRecord;
use crate::flow::{FlowRecord, MAX_FLOWS};
use crate::line::{MAX_LINE_BYTES, write_socket};
use crate::manifest::Member;
use crate::node::{MAX_HOST, MAX_NETWORK, NodeRecord};
use crate::process::{MAX_PROCESSES, ProcessRecord};
use crate::workload::{MAX_WORKLOADS, WorkloadRecord};

/// Lines that `sockets.jsonl` holds at most; more are counted as omitted.
pub const MAX_SOCKETS: u64 = 200_000;

/// One such member.
#[derive(Debug)]
pub(super) struct Side {
    name: &'static str,
    journal: Journal<File, ()>,
    most: u64,
    omitted: u64,
}

impl Side {
    fn create(loose: &Loose, name: &'static str, most: u64) -> Result<Self, WriteError> {
        Ok(Self { name, journal: Journal::new(loose.create_file(name)?), most, omitted: 0 })
    }

    /// Takes a line without its newline.
    fn push(&mut self, line: &mut Vec<u8>, loose: &Loose) -> Result<(), WriteError> {
        if self.journal.lines() >= self.most || line.len() > MAX_LINE_BYTES {
            self.omitted += 1;
            return Ok(());
        }
        line.push(b'\n');
        self.journal.push(line, ()).map_err(|e| WriteError::at(&loose.path(self.name), e))
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sides {
    sockets: Side,
    coverage: Side,
    workloads: Side,
    processes: Side,
    flows: Side,
    network: Side,
    host: Side,
}

impl Sides {
    pub(super) fn create(loose: &Loose) -> Result<Self, WriteError> {
        Ok(Self {
            sockets: Side::create(loose, "sockets.jsonl", MAX_SOCKETS)?,
            coverage: Side::create(loose, "coverage.jsonl", MAX_COVERAGE)?,
            workloads: Side::create(loose, "workloads.jsonl", MAX_WORKLOADS)?,
            processes: Side::create(loose, "processes.jsonl", MAX_PROCESSES)?,
            flows: Side::create(loose, "flows.jsonl", MAX_FLOWS)?,
            network: Side::create(loose, "node/network.jsonl", MAX_NETWORK)?,
            host: Side::create(loose, "node/host.jsonl", MAX_HOST)?,
        })
    }

    fn each(&self) -> [&Side; 7] {
        let Self { sockets, coverage, workloads, processes, flows, network, host } = self;
        [sockets, coverage, workloads, processes, flows, network, host]
    }

    fn each_mut(&mut self) -> [&mut Side; 7] {
        let Self { sockets, coverage, workloads, processes, flows, network, host } = self;
        [sockets, coverage, workloads, processes, flows, network, host]
    }

    pub(super) fn flush(&mut self, loose: &Loose) -> Result<(), WriteError> {
        let mut flush = |side: &mut Side| side.journal.flush().map_err(|e| WriteError::at(&loose.path(side.name), e));
        self.each_mut().into_iter().try_for_each(&mut flush)
    }

    pub(super) fn settle(&mut self) {
        self.each_mut().into_iter().for_each(|side| side.journal.settle());
    }

    pub(super) fn sync(&self, loose: &Loose) -> Result<(), WriteError> {
        let sync =
            |side: &Side| side.journal.medium().sync_all().map_err(|e| WriteError::at(&loose.path(side.name), e));
        self.each().into_iter().try_for_each(sync)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = Member> {
        self.each().into_iter().map(|side| Member {
            name: side.name.to_owned(),
            bytes: side.journal.bytes(),
            records: Some(side.journal.lines()),
            omitted_count: Some(side.omitted),
        })
    }
}

impl BundleWriter {
    /// Writes a line of `sockets.jsonl`, unless [`MAX_SOCKETS`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_socket(&mut self, socket: &SocketRecord) -> Result<(), WriteError> {
        self.line.clear();
        write_socket(&mut self.line, socket);
        let outcome = self.sides.sockets.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }

    /// Writes a line of `coverage.jsonl`, unless [`MAX_COVERAGE`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_loss(&mut self, loss: &LossRecord) -> Result<(), WriteError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, loss)?;
        let outcome = self.sides.coverage.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }

    /// Writes a line of `workloads.jsonl`, unless [`MAX_WORKLOADS`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_workload(&mut self, workload: &WorkloadRecord) -> Result<(), WriteError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, workload)?;
        let outcome = self.sides.workloads.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }

    /// Writes a line of `processes.jsonl`, unless [`MAX_PROCESSES`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_process(&mut self, process: &ProcessRecord) -> Result<(), WriteError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, process)?;
        let outcome = self.sides.processes.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }

    /// Writes a line of `flows.jsonl`, unless [`MAX_FLOWS`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_flow(&mut self, flow: &FlowRecord) -> Result<(), WriteError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, flow)?;
        let outcome = self.sides.flows.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }

    /// Writes a line of `node/network.jsonl`, or of `node/host.jsonl` where it is about no network namespace, unless
    /// [`MAX_NETWORK`] or [`MAX_HOST`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_node(&mut self, record: &NodeRecord) -> Result<(), WriteError> {
        self.push_node_line(&serde_json::to_vec(record)?, record.netns.is_some())
    }

    /// The same of a record that somebody else has made a line of, without its end; `is_of_network`: it has a `netns`.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_node_line(&mut self, line: &[u8], is_of_network: bool) -> Result<(), WriteError> {
        self.line.clear();
        self.line.extend_from_slice(line);
        let Sides { network, host, .. } = &mut self.sides;
        let side = if is_of_network { network } else { host };
        let outcome = side.push(&mut self.line, &self.loose);
        self.or_give_up(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LINE_VERSION;
    use crate::ledger::DropReason;
    use crate::reader::{self, Limits, Record};
    use crate::testing::a_manifest;
    use crate::workload::Workload;
    use crate::writer::{BundleName, WriterCaps};

    /// Writes with `fill`, seals, and reads both forms with `take`; returns the members.
    fn round(fill: impl Fn(&mut BundleWriter), mut take: impl FnMut(Record)) -> Vec<Member> {
        let out = tempfile::tempdir().unwrap();
        let manifest = a_manifest(&[]);
        let name = BundleName { node: "n".into(), at: manifest.head.start_at };
        let caps = WriterCaps { max_bytes: 1 << 20 };
        let mut writer = BundleWriter::create(out.path(), &name, manifest.head.clone(), caps).unwrap();
        fill(&mut writer);
        let summary = crate::totals::SummaryBuilder::new().build(&manifest, &crate::dns::DnsPairs::new([53].into(), 1));
        let sealed = writer.seal(manifest, &summary).unwrap();
        let mut members = Vec::new();
        for path in [sealed.tgz, sealed.dir] {
            let report = reader::read(&path, &Limits::default(), &mut |record| match record {
                Record::Manifest(m) => members = m.members,
                other => take(other),
            });
            assert_eq!(report.unwrap().integrity, Vec::<String>::new());
        }
        members
    }

    #[test]
    fn losses_are_read_as_they_were_written_up_to_their_bound_and_the_rest_is_counted() {
        let loss = |second: u64| LossRecord {
            v: LINE_VERSION,
            from_ns: second * 1_000_000_000,
            to_ns: (second + 1) * 1_000_000_000,
            undated: second == 1,
            hook: "udp".into(),
            seen: 10,
            written: 8,
            dropped: [(DropReason::RingFull, 2)].into(),
            missed: second,
        };
        let losses: Vec<_> = (0..MAX_COVERAGE).map(loss).collect();
        let mut read = Vec::new();
        let fill = |writer: &mut BundleWriter| {
            losses.iter().for_each(|loss| writer.push_loss(loss).unwrap());
            (0..5).for_each(|second| writer.push_loss(&loss(second)).unwrap());
        };
        let members =
            round(fill, |record| read.extend(if let Record::Loss(loss) = record { Some(loss) } else { None }));
        assert_eq!(read.len(), 2 * losses.len());
        assert!(read[..losses.len()] == losses && read[losses.len()..] == losses);
        let member = members.iter().find(|m| m.name == "coverage.jsonl").unwrap();
        assert_eq!((member.records, member.omitted_count), (Some(MAX_COVERAGE), Some(5)));
    }

    #[test]
    fn processes_are_read_as_they_were_written() {
        let shell = ProcessRecord::new(7, 70, 1, "sh".into());
        let whole = ProcessRecord {
            exe: Some("/bin/curl".into()),
            is_as_called: true,
            uid: Some(0),
            cgroup_id: Some(12),
            exit_at: Some(chrono::DateTime::UNIX_EPOCH),
            cmdline: Some("curl \u{1b}[31m".into()),
            ..ProcessRecord::new(8, 80, 7, "curl".into())
        };
        let unknown = ProcessRecord { why: [("exe".into(), "gone".into())].into(), ..shell.clone() };
        let written = [shell, whole, unknown];
        let mut read = Vec::new();
        let fill = |writer: &mut BundleWriter| written.iter().for_each(|it| writer.push_process(it).unwrap());
        round(fill, |record| read.extend(if let Record::Process(it) = record { Some(*it) } else { None }));
        assert_eq!(read, [written.as_slice(), &written].concat(), "of the tgz and of the directory");
    }

    #[test]
    fn workloads_are_read_as_they_were_written() {
        let nameless = Workload::of_cgroup("0b1c6c2e-4a77-4d8a-9d2b-3f5e8c7a9b10".into());
        let named = Workload {
            pod: Some("api-1".into()),
            container_id: Some("4f".repeat(32)),
            workload: Some("api".into()),
            workload_from: Some("job-name".into()),
            ..nameless.clone()
        };
        let of = |cgroup_id, k8s, why: &[(&str, &str)]| WorkloadRecord {
            v: LINE_VERSION,
            cgroup_id,
            k8s,
            created_at: None,
            ended_at: None,
            why: why.iter().map(|(key, reason)| ((*key).to_owned(), (*reason).to_owned())).collect(),
        };
        let written = [of(7, nameless, &[("k8s.pod", "not_found"), ("cgroup_id", "v1:memory")]), of(8, named, &[])];
        let mut read = Vec::new();
        let fill = |writer: &mut BundleWriter| written.iter().for_each(|it| writer.push_workload(it).unwrap());
        round(fill, |record| read.extend(if let Record::Workload(it) = record { Some(it) } else { None }));
        assert_eq!(read, [written.clone(), written].concat());
    }
}
