//! Asks each source in turn, from within the network namespace whose rules are wanted.
//!
//! A kernel part that is not there is not asked for, and no tool is started without the table that it would print:
//! `iptables-save` of the old kind makes one otherwise, and that of the new kind is asked only about rules that nft has seen.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::presence::{NF_TABLES, NFT_COMPAT, XT_TCPUDP, lacking};
use super::{Declared, Outcome, RuleReport, RuleSource, iptables, ipvs, nft, tool};

/// Where IPVS tells its services, where the old iptables tells its tables; both of the thread's namespace.
const IP_VS: &str = "/proc/thread-self/net/ip_vs";
const TABLES: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// What came of a question.
#[derive(Debug, Default)]
struct Answer {
    declared: Vec<Declared>,
    omitted: u64,
}

/// Why there is none.
#[derive(Debug)]
enum No {
    Absent(String),
    Failed(String),
}

type Asked = Result<Answer, No>;

/// Calls `tell` with what each source answers, in the order of [`RuleSource::ALL`], until it returns false. Enters the
/// namespace for good.
pub fn read(
    netns: Option<io::Result<OwnedFd>>,
    end: Instant,
    mut tell: impl FnMut((RuleReport, Vec<Declared>)) -> bool,
) {
    let entered = match netns {
        None => Ok(()),
        Some(fd) => fd.and_then(|fd| Ok(setns(fd, CloneFlags::CLONE_NEWNET)?)),
    };
    let mut foreign = None;
    for source in RuleSource::ALL {
        let begin = Instant::now();
        let answer = match &entered {
            Err(e) => Err(No::Failed(format!("its network namespace cannot be entered: {e}"))),
            Ok(()) => ask(source, &mut foreign, end),
        };
        if !tell(told(source, begin.elapsed(), answer)) {
            return;
        }
    }
}

fn told(source: RuleSource, latency: Duration, answer: Asked) -> (RuleReport, Vec<Declared>) {
    let (outcome, Answer { declared, omitted }) = match answer {
        Ok(answer) => (Outcome::Answered, answer),
        Err(No::Absent(why)) => (Outcome::Absent { why }, Answer::default()),
        Err(No::Failed(why)) => (Outcome::Failed { why }, Answer::default()),
    };
    let entries = declared.len() as u64;
    (RuleReport { source, outcome, latency, entries, omitted }, declared)
}

/// `foreign`: rules of iptables and ip6tables that nft has seen, if it was there to look.
fn ask(source: RuleSource, foreign: &mut Option<[u64; 2]>, end: Instant) -> Asked {
    match source {
        RuleSource::Ipvs => of_ipvs(),
        RuleSource::Nftables => of_nft(foreign, end),
        RuleSource::Iptables => of_iptables(source, 0, *foreign, end),
        RuleSource::Ip6tables => of_iptables(source, 1, *foreign, end),
    }
}

fn of_ipvs() -> Asked {
    let mut text = tool::open(IP_VS).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => No::Absent("the kernel has no IPVS".into()),
        _ => No::Failed(format!("`{IP_VS}`: {e}")),
    })?;
    let (declared, omitted) = ipvs::read(&mut text).map_err(|e| No::Failed(format!("`{IP_VS}`: {e}")))?;
    Ok(Answer { declared, omitted })
}

fn of_nft(foreign: &mut Option<[u64; 2]>, end: Instant) -> Asked {
    if let Some(why) = lacking(&[NF_TABLES]) {
        // nobody has rules in it
        *foreign = Some([0, 0]);
        return Err(No::Absent(why));
    }
    let path = tool::locate(&["nft"]).map_err(No::Absent)?;
    let told = tool::run(&path, &["-j", "list", "ruleset"], left(end), nft::read).map_err(No::Failed)?;
    *foreign = Some(told.foreign);
    Ok(Answer { declared: told.services, omitted: told.omitted })
}

/// Both kinds: a node may have rules of either.
fn of_iptables(source: RuleSource, family: usize, foreign: Option<[u64; 2]>, end: Instant) -> Asked {
    let old = old_iptables(source, family, end);
    let new = new_iptables(source, foreign.and_then(|it| it.get(family).copied()), end);
    match (old, new) {
        (Ok(mut old), Ok(new)) => {
            old.declared.extend(new.declared);
            Ok(Answer { omitted: old.omitted + new.omitted, ..old })
        }
        (Err(No::Failed(why)), _) | (_, Err(No::Failed(why))) => Err(No::Failed(why)),
        (Ok(one), Err(No::Absent(_))) | (Err(No::Absent(_)), Ok(one)) => Ok(one),
        (Err(No::Absent(old)), Err(No::Absent(new))) => Err(No::Absent(format!("{old}; {new}"))),
    }
}

/// Rules in tables of its own.
fn old_iptables(source: RuleSource, family: usize, end: Instant) -> Asked {
    let names = TABLES.get(family).map_or(Ok(String::new()), fs::read_to_string);
    let has_table = match names {
        Ok(names) => names.lines().any(|name| name == "nat"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(No::Failed(format!("its tables cannot be listed: {e}"))),
    };
    if !has_table {
        return Err(No::Absent("no table `nat` of the old kind".into()));
    }
    let plain = format!("{}-save", source.as_str());
    let legacy = format!("{}-legacy-save", source.as_str());
    run(source, &[&legacy, &plain], is_old, end)
}

/// Rules in tables of nftables. `foreign`: how many nft has seen, if it could look.
fn new_iptables(source: RuleSource, foreign: Option<u64>, end: Instant) -> Asked {
    if foreign == Some(0) {
        return Err(No::Absent("no rules of the new kind".into()));
    }
    if let Some(why) = lacking(&[NF_TABLES, NFT_COMPAT, XT_TCPUDP]) {
        return Err(No::Absent(why));
    }
    let plain = format!("{}-save", source.as_str());
    let nft = format!("{}-nft-save", source.as_str());
    run(source, &[&nft, &plain], is_new, end).map_err(|no| match (no, foreign) {
        // there are rules, and no way to read them
        (No::Absent(why), Some(count)) => No::Failed(format!("{why}, and there are {count} rules of it")),
        (no, _) => no,
    })
}

/// Runs the first tool of these names that is of the right kind.
fn run(source: RuleSource, names: &[&str], is_right: fn(&str) -> bool, end: Instant) -> Asked {
    let mut missing = None;
    for name in names {
        let path = match tool::locate(&[name]) {
            Ok(path) => path,
            Err(why) => {
                missing.get_or_insert(why);
                continue;
            }
        };
        // the name of the file itself says which kind it is, and a script that chooses one may change the system
        let file = path.canonicalize().ok().and_then(|file| Some(file.file_name()?.to_str()?.to_owned()));
        if !file.as_deref().is_some_and(is_right) {
            missing.get_or_insert_with(|| format!("`{}` is of another kind", path.display()));
            continue;
        }
        // no program that loads modules
        let args = ["--modprobe", "/bin/false", "-t", "nat"];
        let read = |text: &mut dyn io::BufRead| iptables::read(text, source);
        let (declared, omitted) = tool::run(&path, &args, left(end), read).map_err(No::Failed)?;
        return Ok(Answer { declared, omitted });
    }
    Err(No::Absent(missing.unwrap_or_default()))
}

/// `iptables-save` or `ip6tables-save` of the old kind.
///
/// # Errors
/// Why there is none, in words.
pub fn locate_old(name: &str) -> Result<std::path::PathBuf, String> {
    let mut why = None;
    for name in [format!("{name}-legacy-save"), format!("{name}-save")] {
        match tool::locate(&[&name]) {
            Ok(path) => {
                let file = path.canonicalize().ok().and_then(|file| Some(file.file_name()?.to_str()?.to_owned()));
                if file.as_deref().is_some_and(is_old) {
                    return Ok(path);
                }
                why.get_or_insert_with(|| format!("`{}` is of another kind", path.display()));
            }
            Err(lack) => drop(why.get_or_insert(lack)),
        }
    }
    Err(why.unwrap_or_default())
}

fn is_old(file: &str) -> bool {
    matches!(file, "xtables-legacy-multi" | "xtables-multi" | "iptables-multi" | "ip6tables-multi")
        || file.contains("-legacy")
}

fn is_new(file: &str) -> bool {
    file == "xtables-nft-multi" || file.contains("-nft")
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}
