//! `analyze events`: the lines of `events.jsonl` behind a finding.
//!
//! Reads the bundle as a stream and writes what matches as it comes. Lines are written by the contract's writer, so
//! what an unknown key said is not repeated and nothing can steer the terminal.

use std::io::{self, Write};
use std::path::Path;

use ktrace_bundle::event::Event;
use ktrace_bundle::line;
use ktrace_bundle::reader::{self, Limits, Record};
use serde_json::Value;

use crate::error::Error;

/// Which events to print.
#[derive(Debug)]
pub struct Query {
    seqs: Vec<u64>,
    conditions: Vec<(String, String)>,
    limit: u64,
}

/// What became of a query.
#[derive(Debug, Default)]
pub struct Printed {
    /// Events read.
    pub read: u64,
    /// Events that matched, printed or not.
    pub matched: u64,
    /// Where the bundle is cut.
    pub cut: Option<String>,
}

impl Query {
    /// Events with one of these line numbers (any, if there are none) that meet every condition `key=value`.
    ///
    /// # Errors
    /// [`Error::Condition`] names a condition without `=`.
    pub fn new(seqs: &[u64], conditions: &[String], limit: u64) -> Result<Self, Error> {
        let split = |c: &String| {
            let pair = c.split_once('=').filter(|(key, _)| !key.is_empty());
            pair.map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| Error::Condition(c.clone()))
        };
        let conditions = conditions.iter().map(split).collect::<Result<_, _>>()?;
        Ok(Self { seqs: seqs.to_vec(), conditions, limit })
    }

    fn matches(&self, seq: u64, line: &[u8]) -> bool {
        if !self.seqs.is_empty() && !self.seqs.contains(&seq) {
            return false;
        }
        if self.conditions.is_empty() {
            return true;
        }
        let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
        self.conditions.iter().all(|(key, wanted)| at(&value, key).is_some_and(|v| reads(v, wanted)))
    }
}

/// The value under a dotted key.
fn at<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(value, |v, k| v.get(k))
}

fn reads(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Number(number) => number.to_string() == wanted,
        Value::Bool(truth) => truth.to_string() == wanted,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Prints the events of a bundle that match.
///
/// # Errors
/// [`Error::Read`] if this is no bundle, [`Error::Write`] if the output breaks.
pub fn print(path: &Path, query: &Query, out: &mut dyn Write) -> Result<Printed, Error> {
    let mut printed = Printed::default();
    let mut broken: Option<io::Error> = None;
    let mut buffer = Vec::new();
    let read = reader::read(path, &Limits::default(), &mut |record| {
        if let (Record::Event(event), None) = (record, &broken) {
            broken = print_one(&event, query, &mut printed, &mut buffer, out).err();
        }
    });
    let read = read.map_err(Error::Read)?;
    if let Some(e) = broken {
        return Err(Error::Write(e));
    }
    printed.cut = read.cut.map(|c| c.to_string());
    Ok(printed)
}

fn print_one(
    event: &Event,
    query: &Query,
    printed: &mut Printed,
    buffer: &mut Vec<u8>,
    out: &mut dyn Write,
) -> io::Result<()> {
    printed.read += 1;
    buffer.clear();
    line::write_event(buffer, event);
    if !query.matches(event.seq, buffer) {
        return Ok(());
    }
    printed.matched += 1;
    if printed.matched > query.limit {
        return Ok(());
    }
    buffer.push(b'\n');
    out.write_all(buffer)
}
