//! What the command line means.

use ktrace_bundle::manifest::PlanSource;

use super::*;

fn capture(args: &[&str]) -> (Box<CaptureArgs>, Origins) {
    match parse([&["ktrace"], args].concat()) {
        Ok(Request::Capture(args, origins)) => (args, origins),
        other => panic!("not a capture: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn each_flag_is_also_its_environment_variable() {
    for arg in Cli::command().get_arguments().filter(|arg| !arg.is_positional()) {
        let flag = arg.get_long().unwrap();
        let variable = format!("KTRACE_{}", flag.replace('-', "_").to_uppercase());
        assert_eq!(arg.get_env().unwrap().to_str(), Some(variable.as_str()), "--{flag}");
    }
}

#[test]
fn a_value_follows_an_equals_sign_or_a_space() {
    assert_eq!(capture(&["--duration=5s"]).0.duration, "5s");
    assert_eq!(capture(&["--duration", "5s"]).0.duration, "5s");
}

#[test]
fn a_bare_boolean_is_true_and_the_next_word_is_not_its_value() {
    assert_eq!(capture(&["--dns-only", "--quiet"]).0.dns_only, "true");
    assert_eq!(capture(&["--with-security=false"]).0.with_security, "false");
    assert!(parse(["ktrace", "--with-security", "false"]).is_err());
}

#[test]
fn the_last_of_a_repeated_flag_wins_and_labels_add_up() {
    assert_eq!(capture(&["--duration", "5s", "--duration", "6s"]).0.duration, "6s");
    assert_eq!(capture(&["--label", "a=1", "--label", "b=2"]).0.label, ["a=1", "b=2"]);
}

#[test]
fn a_given_value_is_told_from_a_default() {
    let (_, origins) = capture(&["--max-events", "500000"]);
    assert_eq!(origins.get("max-events"), PlanSource::Flag);
    assert_eq!(origins.get("max-bytes"), PlanSource::Default);
    assert_eq!(origins.get("cluster"), PlanSource::Default);
}

#[test]
fn check_is_a_request_of_its_own_without_the_flags_of_a_capture() {
    assert!(matches!(parse(["ktrace", "check"]), Ok(Request::Check(CheckArgs { btf: None, .. }, _))));
    assert!(parse(["ktrace", "--quiet", "check"]).is_err());
}

fn doctor(args: &[&str]) -> (Box<DoctorArgs>, Origins) {
    match parse([&["ktrace", "doctor"], args].concat()) {
        Ok(Request::Doctor(args, origins)) => (args, origins),
        other => panic!("not a doctor: {other:?}"),
    }
}

#[test]
fn the_doctor_takes_the_flags_of_a_capture_and_is_done_sooner() {
    let (args, origins) = doctor(&["--dns-only", "--comm=api", "--label", "a=b"]);
    assert_eq!((args.capture.duration.as_str(), args.capture.dns_only.as_str()), ("15s", "true"));
    assert_eq!((args.capture.comm, args.capture.label), (vec!["api".to_owned()], vec!["a=b".to_owned()]));
    assert_eq!((args.end_early, args.format, args.fail_on), (true, doctor::Format::Text, None));
    let from = ["dns-only", "duration", "out-dir"].map(|flag| origins.get(flag));
    assert_eq!(from, [PlanSource::Flag, PlanSource::Default, PlanSource::Default]);
    assert_eq!(capture(&[]).0.duration, "30s");
}

#[test]
fn the_doctor_reads_profiles_and_files_as_a_capture_does() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "duration = \"9s\"\nstdout = true\n").unwrap();
    let config = format!("--config={}", file.path().display());
    let (args, origins) = doctor(&["--profile=dns", "--end-early=false", &config]);
    assert_eq!((args.capture.duration.as_str(), args.capture.dns_only.as_str()), ("9s", "true"));
    assert_eq!((args.end_early, args.capture.stdout.as_str()), (false, "false"));
    assert_eq!((origins.get("duration"), origins.get("dns-only")), (PlanSource::File, PlanSource::Profile));
}

#[test]
fn the_doctor_writes_no_events_and_runs_no_command() {
    let refused = |args: &[&str]| match parse([&["ktrace", "doctor"], args].concat()) {
        Err(CliError::NotHere(not_here)) => not_here,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&["--stdout"]), NotHere::Events);
    assert_eq!(refused(&["--quiet", "--", "curl"]), NotHere::Command);
    assert!(parse(["ktrace", "--quiet", "doctor"]).is_err());
}
