//! Bundles that earlier releases wrote: `fixtures/releases/VERSION/`. They are real captures, are never written anew, and every
//! later `analyze` must still read them and come to the same end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;

use ktrace_analyzer::cli;
use serde_json::Value;

fn report(bundle: &Path) -> Value {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["analyze", bundle.to_str().unwrap(), "--format", "json", "--all"];
    let exit = cli::run(args.map(Into::into), &mut out, &mut err).unwrap_or_else(|e| panic!("{bundle:?}: {e}"));
    // whole, sealed, and in agreement with itself
    assert_eq!((exit.code(), String::from_utf8_lossy(&err)), (0, "".into()), "{bundle:?}");
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_bundle_of_each_release_is_read_and_judged_as_it_was() {
    let releases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/releases");
    let mut count = 0;
    for release in fs::read_dir(releases).unwrap().map(|entry| entry.unwrap().path()) {
        let expected: Value = serde_json::from_slice(&fs::read(release.join("expected.json")).unwrap()).unwrap();
        let found = report(&release.join("bundle.tgz"));
        for key in ["event_count", "tcp_connection_count", "udp_flow_count", "complete", "duration_ns"] {
            assert_eq!(found["bundle"][key], expected["bundle"][key], "{release:?}: {key}");
        }
        assert_eq!(found["verdict"], expected["verdict"], "{release:?}");
        let first = &found["findings"][0];
        assert_eq!(first["rule"], expected["rule"], "{release:?}");
        for key in ["comm", "pid", "remote"] {
            assert_eq!(first["subject"][key], expected["subject"][key], "{release:?}: {key}");
        }
        count += 1;
    }
    assert!(count > 0, "there is one at least");
}
