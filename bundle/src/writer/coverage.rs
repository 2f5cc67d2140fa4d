//! `coverage.jsonl` of a bundle that is being written.

use super::{BundleWriter, WriteError};
use crate::coverage::{LossRecord, MAX_COVERAGE};

impl BundleWriter {
    /// Writes a line of `coverage.jsonl`, unless [`MAX_COVERAGE`] are there.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn push_loss(&mut self, loss: &LossRecord) -> Result<(), WriteError> {
        if self.coverage.lines() >= MAX_COVERAGE {
            self.omitted_losses += 1;
            return Ok(());
        }
        self.line.clear();
        serde_json::to_writer(&mut self.line, loss)?;
        self.line.push(b'\n');
        let outcome = self.coverage.push(&self.line, ());
        self.or_give_up(outcome.map_err(|e| WriteError::at(&self.loose.path("coverage.jsonl"), e)))
    }
}

#[cfg(test)]
mod tests {
    use crate::event::LINE_VERSION;
    use crate::ledger::DropReason;
    use crate::reader::{self, Limits, Record};
    use crate::testing::a_manifest;
    use crate::writer::{BundleName, WriterCaps};

    use super::*;

    #[test]
    fn losses_are_read_as_they_were_written_up_to_their_bound_and_the_rest_is_counted() {
        let out = tempfile::tempdir().unwrap();
        let manifest = a_manifest(&[]);
        let name = BundleName { node: "n".into(), at: manifest.head.start_at };
        let caps = WriterCaps { max_bytes: 1 << 20 };
        let mut writer = BundleWriter::create(out.path(), &name, manifest.head.clone(), caps).unwrap();
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
        losses.iter().for_each(|loss| writer.push_loss(loss).unwrap());
        (0..5).for_each(|second| writer.push_loss(&loss(second)).unwrap());
        let summary = crate::totals::SummaryBuilder::new().build(&manifest, &crate::dns::DnsPairs::new([53].into(), 1));
        let sealed = writer.seal(manifest, &summary).unwrap();
        for path in [sealed.tgz, sealed.dir] {
            let (mut read, mut members) = (Vec::new(), Vec::new());
            let report = reader::read(&path, &Limits::default(), &mut |record| match record {
                Record::Loss(loss) => read.push(loss),
                Record::Manifest(m) => members = m.members,
                _ => {}
            });
            assert_eq!((report.unwrap().integrity, read.len()), (Vec::new(), losses.len()));
            assert!(read == losses);
            let member = members.iter().find(|m| m.name == "coverage.jsonl").unwrap();
            assert_eq!((member.records, member.omitted_count), (Some(MAX_COVERAGE), Some(5)));
        }
    }
}
