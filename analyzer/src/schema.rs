//! The JSON Schemas (draft 2020-12) of what is read and written, as part of the program: `analyzer/schema/*.json`.
//!
//! Written by hand, since lines of a bundle are: a test holds them to every bundle and every report of the fixtures.

/// Of the files of a bundle, by name.
pub const BUNDLE: &str = include_str!("../schema/bundle.json");

/// Of `analyze BUNDLE --format json`.
pub const FINDINGS: &str = include_str!("../schema/findings.json");
