//! Filters by what a pod and its container are called, all against the same traffic.

use std::collections::{BTreeSet, HashMap};

use ktrace_bundle::event::{Event, Role};
use ktrace_traffic::Truth;

use super::{Ports, capture, sockets};
use crate::filters::stop;
use crate::program::Program;
use crate::runtime::node::{Node, Pod};
use crate::runtime::servers::{ROUND, Servers};
use crate::{Test, tests};

pub fn tests() -> Vec<Test> {
    tests![a_filter_by_pod_keeps_exactly_its_sockets_also_of_pods_that_start_later]
}

/// What a filter is for, as a rule about a pod's name and its container's; `None`: what is in no pod.
type Rule = fn(Option<(&str, &str)>) -> bool;

fn a_filter_by_pod_keeps_exactly_its_sockets_also_of_pods_that_start_later() {
    let node = Node::start();
    let servers = Servers::start(&node);
    let early = [("api-0", false), ("agent-1", true)].map(|(name, on_host)| {
        let pod = Pod::new(name, on_host);
        (node.run(&pod, "main", "exec sleep 1000"), pod)
    });
    let filters: [(&[&str], &str, Rule); 5] = [
        (&["--pod", "api-*,web-0"], "pod", |it| it.is_some_and(|(pod, _)| pod != "agent-1")),
        (&["--pod", "!api-0"], "pod", |it| it.is_none_or(|(pod, _)| pod != "api-0")),
        (&["--namespace", "shop", "--container", "!web"], "namespace", |it| it.is_some_and(|(_, name)| name != "web")),
        (&["--namespace", "!shop"], "namespace", |it| it.is_none()),
        (&["--namespace", "bank"], "namespace", |_| false),
    ];
    let captures = filters.map(|(flags, filter, rule)| {
        let flags = [flags, &["--ring-bytes", "256KiB", "--pod-logs", "/nonexistent"]].concat();
        (capture(&node.socket(), &flags), flags, filter, rule)
    });
    // by namespace and socket: whose it is
    let mut expected: HashMap<_, Option<(&str, &str)>> = HashMap::new();
    let mut add = |netns: u32, told: &[Truth], whose| {
        expected.extend(sockets(told).into_iter().map(|socket| ((netns, socket), whose)));
    };
    // twice: what the kernel has to ask about, and what it knows by then
    for _ in 0..2 {
        for (running, pod) in &early {
            let told = [node.exec(running, &servers.dns), node.exec(running, &servers.tcp)].concat();
            add(running.netns, &told, Some((&*pod.name, "main")));
        }
        let of_host = [&servers.dns, &servers.tcp].map(|args| Program::run(node.netns.traffic(args)).truths()).concat();
        add(node.netns.inode(), &of_host, None);
    }
    let pod = Pod::new("web-0", false);
    let late = node.run(&pod, "web", &servers.script());
    add(late.netns, &late.truths(ROUND), Some(("web-0", "web")));
    node.netns.wait_until_quiet();
    for (capture, flags, filter, rule) in captures {
        let bundle = stop(capture);
        let ports = Ports::of(&bundle);
        let spaces = [node.netns.inode(), early[0].0.netns, late.netns];
        let of_clients =
            bundle.events.iter().filter(|it| spaces.contains(&it.id.netns) && it.id.role == Some(Role::Client));
        let key = |event: &Event| (event.id.netns, ports.socket(event));
        let found: BTreeSet<_> = of_clients.map(key).filter(|it| expected.contains_key(it)).collect();
        let wanted = expected.iter().filter(|(_, whose)| rule(**whose)).map(|(key, _)| *key);
        assert_eq!(found, wanted.collect(), "{flags:?}");
        let ledger = &bundle.manifest.ledger;
        assert!(ledger.filtered.get(filter).is_some_and(|count| *count > 0), "{flags:?}: {ledger:?}");
        assert!(bundle.manifest.complete, "{flags:?}: {:?}", bundle.manifest.degraded);
    }
}
