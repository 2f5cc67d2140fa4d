//! Where a running capture stands → one status line on stderr.
//!
//! On a terminal the line is rewritten in place, at most four times a second. Elsewhere (the log of a
//! pod) a line is added every ten seconds, or at twentieths of a long capture. With `--quiet`: nothing.
//! A stderr that nobody reads silences it; it never fails a capture.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::plan::Plan;

const REWRITE: Duration = Duration::from_millis(250);
const APPEND: Duration = Duration::from_secs(10);
const APPENDED_LINES: u32 = 20;
/// Assumed where the terminal does not say.
const WIDTH: usize = 80;

/// What became of DNS queries so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DnsCounts {
    /// Queries.
    pub sent: u64,
    /// Queries with a reply.
    pub answered: u64,
    /// Queries without a reply, those that may still get one included.
    pub unanswered: u64,
}

/// State of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Since the window was opened.
    pub elapsed: Duration,
    /// Length of the window; `None` if it lasts as long as a command.
    pub total: Option<Duration>,
    /// Lines written.
    pub written: u64,
    /// Events seen and not written, for whatever reason.
    pub dropped: u64,
    /// With `--dns-only`.
    pub dns: Option<DnsCounts>,
}

enum Mode {
    Off,
    /// In place; the columns to stay within.
    Rewrite {
        width: fn() -> usize,
    },
    /// Line by line.
    Append,
}

/// The status line.
pub struct Progress {
    mode: Mode,
    every: Duration,
    out: Box<dyn Write>,
    last: Duration,
    on_screen: usize,
}

impl Progress {
    /// The status line for stderr, as fits the plan and what stderr is.
    pub fn new(plan: &Plan) -> Self {
        // events on the same terminal would be mixed up with the status line
        let mode = if plan.quiet || (plan.stdout && io::stdout().is_terminal()) {
            Mode::Off
        } else if io::stderr().is_terminal() {
            Mode::Rewrite { width: terminal_width }
        } else {
            Mode::Append
        };
        Self::on(mode, plan.duration, Box::new(io::stderr()))
    }

    fn on(mode: Mode, total: Duration, out: Box<dyn Write>) -> Self {
        let every = match mode {
            Mode::Append => APPEND.max(total / APPENDED_LINES),
            _ => REWRITE,
        };
        Self { mode, every, out, last: Duration::ZERO, on_screen: 0 }
    }

    /// Shows `now`, unless the last line is too fresh. Cheap enough to be called for each turn of a loop.
    pub fn update(&mut self, now: &Snapshot) {
        if now.elapsed < self.last + self.every {
            return;
        }
        let text = match self.mode {
            Mode::Off => return,
            Mode::Append => format!("{}\n", line(now)),
            Mode::Rewrite { width } => {
                // the last column stays free: some terminals wrap as soon as it is written
                let line: String = line(now).chars().take(width().saturating_sub(1)).collect();
                let columns = line.chars().count();
                let text = format!("\r{line:<before$}", before = self.on_screen);
                self.on_screen = columns;
                text
            }
        };
        self.last = now.elapsed;
        self.write(&text);
    }

    /// Takes the line off the terminal, so that other text can follow.
    pub fn finish(&mut self) {
        if self.on_screen > 0 {
            let text = format!("\r{:width$}\r", "", width = self.on_screen);
            self.on_screen = 0;
            self.write(&text);
        }
    }

    fn write(&mut self, text: &str) {
        if self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).is_err() {
            self.mode = Mode::Off;
        }
    }
}

fn line(now: &Snapshot) -> String {
    let time = match now.total {
        // rounded up: "0 s left" while it still runs would be wrong
        Some(total) => format!("{} s left", total.saturating_sub(now.elapsed).as_millis().div_ceil(1000)),
        None => format!("{} s", now.elapsed.as_secs()),
    };
    let mut line = format!("{time}, {} events, {} dropped", now.written, now.dropped);
    if let Some(DnsCounts { sent, answered, unanswered }) = now.dns {
        line += &format!(", dns {sent} sent, {answered} answered, {unanswered} unanswered");
    }
    line
}

fn terminal_width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(WIDTH, |(width, _)| usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Rc<RefCell<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn progress(mode: Mode, total_s: u64) -> (Progress, Screen) {
        let screen = Screen::default();
        (Progress::on(mode, Duration::from_secs(total_s), Box::new(screen.clone())), screen)
    }

    fn at_ms(ms: u64) -> Snapshot {
        let total = Some(Duration::from_secs(30));
        Snapshot { elapsed: Duration::from_millis(ms), total, written: 1234, dropped: 5, dns: None }
    }

    #[test]
    fn a_line_tells_time_left_events_and_drops() {
        assert_eq!(line(&at_ms(8_100)), "22 s left, 1234 events, 5 dropped");
    }

    #[test]
    fn while_a_command_decides_a_line_tells_the_time_that_has_passed() {
        assert_eq!(line(&Snapshot { total: None, ..at_ms(8_900) }), "8 s, 1234 events, 5 dropped");
    }

    #[test]
    fn with_dns_only_a_line_also_tells_what_became_of_queries() {
        let dns = Some(DnsCounts { sent: 10, answered: 8, unanswered: 2 });
        assert_eq!(
            line(&Snapshot { dns, ..at_ms(30_000) }),
            "0 s left, 1234 events, 5 dropped, dns 10 sent, 8 answered, 2 unanswered"
        );
    }

    #[test]
    fn a_terminal_line_is_rewritten_four_times_a_second_at_most() {
        let (mut progress, screen) = progress(Mode::Rewrite { width: || 80 }, 30);
        (0..=1000).step_by(10).for_each(|ms| progress.update(&at_ms(ms)));
        assert_eq!(screen.text().matches('\r').count(), 4);
        assert!(!screen.text().contains('\n'));
    }

    #[test]
    fn a_shorter_line_covers_the_longer_one_before_it_and_the_end_clears_it() {
        let (mut progress, screen) = progress(Mode::Rewrite { width: || 80 }, 30);
        progress.update(&at_ms(300));
        progress.update(&Snapshot { written: 1, ..at_ms(600) });
        progress.finish();
        let lines = ["\r30 s left, 1234 events, 5 dropped", "\r30 s left, 1 events, 5 dropped   "];
        assert_eq!(screen.text(), format!("{}\r{}\r", lines.concat(), " ".repeat(30)));
    }

    #[test]
    fn a_narrow_terminal_is_not_wrapped() {
        let (mut progress, screen) = progress(Mode::Rewrite { width: || 10 }, 30);
        progress.update(&at_ms(300));
        assert_eq!(screen.text(), "\r30 s left");
    }

    #[test]
    fn a_log_gets_a_line_each_ten_seconds_and_a_long_capture_twenty_lines() {
        let (mut short, log) = progress(Mode::Append, 30);
        (0..30_000).step_by(100).for_each(|ms| short.update(&at_ms(ms)));
        assert_eq!(log.text().lines().count(), 2);
        let (mut long, log) = progress(Mode::Append, 3600);
        (0..3_600_000).step_by(1000).for_each(|ms| long.update(&at_ms(ms)));
        assert_eq!(log.text().lines().count(), 19);
    }

    #[test]
    fn when_quiet_nothing_is_shown() {
        let (mut progress, screen) = progress(Mode::Off, 30);
        progress.update(&at_ms(10_000));
        progress.finish();
        assert_eq!(screen.text(), "");
    }
}
