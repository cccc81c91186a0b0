//! Tells the story to a person: aligned, quiet, coloured only on a terminal.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use crate::report::{Fact, Outcome, Promise, Report, Step, Verdict};

/// Where a line's text ends and its figures begin.
const TEXT: usize = 58;

/// How much of the hub's log is shown when something went wrong.
const LAST_WORDS: usize = 4;

/// The columns of the summary.
const PROMISE: usize = 42;

/// Writes each line as it happens, and keeps it for the report.
pub(crate) struct Teller {
    out: Box<dyn Write + Send>,
    is_colored: bool,
    pub(crate) report: Report,
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Green,
    Red,
}

impl Teller {
    pub(crate) fn new(out: Box<dyn Write + Send>, is_colored: bool) -> Self {
        Self {
            out,
            is_colored,
            report: Report::default(),
        }
    }

    /// The first line of all.
    pub(crate) fn title(&mut self, text: &str) {
        let text = self.paint(Ink::Bold, text);
        self.line(&text);
    }

    /// Begins a chapter.
    pub(crate) fn step(&mut self, title: &str) {
        let number = self.report.steps.len() + 1;
        let head = format!("{number}  {title}");
        let head = self.paint(Ink::Bold, &format!("{head:<TEXT$}"));
        let columns = if number == 1 {
            self.paint(Ink::Dim, "     took  on the link")
        } else {
            String::new()
        };
        self.line("");
        self.line(format!("{head}{columns}").trim_end());
        self.report.steps.push(Step {
            title: title.to_owned(),
            facts: Vec::new(),
        });
    }

    /// Tells what happened.
    pub(crate) fn fact(&mut self, fact: Fact) {
        let mark = match fact.is_good {
            None => "  ".to_owned(),
            Some(true) => self.paint(Ink::Green, "✓ "),
            Some(false) => self.paint(Ink::Red, "✗ "),
        };
        let took = fact.took.map(time).unwrap_or_default();
        let bytes = fact.link_bytes.map(size).unwrap_or_default();
        let figures = self.paint(Ink::Dim, format!("{took:>9}  {bytes:>11}").trim_end());
        let width = TEXT - 3;
        self.line(format!(" {mark}{:<width$}{figures}", fact.text).trim_end());
        if let Some(step) = self.report.steps.last_mut() {
            step.facts.push(fact);
        }
    }

    /// Says something that is not a fact: an explanation, a quotation.
    pub(crate) fn aside(&mut self, text: &str) {
        for line in text.lines() {
            let line = self.paint(Ink::Dim, &format!("     {line}"));
            self.line(line.trim_end());
        }
    }

    /// Notes what was seen of a promise, for the summary.
    pub(crate) fn judge(&mut self, promise: Promise, is_kept: bool, seen: impl Into<String>) {
        self.report.judge(promise, is_kept, seen.into());
    }

    /// Tells why the story cannot go on, with the end of the hub's log.
    pub(crate) fn broken(&mut self, promise: Promise, why: String, log: &str) {
        self.fact(Fact::new(why.clone()).good(false));
        let lines: Vec<&str> = log.lines().collect();
        for line in &lines[lines.len().saturating_sub(LAST_WORDS)..] {
            self.aside(&format!("the hub's log: {line}"));
        }
        self.judge(promise, false, why);
    }

    /// Tells how it ended.
    pub(crate) fn summary(&mut self, took: Duration) {
        self.line("");
        let head = self.paint(Ink::Bold, "What was promised, and what was seen");
        self.line(&head);
        let verdicts = self.report.verdicts();
        for verdict in &verdicts {
            let line = self.verdict(verdict);
            self.line(&line);
        }
        self.line("");
        let of = |outcome| verdicts.iter().filter(|one| one.outcome == outcome).count();
        let (kept, broken) = (of(Outcome::Kept), of(Outcome::Broken));
        let (all, untried, took) = (verdicts.len(), of(Outcome::Untried), time(took));
        let told = match &self.report.interruption {
            Some(why) => format!("Ended early after {took}, {kept} of {all} promises kept: {why}."),
            None if kept == all => format!("All {all} promises kept, in {took}."),
            None if untried == 0 => format!("{broken} of {all} promises broken, in {took}."),
            None => format!("{broken} of {all} promises broken, {untried} not tried, in {took}."),
        };
        let ink = if self.report.is_kept() {
            Ink::Green
        } else {
            Ink::Red
        };
        let last = self.paint(ink, &told);
        self.line(&last);
    }

    fn verdict(&self, verdict: &Verdict) -> String {
        let mark = match verdict.outcome {
            Outcome::Kept => self.paint(Ink::Green, "✓"),
            Outcome::Broken => self.paint(Ink::Red, "✗"),
            Outcome::Untried => self.paint(Ink::Dim, "–"),
        };
        let seen = self.paint(Ink::Dim, &verdict.seen);
        format!(" {mark} {:<PROMISE$}{seen}", verdict.promise.words())
    }

    fn line(&mut self, text: &str) {
        // Whoever closed the pipe does not want the rest; the report goes on.
        let _written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }

    fn paint(&self, ink: Ink, text: &str) -> String {
        if !self.is_colored || text.is_empty() {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
            Ink::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller")
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// A duration in three digits or so: `0.41 ms`, `41 ms`, `4.12 s`.
pub(crate) fn time(took: Duration) -> String {
    let millis = took.as_secs_f64() * 1e3;
    match millis {
        ..0.995 => format!("{millis:.2} ms"),
        ..9.95 => format!("{millis:.1} ms"),
        ..999.5 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

/// Bytes in three digits or so: `0 B`, `4.1 kB`, `1.5 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let (tenths_of_kb, tenths_of_mb) = (bytes.div_ceil(100), bytes.div_ceil(100_000));
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..100_000 => format!("{}.{} kB", tenths_of_kb / 10, tenths_of_kb % 10),
        100_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{}.{} MB", tenths_of_mb / 10, tenths_of_mb % 10),
    }
}

/// A number with a comma between thousands.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn told(is_colored: bool, tell: impl FnOnce(&mut Teller)) -> String {
        let paper = Paper::default();
        tell(&mut Teller::new(Box::new(paper.clone()), is_colored));
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn figures_stand_under_each_other() {
        let text = told(false, |teller| {
            teller.step("Begin");
            let took = Duration::from_millis(41);
            teller.fact(Fact::new("one").took(took).on_the_link(4_100).good(true));
            teller.fact(Fact::new("two").took(Duration::from_secs(6)));
            teller.aside("said");
        });
        let expected = "
1  Begin                                                       took  on the link
 ✓ one                                                        41 ms       4.1 kB
   two                                                       6.00 s
     said
";
        assert_eq!(text, expected);
    }

    #[test]
    fn each_promise_that_is_not_kept_is_named() {
        let text = told(false, |teller| {
            for promise in Promise::ALL {
                teller.judge(promise, promise != Promise::Reads, "seen");
            }
            teller.summary(Duration::from_secs(3));
        });
        assert!(
            text.contains(" ✗ cut off, reads are answered               seen\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n1 of 11 promises broken, in 3.00 s.\n"),
            "{text}"
        );
    }

    #[test]
    fn colour_is_only_for_a_terminal() {
        let tell = |teller: &mut Teller| {
            teller.step("Begin");
            teller.fact(Fact::new("one").good(false));
            teller.summary(Duration::ZERO);
        };
        assert!(!told(false, tell).contains('\x1b'));
        assert!(told(true, tell).contains("\x1b[31m✗ \x1b[0m"));
    }

    #[test]
    fn figures_have_about_three_digits() {
        let times = [
            (410, "0.41 ms"),
            (4_100, "4.1 ms"),
            (41_000, "41 ms"),
            (4_120_000, "4.12 s"),
        ];
        for (micros, text) in times {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (4_100, "4.1 kB"),
            (318_400, "318 kB"),
            (1_500_000, "1.5 MB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        for (number, text) in [(5, "5"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
    }
}
