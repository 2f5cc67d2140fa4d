//! Stories for a person: a sentence, where and when, then a line for each step, 100 columns at most.

use std::io::{self, Write};

use super::{Closer, Kind, Story, Told};
use crate::report::text::wrapped_at;
use crate::units::{MILLI, bytes, duration};

/// Lines are wrapped here.
const WIDTH: usize = 100;

/// Writes stories, an empty line between them.
///
/// # Errors
/// Only if the output does.
pub fn write(out: &mut dyn Write, told: &Told) -> io::Result<()> {
    for (n, story) in told.stories.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        write_one(out, n + 1, story)?;
    }
    Ok(())
}

fn write_one(out: &mut dyn Write, n: usize, story: &Story) -> io::Result<()> {
    let label = format!("{n}. ");
    wrapped_at(out, WIDTH, &label, &sentence(story), "   ")?;
    wrapped_at(out, WIDTH, "   ", &place(story), "   ")?;
    let time = |ns: u64| format!("+{}.{:03}", ns / MILLI, ns % MILLI / 1000);
    let times: Vec<String> = story.steps.iter().map(|step| time(step.since_start_ns)).collect();
    let seqs: Vec<String> =
        story.steps.iter().map(|step| step.seq.map_or_else(String::new, |seq| format!("#{seq}"))).collect();
    let widest = |texts: &[String]| texts.iter().map(String::len).max().unwrap_or(0);
    let (wide_time, wide_seq) = (widest(&times), widest(&seqs));
    let indent = " ".repeat(3 + wide_time + 5 + wide_seq + 2);
    for ((step, time), seq) in story.steps.iter().zip(&times).zip(&seqs) {
        let label = format!("   {time:>wide_time$} ms  {seq:<wide_seq$}  ");
        wrapped_at(out, WIDTH, &label, &step.what, &indent)?;
    }
    if story.omitted_count > 0 {
        writeln!(out, "   {} more lines of it between its first and its last ones", story.omitted_count)?;
    }
    if let Some(closed) = &story.closed_first {
        let text = format!("{}: {}", by(closed.by), closed.why);
        wrapped_at(out, WIDTH, "   closed first by ", &text, "     ")?;
    }
    if let Some(sums) = sums(story) {
        writeln!(out, "   {sums}")?;
    }
    for gap in &story.gaps {
        wrapped_at(out, WIDTH, "   not known: ", gap, "     ")?;
    }
    Ok(())
}

/// `` `curl` (pid 4711) in shop/web-1 to 10.96.0.80:80, which is 10.244.2.2:8080: refused after 1.20 ms ``.
fn sentence(story: &Story) -> String {
    let who = story.who.in_words();
    let far = story.far.as_ref().map_or_else(String::new, |far| format!(" ({})", far.in_words()));
    let to = match (story.vip, story.backend) {
        (Some(vip), Some(backend)) => format!("{vip}, which is {backend}{far}"),
        (Some(vip), None) if vip != story.remote => format!("{vip}, which is {}{far}", story.remote),
        _ => format!("{}{far}", story.remote),
    };
    let text = &story.outcome.text;
    match (story.kind, story.is_client) {
        (Kind::Dns, _) => format!("{who} asks {to}{}: {text}", others(story)),
        (_, true) => format!("{who} to {to}: {text}"),
        (_, false) => format!("{who} on {} for {to}: {text}", story.local),
    }
}

fn others(story: &Story) -> String {
    let others: Vec<String> = story.others.iter().map(ToString::to_string).collect();
    if others.is_empty() { String::new() } else { format!(", then {}", others.join(", ")) }
}

const fn by(closer: Closer) -> &'static str {
    match closer {
        Closer::Local => "this end",
        Closer::Remote => "the other end",
        Closer::Both => "both ends at once",
        Closer::Nobody => "neither end",
        Closer::Unknown => "an end that is not known",
    }
}

/// `2026-01-24 21:57:54.000000 UTC, tcp 10.42.1.15:41001 -> 10.96.0.80:80, netns 4026532001`.
fn place(story: &Story) -> String {
    let began = story.began_at.map_or_else(String::new, |at| format!("{}, ", at.format("%Y-%m-%d %H:%M:%S%.6f UTC")));
    let proto = if story.kind == Kind::Tcp { "tcp" } else { "udp" };
    format!("{began}{proto} {} -> {}, netns {}", story.local, story.remote, story.netns)
}

/// What it moved, where no line of its own tells it.
fn sums(story: &Story) -> Option<String> {
    if story.kind != Kind::Tcp || story.closed_first.is_some() {
        return None;
    }
    let rtt = story.rtt_us.map(|us| format!("round trip {}", duration(us.saturating_mul(1000))));
    let moved = story.tx_bytes.zip(story.rx_bytes).filter(|sums| *sums != (0, 0));
    let moved = moved.map(|(tx, rx)| format!("{} sent, {} received", bytes(tx), bytes(rx)));
    let parts: Vec<String> = moved.into_iter().chain(rtt).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
