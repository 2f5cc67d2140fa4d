//! Runs `analyze` on a bundle and reads its JSON report.

use std::path::Path;

use serde_json::Value;

use crate::program::{Program, mortal};
use crate::requirements::built;

/// Rules about the machine as a whole, on which other programs run, too.
const MACHINES: [&str; 3] = ["host.pressure", "host.memory_pressure", "net.softnet_drops"];

/// A report.
#[derive(Debug)]
pub struct Report {
    /// Exit code of `analyze`.
    pub exit_code: i32,
    json: Value,
}

/// A finding as a test sees it.
#[derive(Debug)]
pub struct Finding<'a>(&'a Value);

/// Analyzes a bundle, or the loose files of one.
pub fn analyze(path: &Path) -> Report {
    let mut command = mortal(built("analyze"));
    command.arg(path).args(["--format", "json"]);
    let ended = Program::run(command);
    let exit_code = ended.status.code().unwrap_or_else(|| panic!("analyze died: {ended:?}"));
    let json = serde_json::from_str(&ended.stdout.join("\n")).unwrap_or_else(|e| panic!("no report: {e}: {ended:?}"));
    Report { exit_code, json }
}

impl Report {
    /// Findings about these namespaces or about the capture as a whole, best first. The rest of the machine has a
    /// life of its own during a test, and so has the machine itself.
    pub fn findings(&self, netns: &[u32]) -> Vec<Finding<'_>> {
        let ours =
            |f: &&Value| f["subject"]["netns"].as_u64().is_none_or(|n| netns.iter().any(|ns| u64::from(*ns) == n));
        let all = self.json["findings"].as_array().unwrap().iter().filter(ours).map(Finding);
        all.filter(|finding| !MACHINES.contains(&finding.rule().as_str())).collect()
    }

    /// What it begins with, whatever that is about.
    pub fn top(&self) -> Option<Finding<'_>> {
        self.json["findings"].as_array().unwrap().first().map(Finding)
    }

    /// Findings of this rule, whatever they are about.
    pub fn of_rule(&self, rule: &str) -> Vec<Finding<'_>> {
        let all = self.json["findings"].as_array().unwrap().iter().map(Finding);
        all.filter(|finding| finding.rule() == rule).collect()
    }

    /// Why a rule was not judged; `None` if it was.
    pub fn inconclusive(&self, rule: &str) -> Option<String> {
        let all = self.json["inconclusive"].as_array().unwrap();
        all.iter().find(|it| it["rule"] == rule).map(|it| it["why"].to_string())
    }

    /// Everything, for a failing test's message.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(&self.json).unwrap()
    }
}

impl Finding<'_> {
    fn string(&self, value: &Value) -> String {
        match value {
            Value::String(text) => text.clone(),
            // a string from the captured machine: {"value": …, "untrusted": true}
            Value::Object(object) => object.get("value").and_then(Value::as_str).unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }

    /// Rule id.
    pub fn rule(&self) -> String {
        self.string(&self.0["rule"])
    }

    /// `critical`, `warning` or `info`.
    pub fn severity(&self) -> String {
        self.string(&self.0["severity"])
    }

    /// The sentence.
    pub fn title(&self) -> String {
        self.string(&self.0["title"])
    }

    /// Process that it is about.
    pub fn pid(&self) -> Option<u64> {
        self.0["subject"]["pid"].as_u64()
    }

    /// Process at the other end, of a finding about a client whose server is in the bundle, too.
    pub fn server_pid(&self) -> Option<u64> {
        self.0["subject"]["server"]["pid"].as_u64()
    }

    /// A string of its subject, such as `comm`, `local` or `remote`.
    pub fn subject(&self, key: &str) -> String {
        self.string(&self.0["subject"][key])
    }
}
