//! What a run came to: a line for each scenario while it goes on, totals at the end, and a column of a page's table.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter, Write};
use std::path::Path;

use crate::judge::{Twin, Verdict};
use crate::scenarios::{Expect, Scenario};

/// Share of faulty scenarios whose first alarm must be the right one.
const FIRST_SHARE: f64 = 0.95;
/// Columns of seeds that the table keeps, the newest last.
const MAX_SEEDS: usize = 3;
const BEGIN: &str = "<!-- results: `make eval` writes what follows -->";
const END: &str = "<!-- end of results -->";

/// A scenario that was run.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub scenario: &'static Scenario,
    /// What was drawn for it.
    pub drawn: String,
    /// Whom each fault is about.
    pub wanted: Vec<String>,
    /// `None` if it could not be played.
    pub verdict: Option<Verdict>,
}

impl Row {
    /// What is printed while the run goes on.
    pub fn line(&self) -> String {
        let name = self.scenario.name;
        let Some(verdict) = &self.verdict else { return format!("BROKEN {name}") };
        let word = if verdict.is_met() { "ok    " } else { "MISSED" };
        let mut text = format!("{word} {name}: {}\n      {}", self.result(), self.drawn);
        if !verdict.is_met() {
            let _ = write!(text, "\n      wanted {} of {}", self.rules(), self.wanted.join(" and "));
        }
        for (what, said) in [
            ("wrong", &verdict.wrong),
            ("forbidden", &verdict.forbidden),
            ("beside", &verdict.beside),
            ("machine", &verdict.machine),
        ] {
            said.iter().for_each(|it| _ = write!(text, "\n      {what}: {it}"));
        }
        text
    }

    /// The rules that must tell of it.
    fn rules(&self) -> String {
        let faults = self.scenario.expect.faults().iter().map(|rules| rules.join(" or "));
        let faults = faults.collect::<Vec<_>>().join(" and ");
        if faults.is_empty() { "nothing".into() } else { faults }
    }

    /// The same in few words: rank, what else was said, twin.
    fn result(&self) -> String {
        let Some(verdict) = &self.verdict else { return "broken".into() };
        let mut parts = Vec::new();
        match (verdict.rank, verdict.fault_count) {
            (_, 0) if verdict.wrong.is_empty() => parts.push("quiet".to_owned()),
            (_, 0) => {}
            (None, _) => parts.push("missed".into()),
            (Some(rank), 1) => parts.push(format!("rank {rank}")),
            (Some(rank), all) => parts.push(format!("rank {rank}, {} of {all}", verdict.found_count)),
        }
        let rules = |said: &[String]| {
            let rules = said.iter().map(|it| it.split(':').next().unwrap_or_default().to_owned());
            rules.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
        };
        for (what, said) in [("wrong", &verdict.wrong), ("must not", &verdict.forbidden), ("beside", &verdict.beside)] {
            if !said.is_empty() {
                parts.push(format!("{what}: {}", rules(said)));
            }
        }
        match verdict.twin {
            Twin::None => {}
            Twin::Inconclusive => parts.push("twin inconclusive".into()),
            Twin::Found => parts.push("twin found".into()),
            Twin::Clear => parts.push("twin CLEAR".into()),
        }
        parts.join("; ")
    }
}

/// Sums over all scenarios, and whether they are good enough.
#[derive(Debug, Default)]
pub struct Totals {
    faulty: usize,
    first: usize,
    faults: usize,
    found: usize,
    right: usize,
    wrong: usize,
    beside: usize,
    healthy: usize,
    quiet: usize,
    twins: usize,
    twins_inconclusive: usize,
    twins_clear: usize,
    forbidden: usize,
    broken: usize,
}

impl Totals {
    /// The sums.
    pub fn of(rows: &[Row]) -> Self {
        let mut it = Self::default();
        for row in rows {
            let is_healthy = matches!(row.scenario.expect, Expect::Healthy);
            it.faulty += usize::from(!is_healthy);
            it.healthy += usize::from(is_healthy);
            it.faults += row.scenario.expect.faults().len();
            let Some(verdict) = &row.verdict else {
                it.broken += 1;
                continue;
            };
            it.first += usize::from(verdict.is_first());
            it.found += verdict.found_count;
            it.right += verdict.right_count;
            it.wrong += verdict.wrong.len();
            it.beside += verdict.beside.len();
            it.forbidden += verdict.forbidden.len();
            it.quiet += usize::from(is_healthy && verdict.wrong.is_empty());
            it.twins += usize::from(verdict.twin != Twin::None);
            it.twins_inconclusive += usize::from(verdict.twin == Twin::Inconclusive);
            it.twins_clear += usize::from(verdict.twin == Twin::Clear);
        }
        it
    }

    /// Whether the right cause is first often enough, the healthy are left alone, and no lossy twin claims that there is nothing.
    pub fn is_met(&self) -> bool {
        share(self.first, self.faulty) >= FIRST_SHARE
            && self.quiet == self.healthy
            && self.twins_clear == 0
            && self.forbidden == 0
            && self.broken == 0
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |part, whole| format!("{:.1} %", 100.0 * share(part, whole));
        let Self { first, faulty, found, faults, right, wrong, healthy, quiet, .. } = self;
        writeln!(f, "right cause first  {first} of {faulty} faulty scenarios, {}", percent(*first, *faulty))?;
        writeln!(f, "recall             {found} of {faults} faults, {}", percent(*found, *faults))?;
        let alarms = right + wrong;
        writeln!(f, "precision          {right} of {alarms} alarms, {}", percent(*right, alarms))?;
        writeln!(f, "                   {} more are true beside the fault, as the scenario says", self.beside)?;
        writeln!(f, "healthy            {quiet} of {healthy} without an alarm")?;
        let found = self.twins - self.twins_inconclusive - self.twins_clear;
        writeln!(
            f,
            "lossy twins        {} inconclusive, {found} found, {} claim that there is nothing",
            self.twins_inconclusive, self.twins_clear
        )?;
        write!(f, "forbidden          {}; broken {}", self.forbidden, self.broken)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole).unwrap()) }
}

/// Puts the results into a page, between its markers, as the last column of seeds.
///
/// # Errors
/// The page cannot be read or written, or has no markers.
pub fn write(page: &Path, seed: u64, rows: &[Row]) -> std::io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| std::io::Error::other("no place for results"))?;
    let (old, after) = rest.split_once(END).ok_or_else(|| std::io::Error::other("no end of results"))?;
    let (mut seeds, mut cells) = parse(old);
    let name = format!("seed {seed}");
    seeds.retain(|it| *it != name);
    seeds.push(name.clone());
    let excess = seeds.len().saturating_sub(MAX_SEEDS);
    seeds.drain(..excess);
    for row in rows {
        cells.insert((row.scenario.name.to_owned(), name.clone()), row.result());
    }
    let mut table =
        format!("\n\n| scenario | expected | {} |\n|---|---|{}\n", seeds.join(" | "), "---|".repeat(seeds.len()));
    for row in rows {
        let of_seed =
            |seed: &String| cells.get(&(row.scenario.name.to_owned(), seed.clone())).cloned().unwrap_or_default();
        let results = seeds.iter().map(of_seed).collect::<Vec<_>>().join(" | ");
        let _ = writeln!(table, "| {} | {} | {results} |", row.scenario.name, row.rules());
    }
    let totals = Totals::of(rows).to_string();
    let _ = write!(table, "\nThe newest, {name}:\n\n{}\n\n", indented(&totals));
    std::fs::write(page, format!("{before}{BEGIN}{table}{END}{after}"))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The seeds of an earlier table, and what stands under them for each scenario.
fn parse(table: &str) -> (Vec<String>, BTreeMap<(String, String), String>) {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells_of = |line: &str| line.split(" | ").map(str::to_owned).collect::<Vec<_>>();
    let seeds = lines.next().map(cells_of).unwrap_or_default().into_iter().skip(2).collect::<Vec<_>>();
    let mut cells = BTreeMap::new();
    for line in lines {
        let row = cells_of(line);
        for (seed, cell) in seeds.iter().zip(row.iter().skip(2)) {
            cells.insert((row[0].clone(), seed.clone()), cell.clone());
        }
    }
    (seeds, cells)
}
