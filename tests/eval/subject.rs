//! Whom a finding must name, and what a report of `analyze` says about it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::program::{Program, mortal};
use crate::requirements::built;
use crate::stage::Actor;

/// Whom a finding must name.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Name of the process.
    pub comm: Option<String>,
    /// The process, which must be among those that the finding lists.
    pub pid: Option<u64>,
    /// Keys of the finding's `subject`, and what they must be.
    pub ends: Vec<(&'static str, String)>,
    /// What the sentence must contain.
    pub words: Vec<String>,
}

impl Subject {
    /// This process.
    pub fn of(actor: &Actor) -> Self {
        Self { comm: Some(actor.name.clone()), pid: Some(actor.pid().into()), ..Self::default() }
    }

    /// No process in particular.
    pub fn anybody() -> Self {
        Self::default()
    }

    /// And this end: `remote`, `local`, `vip` or `backend`.
    pub fn with(mut self, key: &'static str, address: IpAddr, port: u64) -> Self {
        let port = u16::try_from(port).unwrap();
        self.ends.push((key, SocketAddr::new(address, port).to_string()));
        self
    }

    /// And a local end at this port, at whatever address.
    pub fn at_port(mut self, port: u64) -> Self {
        self.ends.push(("local", format!("*:{port}")));
        self
    }

    /// And the sentence says this.
    pub fn saying(mut self, words: impl Into<String>) -> Self {
        self.words.push(words.into());
        self
    }

    /// Whether this finding names it.
    pub fn is_of(&self, finding: Finding<'_>) -> bool {
        let subject = &finding.0["subject"];
        let pids = subject["pids"].as_array().into_iter().flatten().chain([&subject["pid"]]);
        let mut pids = pids.filter_map(Value::as_u64);
        self.comm.as_ref().is_none_or(|comm| subject["comm"].as_str() == Some(comm.as_str()))
            && self.pid.is_none_or(|pid| pids.any(|it| it == pid))
            && self.ends.iter().all(|(key, end)| subject[*key].as_str() == Some(end.as_str()))
            && self.words.iter().all(|words| finding.title().contains(words))
    }

    /// What it is in the table.
    pub fn text(&self) -> String {
        let who = self.comm.iter().map(|comm| format!("`{comm}`"));
        let ends = self.ends.iter().map(|(key, end)| format!("{key} {end}"));
        let words = self.words.iter().map(|words| format!("\"{words}\""));
        who.chain(ends).chain(words).collect::<Vec<_>>().join(", ")
    }
}

/// A finding of a report.
#[derive(Debug, Clone, Copy)]
pub struct Finding<'a>(&'a Value);

impl<'a> Finding<'a> {
    /// Rule id.
    pub fn rule(self) -> &'a str {
        self.0["rule"].as_str().unwrap()
    }

    /// The sentence.
    pub fn title(self) -> &'a str {
        self.0["title"].as_str().unwrap()
    }

    /// Whether it is more than a note.
    pub fn is_alarm(self) -> bool {
        self.0["severity"] != "info"
    }

    fn netns(self) -> Option<u64> {
        self.0["subject"]["netns"].as_u64()
    }
}

/// What `analyze` makes of a bundle.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    /// Analyzes this bundle.
    pub fn of(bundle: &Path) -> Self {
        let mut command = mortal(built("analyze"));
        command.arg(bundle).args(["--format", "json", "--all"]);
        let ended = Program::run(command);
        assert!(ended.status.success(), "{ended:?}");
        Self(serde_json::from_str(&ended.stdout.join("\n")).unwrap())
    }

    /// Findings about these namespaces or about no namespace in particular, best first. The rest of the machine has a life of
    /// its own.
    pub fn findings(&self, netns: &[u64]) -> Vec<Finding<'_>> {
        let all = self.0["findings"].as_array().unwrap().iter().map(Finding);
        all.filter(|finding| finding.netns().is_none_or(|it| netns.contains(&it))).collect()
    }

    /// Whether the rule found anything, about whomever.
    pub fn has_found(&self, rule: &str) -> bool {
        self.0["findings"].as_array().unwrap().iter().any(|it| it["rule"] == rule)
    }

    /// Whether the rule says that it cannot know.
    pub fn is_inconclusive(&self, rule: &str) -> bool {
        self.0["inconclusive"].as_array().unwrap().iter().any(|it| it["rule"] == rule)
    }
}
