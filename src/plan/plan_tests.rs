//! Flags in, plan or refusal out.

use super::*;
use crate::cli::{Request, parse};
use crate::error::Hint;
use crate::plan::naming::Choice;

fn plan(args: &[&str]) -> Result<Plan, PlanError> {
    match parse([&["ktrace", "--node", "n1"], args].concat()).unwrap() {
        Request::Capture(args, origins) => Plan::from_args(&args, &origins),
        other => panic!("not a capture: {other:?}"),
    }
}

fn refusal(args: &[&str]) -> (String, Option<String>) {
    let error = plan(args).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn without_flags_the_plan_is_the_documented_default() {
    let plan = plan(&[]).unwrap();
    let expected = Plan {
        duration: Duration::from_secs(30),
        out_dir: "./out".into(),
        filter: PortFilter::All,
        behind: Behind::default(),
        filters: Filters::default(),
        dns_ports: BTreeSet::from([53]),
        max_events: 500_000,
        sample: 1,
        max_bytes: 512 << 20,
        max_disk_share: share::parse("30%").unwrap(),
        with_connect_latency: true,
        with_retransmits: true,
        with_drops: true,
        with_security: true,
        with_cmdline: false,
        naming: Naming {
            sockets: naming::well_known("/".as_ref()),
            is_runtime_required: false,
            pod_logs: "/var/log".into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            host_root: "/".into(),
        },
        with_conntrack: Choice::Auto,
        with_node: true,
        node: "n1".into(),
        cluster: None,
        labels: BTreeMap::new(),
        ring_bytes: 16 << 20,
        variants: Variants::new(),
        ready_file: None,
        quiet: false,
        stdout: false,
        no_loose: false,
        degraded_ok: false,
        btf: None,
        command: None,
        entries: plan.entries.clone(),
    };
    assert_eq!(plan, expected);
}

#[test]
fn every_effective_value_is_entered_with_its_origin() {
    let entries = plan(&["--duration", "1m", "--dns-only", "--label", "a=b"]).unwrap().entries;
    let entry = |value, from| PlanEntry { value, from };
    assert_eq!(entries["duration"], entry(json!("1m"), PlanSource::Flag));
    assert_eq!(entries["dns-only"], entry(json!(true), PlanSource::Flag));
    assert_eq!(entries["dns-ports"], entry(json!([53]), PlanSource::Default));
    assert_eq!(entries["max-bytes"], entry(json!(536_870_912), PlanSource::Default));
    assert_eq!(entries["label"], entry(json!({"a": "b"}), PlanSource::Flag));
    let names: Vec<_> = entries.keys().map(String::as_str).collect();
    let expected = "degraded-ok dns-only dns-ports duration host-root kubelet-dir label max-bytes max-disk-share \
                    max-events no-loose node out-dir pod-logs quiet ring-bytes sample stdout with-cmdline \
                    with-connect-latency with-conntrack with-cri with-drops with-node with-retransmits with-security";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn dns_only_filters_by_the_dns_ports_and_ports_by_themselves() {
    let dns = plan(&["--dns-only", "--dns-ports", "53,5353"]).unwrap();
    assert_eq!(dns.filter, PortFilter::Dns(BTreeSet::from([53, 5353])));
    let ports = plan(&["--ports", "80,443"]).unwrap();
    assert_eq!(ports.filter, PortFilter::Ports(Listed { wanted: [80, 443].into(), unwanted: [].into() }));
    assert_eq!(ports.dns_ports, BTreeSet::from([53]));
}

#[test]
fn dns_only_and_ports_exclude_each_other() {
    let (message, hint) = refusal(&["--dns-only", "--ports", "80"]);
    assert_eq!(message, "`--dns-only` and `--ports` exclude each other");
    assert!(hint.unwrap().contains("`--dns-ports`"));
    assert!(plan(&["--dns-only=false", "--ports", "80"]).is_ok());
}

#[test]
fn a_runtime_is_asked_where_it_is_said_to_be_or_below_the_hosts_root() {
    let named = plan(&["--cri-socket", "unix:///run/my.sock", "--with-cri", "--host-root", "/host"]).unwrap().naming;
    let sockets = vec!["/run/my.sock".to_owned()];
    let (pod_logs, kubelet_dir) = ("/host/var/log".into(), "/host/var/lib/kubelet".into());
    let host_root = "/host".into();
    assert_eq!(named, Naming { sockets, is_runtime_required: true, pod_logs, kubelet_dir, host_root });
    let found = plan(&["--host-root", "/host", "--pod-logs", "/logs", "--kubelet-dir", "/kubelet"]).unwrap().naming;
    assert!(found.sockets.iter().all(|path| path.starts_with("/host/")) && found.sockets.len() > 4, "{found:?}");
    assert_eq!((found.is_runtime_required, found.pod_logs), (false, "/logs".into()));
    assert_eq!(found.kubelet_dir, std::path::Path::new("/kubelet"));
    assert!(plan(&["--with-cri=false"]).unwrap().naming.sockets.is_empty());
    let (message, hint) = refusal(&["--with-cri=false", "--cri-socket", "/run/my.sock"]);
    assert_eq!(
        (&*message, hint.as_deref()),
        ("`--with-cri=false` and `--cri-socket` exclude each other", Some("drop one of both"))
    );
}

#[test]
fn a_refused_value_is_quoted_as_it_was_given() {
    let (message, hint) = refusal(&["--ports", "80,70000"]);
    assert_eq!(message, "`--ports=80,70000` cannot be used");
    assert_eq!(hint.unwrap(), "pass ports from 1 to 65535");
}

#[test]
fn a_ring_that_is_no_power_of_two_or_out_of_bounds_is_refused() {
    assert_eq!(refusal(&["--ring-bytes", "20MiB"]).1.unwrap(), "pass `16MiB` or `32MiB`");
    assert!(plan(&["--ring-bytes", "128KiB"]).is_err());
    assert!(plan(&["--ring-bytes", "2GiB"]).is_err());
    assert_eq!(plan(&["--ring-bytes", "1GiB"]).unwrap().ring_bytes, 1 << 30);
}

#[test]
fn without_a_node_name_the_host_name_is_taken() {
    let Ok(Request::Capture(args, origins)) = parse(["ktrace"]) else { panic!("not a capture") };
    let host_name = nix::unistd::gethostname().unwrap().to_string_lossy().into_owned();
    assert_eq!(Plan::from_args(&args, &origins).unwrap().node, host_name);
}

#[test]
fn labels_given_as_flags_keep_their_commas() {
    assert_eq!(plan(&["--label", "a=1,b=2"]).unwrap().labels, BTreeMap::from([("a".into(), "1,b=2".into())]));
}

#[test]
fn preparing_creates_the_output_directory_and_clears_the_ready_file() {
    let tmp = tempfile::tempdir().unwrap();
    let (out, ready) = (tmp.path().join("out"), tmp.path().join("ready"));
    std::fs::write(&ready, "ready\n").unwrap();
    let args = ["--out-dir", out.to_str().unwrap(), "--ready-file", ready.to_str().unwrap()];
    plan(&args).unwrap().prepare().unwrap();
    assert!(out.is_dir());
    assert!(!ready.exists());
}

#[test]
fn an_output_directory_below_a_file_is_refused_with_a_hint() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = plan(&["--out-dir", file.path().join("out").to_str().unwrap()]).unwrap().prepare().unwrap_err();
    assert!(matches!(error, PlanError::OutDir { .. }));
    assert_eq!(error.hint().unwrap(), "pass a directory that you may write to with `--out-dir`");
}

#[test]
fn filters_may_be_repeated_and_are_entered_as_given() {
    let plan = plan(&["--cidr", "10.0.0.0/8", "--cidr", "!10.1.0.0/16,fd00::/8", "--ports", "80,!22"]).unwrap();
    assert_eq!(plan.entries["cidr"].value, json!(["10.0.0.0/8", "fd00::/8", "!10.1.0.0/16"]));
    assert_eq!(plan.entries["ports"].value, json!([80, "!22"]));
    assert_eq!((plan.filters.cidr.wanted.len(), plan.filters.cidr.unwanted.len()), (2, 1));
}

#[test]
fn a_filter_for_what_does_not_exist_is_refused_with_a_hint() {
    let (message, hint) = refusal(&["--pid", "1073741824"]);
    assert_eq!(message, "`--pid=1073741824` cannot be used");
    assert!(hint.unwrap().starts_with("look it up with `ps -e`"));
    assert!(refusal(&["--netns", "/run/netns/no-such"]).1.unwrap().contains("`/run/netns/NAME`"));
    assert!(refusal(&["--cgroup", "/no/such/cgroup"]).1.unwrap().contains("/proc/PID/cgroup"));
    // what is excluded may be gone already
    assert!(plan(&["--pid", "!1073741824"]).is_ok());
}

#[test]
fn with_a_command_the_window_is_as_long_as_it_runs_unless_a_duration_is_given() {
    let open = plan(&["--", "true"]).unwrap();
    assert_eq!((open.duration, open.stated_duration()), (Duration::from_secs(3600), None));
    assert_eq!(open.entries["duration"], PlanEntry { value: json!("1h"), from: PlanSource::Default });
    let bounded = plan(&["--duration", "30s", "--", "true", "--quiet"]).unwrap();
    assert_eq!(bounded.stated_duration(), Some(Duration::from_secs(30)));
    assert!(!bounded.quiet);
    assert_eq!(bounded.command.unwrap().argv, ["true", "--quiet"]);
}

#[test]
fn a_flag_stands_above_the_file_that_above_the_profile_that_above_the_default() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "profile = \"full\"\nmax-events = 7\nmax-bytes = \"1MiB\"\nlabel = [\"a=1,2\"]\n").unwrap();
    let plan = plan(&["--config", file.path().to_str().unwrap(), "--max-bytes", "2MiB"]).unwrap();
    let from = |flag: &str| plan.entries[flag].from;
    assert_eq!((plan.max_bytes, from("max-bytes")), (2 << 20, PlanSource::Flag));
    assert_eq!((plan.max_events, from("max-events")), (7, PlanSource::File));
    assert_eq!((plan.ring_bytes, from("ring-bytes")), (64 << 20, PlanSource::Profile));
    assert_eq!(from("duration"), PlanSource::Default);
    assert_eq!(plan.entries["profile"], PlanEntry { value: json!("full"), from: PlanSource::File });
    assert_eq!(plan.labels, BTreeMap::from([("a".into(), "1,2".into())]));
}

#[test]
fn every_profile_is_a_plan() {
    for profile in crate::cli::layers::PROFILES {
        let entries = plan(&["--profile", profile.name]).unwrap().entries;
        assert!(profile.values.iter().all(|(flag, _)| entries[*flag].from == PlanSource::Profile), "{}", profile.name);
    }
}
