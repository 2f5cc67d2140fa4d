//! The members that are one JSON document each: small, read whole, checked for what they say they are.

use std::io::{BufRead, Read};

use serde::de::DeserializeOwned;

use super::intake::{Intake, Measured, printable};
use super::known::Known;
use super::{ReadError, Record};
use crate::manifest::{Manifest, PartialManifest, SCHEMA_NAME, SCHEMA_VERSION, Schema};
use crate::summary::{SUMMARY_SCHEMA, Summary};
use crate::tracking::{SERVICES_SCHEMA, ServicesReport, TRACKING_SCHEMA, TrackingReport};

impl Intake<'_> {
    pub(super) fn document(&mut self, member: Known, input: &mut dyn BufRead, len: u64) -> Result<(), ReadError> {
        self.measured.insert(member, Measured { bytes: len, lines: None });
        if len > self.limits.max_document_bytes {
            self.cut(member.name(), 0, "it is longer than this reader accepts");
            return Ok(());
        }
        let mut text = Vec::new();
        let end = input.take(len).read_to_end(&mut text);
        match end {
            Err(e) => self.cut(member.name(), 0, &e.to_string()),
            Ok(n) if (n as u64) < len => self.cut(member.name(), 0, &format!("{} bytes are missing", len - n as u64)),
            Ok(_) => return self.parse_document(member, &text),
        }
        Ok(())
    }

    fn parse_document(&mut self, member: Known, text: &[u8]) -> Result<(), ReadError> {
        let Some(schema) = self.json::<Headed>(member, text).map(|h| h.schema) else { return Ok(()) };
        let wanted = match member {
            Known::Summary => SUMMARY_SCHEMA,
            Known::Conntrack => TRACKING_SCHEMA,
            Known::Services => SERVICES_SCHEMA,
            _ => SCHEMA_NAME,
        };
        if schema.name != wanted {
            self.distrust(format!("`{}` is a `{}`, not a `{wanted}`", member.name(), printable(schema.name)));
            return Ok(());
        }
        if schema.version > SCHEMA_VERSION {
            return Err(self.newer(schema.version, SCHEMA_VERSION));
        }
        match member {
            Known::Manifest => {
                if let Some(manifest) = self.json::<Manifest>(member, text) {
                    self.stated = Some((manifest.ledger.clone(), manifest.members.clone()));
                    (self.sink)(Record::Manifest(Box::new(manifest)));
                }
            }
            Known::Summary => {
                if let Some(summary) = self.json::<Summary>(member, text) {
                    (self.sink)(Record::Summary(Box::new(summary)));
                }
            }
            Known::Conntrack => {
                if let Some(tracking) = self.json::<TrackingReport>(member, text) {
                    (self.sink)(Record::Tracking(Box::new(tracking)));
                }
            }
            Known::Services => {
                if let Some(services) = self.json::<ServicesReport>(member, text) {
                    (self.sink)(Record::Services(Box::new(services)));
                }
            }
            _ => {
                if let Some(partial) = self.json::<PartialManifest>(member, text) {
                    (self.sink)(Record::Partial(Box::new(partial)));
                }
            }
        }
        Ok(())
    }

    fn json<T: DeserializeOwned>(&mut self, member: Known, text: &[u8]) -> Option<T> {
        match serde_json::from_slice(text) {
            Ok(value) => Some(value),
            Err(e) => {
                self.distrust(format!("`{}` cannot be read: {}", member.name(), printable(e)));
                None
            }
        }
    }
}

/// The part of a document that says what it is.
#[derive(serde::Deserialize)]
struct Headed {
    schema: Schema,
}
