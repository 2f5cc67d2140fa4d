//! The command line from outside: what needs no root, attaches nothing and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::{Command, Output, Stdio};

fn ktrace(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktrace"));
    // variables of the machine that runs the tests must not decide them
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KTRACE_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    ktrace(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 2, nothing on stdout, and these lines on stderr.
#[track_caller]
fn refused(output: &Output, lines: &[&str]) {
    assert_eq!(stderr(output).lines().collect::<Vec<_>>(), lines);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn help_goes_to_stdout_and_names_every_flag() {
    let output = run(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    for flag in [
        "duration",
        "out-dir",
        "dns-only",
        "dns-ports",
        "ports",
        "cidr",
        "netns",
        "pid",
        "comm",
        "cgroup",
        "namespace",
        "pod",
        "container",
        "max-events",
        "config",
        "profile",
        "max-bytes",
        "max-disk-share",
        "stdout",
        "no-loose",
        "degraded-ok",
        "with-connect-latency",
        "with-retransmits",
        "with-drops",
        "with-security",
        "with-cmdline",
        "pod-logs",
        "kubelet-dir",
        "node",
        "cluster",
        "label",
        "ring-bytes",
        "btf",
        "ready-file",
        "quiet",
    ] {
        assert!(text.contains(&format!("  --{flag}")), "--{flag} is not in the help");
    }
    assert!(text.contains("Examples:") && text.contains("Exit codes:") && text.contains("check"));
}

#[test]
fn the_help_of_the_doctor_fits_its_purpose_and_says_how_it_ends() {
    let output = run(&["doctor", "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    for flag in ["duration", "dns-only", "ports", "pod", "out-dir", "end-early", "format", "fail-on", "degraded-ok"] {
        assert!(text.contains(&format!("  --{flag}")), "--{flag} is not in the help");
    }
    assert!(text.contains("[default: 15s]") && text.contains("Examples:") && text.contains("Exit codes"), "{text}");
    // what nobody needs at night is in the help of a capture
    assert!(!text.contains("  --stdout") && !text.contains("  --ring-bytes"), "{text}");
}

#[test]
fn what_the_doctor_cannot_do_is_refused_with_who_can() {
    refused(
        &run(&["doctor", "--", "curl"]),
        &[
            "error: `ktrace doctor` runs no command",
            "hint: capture while it runs with `ktrace -- CMD`, then `analyze` the bundle",
        ],
    );
}

#[test]
fn version_goes_to_stdout() {
    let output = run(&["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.starts_with(concat!("ktrace ", env!("CARGO_PKG_VERSION"))), "{text}");
}

#[test]
fn help_into_a_closed_pipe_ends_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = ktrace(&["--help"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn an_error_into_a_closed_stderr_keeps_its_exit_code() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(ktrace(&["--duration", "30"]).stderr(writer).status().unwrap().code(), Some(2));
}

#[test]
fn an_unknown_flag_is_refused_with_its_neighbour() {
    refused(&run(&["--dns-onyl"]), &["error: unknown flag `--dns-onyl`", "hint: did you mean `--dns-only`"]);
}

#[test]
fn a_duration_without_a_unit_is_refused() {
    refused(
        &run(&["--duration", "30"]),
        &["error: `--duration=30` cannot be used", "caused by: `30` has no unit", "hint: did you mean `30s`"],
    );
}

#[test]
fn a_port_beyond_the_range_is_refused() {
    refused(
        &run(&["--ports=70000"]),
        &[
            "error: `--ports=70000` cannot be used",
            "caused by: port 70000 is not between 1 and 65535",
            "hint: pass ports from 1 to 65535",
        ],
    );
}

#[test]
fn a_btf_that_is_none_is_refused_with_a_remedy_whoever_asks() {
    let lines = [
        "error: `--btf=/` cannot be used",
        "caused by: it is not a regular file",
        "hint: pass the BTF of exactly this kernel (`uname -r`), raw or as the uncompressed `vmlinux` with its `.BTF` \
         section; BTFHub keeps those of distributions",
    ];
    refused(&run(&["--btf", "/"]), &lines);
    refused(&run(&["check", "--btf", "/"]), &lines);
    let by_variable = "error: `KTRACE_BTF=/` cannot be used";
    refused(&ktrace(&[]).env("KTRACE_BTF", "/").output().unwrap(), &[by_variable, lines[1], lines[2]]);
    refused(&ktrace(&["check"]).env("KTRACE_BTF", "/").output().unwrap(), &[by_variable, lines[1], lines[2]]);
}

#[test]
fn a_node_name_with_a_slash_is_refused() {
    refused(
        &run(&["--node", "../etc/x"]),
        &[
            "error: `--node=../etc/x` cannot be used",
            "caused by: it contains '/'",
            "hint: use letters, digits, `.`, `_` and `-` only",
        ],
    );
}

#[test]
fn dns_only_with_ports_is_refused() {
    refused(
        &run(&["--dns-only", "--ports", "80"]),
        &[
            "error: `--dns-only` and `--ports` exclude each other",
            "hint: pass the ports that speak DNS with `--dns-ports`, or drop one of both",
        ],
    );
}

#[test]
fn an_output_directory_that_cannot_be_is_refused_before_anything_is_attached() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let dir = file.path().join("out").display().to_string();
    refused(
        &run(&["--out-dir", &dir]),
        &[
            &format!("error: cannot write into the output directory `{dir}`"),
            "caused by: Not a directory (os error 20)",
            "hint: pass a directory that you may write to with `--out-dir`",
        ],
    );
}

#[test]
fn an_output_directory_that_takes_no_files_is_refused_even_as_root() {
    let output = run(&["--out-dir", "/proc/self"]);
    let text = stderr(&output);
    assert!(text.starts_with("error: cannot write into the output directory `/proc/self`\n"), "{text}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_ready_file_in_a_missing_directory_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (out, ready) = (tmp.path().join("out"), tmp.path().join("none/ready"));
    let output = run(&["--out-dir", out.to_str().unwrap(), "--ready-file", ready.to_str().unwrap()]);
    refused(
        &output,
        &[
            &format!("error: cannot create the ready file `{}`", ready.display()),
            "caused by: No such file or directory (os error 2)",
            "hint: pass a file in a directory that you may write to",
        ],
    );
}

#[test]
fn a_variable_is_read_and_named_when_refused() {
    let output = ktrace(&[]).env("KTRACE_MAX_BYTES", "512M").output().unwrap();
    refused(
        &output,
        &[
            "error: `KTRACE_MAX_BYTES=512M` cannot be used",
            "caused by: `512M` may mean two sizes",
            "hint: write `512MiB` or `512MB`",
        ],
    );
}

#[test]
fn an_empty_variable_is_refused() {
    let output = ktrace(&[]).env("KTRACE_PORTS", "").output().unwrap();
    refused(
        &output,
        &[
            "error: `KTRACE_PORTS=` cannot be used",
            "caused by: the value is empty",
            "hint: give it a value, or leave it out",
        ],
    );
}

#[test]
fn a_flag_wins_over_its_variable() {
    let output = ktrace(&["--duration", "0s"]).env("KTRACE_DURATION", "soon").output().unwrap();
    assert!(stderr(&output).starts_with("error: `--duration=0s` cannot be used\n"), "{}", stderr(&output));
}

#[test]
fn labels_in_a_variable_are_separated_by_commas() {
    let output = ktrace(&[]).env("KTRACE_LABEL", "a=1,b").output().unwrap();
    assert!(stderr(&output).starts_with("error: `KTRACE_LABEL=b` cannot be used\n"), "{}", stderr(&output));
}

#[test]
fn text_that_would_drive_the_terminal_is_shown_instead() {
    let output = run(&["--cluster", "\u{1b}[2J"]);
    assert!(stderr(&output).starts_with("error: `--cluster=\\u{1b}[2J` cannot be used\n"), "{}", stderr(&output));
}

#[test]
fn a_command_that_is_not_there_is_refused_before_anything_is_attached() {
    let tmp = tempfile::tempdir().unwrap();
    let out = tmp.path().join("out");
    let output = ktrace(&["--out-dir", out.to_str().unwrap(), "--", "no-such-command", "-x"]).output().unwrap();
    refused(
        &output,
        &["error: `no-such-command` was not found in `PATH`", "hint: check the spelling, or give its path"],
    );
    assert!(!out.exists());
    let dir = tmp.path().display().to_string();
    refused(
        &run(&["--", &dir]),
        &[
            &format!("error: `{dir}` cannot be run: Is a directory"),
            "hint: pass a program that you may execute; a script needs `chmod +x`",
        ],
    );
}

#[test]
fn a_share_without_a_percent_sign_is_refused_with_the_one_that_was_meant() {
    refused(
        &run(&["--max-disk-share", "0.3"]),
        &["error: `--max-disk-share=0.3` cannot be used", "caused by: `0.3` has no `%`", "hint: did you mean `30%`"],
    );
}

#[test]
fn hooks_are_told_to_anybody_and_an_unknown_one_is_met_with_its_neighbour() {
    let output = run(&["hooks", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    assert!(text.starts_with("tcp_state ") && text.contains("\nudp "), "{text}");
    let text = String::from_utf8(run(&["hooks", "show", "connect"]).stdout).unwrap();
    assert!(text.contains("syscall_ns") && text.contains("unless `--with-connect-latency=false`"), "{text}");
    refused(&run(&["hooks", "show", "upd"]), &["error: there is no hook `upd`", "hint: did you mean `udp`"]);
}

/// Runs with a configuration of this text.
fn configured(text: &str, flags: &[&str]) -> (String, Output) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let path = file.path().display().to_string();
    let output = run(&[&["--config", &path], flags].concat());
    (path, output)
}

#[test]
fn an_unknown_key_of_a_configuration_is_refused_with_its_neighbour() {
    let (path, output) = configured("dns_only = true\n", &[]);
    let error = format!("error: unknown key `dns_only` in the configuration `{path}`");
    refused(&output, &[&error, "hint: did you mean `dns-only`"]);
}

#[test]
fn a_value_of_a_configuration_is_named_when_refused_and_gives_way_to_a_flag() {
    let (_, output) = configured("duration = \"soon\"\n", &[]);
    assert!(stderr(&output).starts_with("error: `duration` = `soon` in the configuration cannot be used\n"));
    let (_, output) = configured("duration = \"soon\"\n", &["--duration", "0s"]);
    assert!(stderr(&output).starts_with("error: `--duration=0s` cannot be used\n"), "{}", stderr(&output));
}

#[test]
fn a_profile_that_is_not_there_is_refused_with_those_that_are() {
    refused(
        &run(&["--profile", "dsn"]),
        &["error: there is no profile `dsn`", "hint: the profiles are `dns`, `connect`, `service`, `full`"],
    );
}

#[test]
fn an_unknown_variable_is_warned_about() {
    // nothing is captured: the directory cannot be
    let output = ktrace(&["--out-dir", "/proc/self"]).env("KTRACE_DURATOIN", "5s").output().unwrap();
    let text = stderr(&output);
    let warning = "warning: the variable `KTRACE_DURATOIN` is no flag of ktrace, and has no effect\n\
                   hint: did you mean `KTRACE_DURATION`\n";
    assert!(text.starts_with(warning), "{text}");
}
