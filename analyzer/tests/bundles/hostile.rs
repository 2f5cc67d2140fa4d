//! Bundles that somebody has tampered with: whatever they say, there is a report or one clear error.

use std::path::Path;

use ktrace_analyzer::cli;
use ktrace_analyzer::kb::Kb;
use ktrace_analyzer::report::Report;
use ktrace_analyzer::report::screen::{self, Frame};

use crate::cases;
use crate::scene::write_member;

/// Deterministic noise (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }
}

/// Replaces some numbers by the largest, the smallest and others of their kind.
fn with_odd_numbers(text: &str, noise: &mut Noise) -> String {
    const ODD: [&str; 6] = ["18446744073709551615", "0", "1", "4294967295", "9223372036854775808", "65535"];
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let follows_key = out.ends_with(':') && matches!(c, ',' | '}' | '\n');
        if !digits.is_empty() && follows_key && noise.next(20) == 0 {
            digits = ODD[noise.next(ODD.len())].to_owned();
        }
        out.push_str(&digits);
        digits.clear();
        out.push(c);
    }
    out
}

fn with_odd_bytes(text: &str, noise: &mut Noise) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..bytes.len().div_ceil(2000) {
        let at = noise.next(bytes.len());
        bytes[at] = u8::try_from(noise.next(256)).unwrap();
    }
    bytes
}

/// What fits on a screen of a terminal must do so whatever the bundle says.
fn fits_on_a_screen(dir: &Path, what: &str) {
    let kb = Kb::new().unwrap();
    let Ok((capture, _)) = cli::load(dir, &kb) else { return };
    let mut out = Vec::new();
    let frame = Frame { watched: "a node", bundle: "not kept" };
    screen::write(&mut out, &Report::new(&capture, &kb, "b").unwrap(), frame).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{what}: {text:?}");
    assert!((2..=screen::LINES).contains(&text.lines().count()), "{what}: {text}");
}

/// Reports it, its node and its stories in both formats; what comes out must not steer a terminal.
fn survives(dir: &Path, what: &str) {
    fits_on_a_screen(dir, what);
    for format in ["text", "json", "markdown"] {
        let dir = dir.to_str().unwrap();
        for args in [
            &["analyze", dir, "--all"][..],
            &["analyze", "node", dir, "--all"],
            &["analyze", "story", dir, "--flow", "10.42.1.15", "--limit", "200"],
        ]
        .into_iter()
        .filter(|args| format != "markdown" || !["node", "story"].contains(&args[1]))
        {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let args = [args, &["--format", format]].concat();
            if let Err(e) = cli::run(args.into_iter().map(Into::into), &mut out, &mut err) {
                e.print(&mut err);
            }
            let text = String::from_utf8([out, err].concat()).unwrap();
            let steers = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(steers), "{what}: {text:?}");
        }
    }
}

#[test]
fn numbers_at_their_limits_make_no_report_impossible() {
    let mut noise = Noise(1);
    for case in cases::all() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in (case.build)().members() {
            let text = String::from_utf8(bytes).unwrap();
            write_member(dir.path(), name, with_odd_numbers(&text, &mut noise).as_bytes());
        }
        survives(dir.path(), case.name);
    }
}

#[test]
fn bytes_out_of_place_make_no_report_impossible() {
    let mut noise = Noise(2);
    for case in cases::all() {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in (case.build)().members() {
            let bytes = match name {
                "sockets.jsonl" => bytes,
                _ => with_odd_bytes(&String::from_utf8(bytes).unwrap(), &mut noise),
            };
            write_member(dir.path(), name, &bytes);
        }
        survives(dir.path(), case.name);
    }
}
