//! What was found, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::features::Report;
use super::finding::{Finding, Mark};
use crate::kernel::capability::choice::Chosen;

/// All that is to be said.
pub(super) struct Told {
    pub(super) findings: Vec<Finding>,
    pub(super) features: Vec<Report>,
    pub(super) backend: Chosen<&'static str>,
    pub(super) matcher: Chosen<&'static str>,
    pub(super) warnings: Vec<String>,
}

impl Told {
    /// Whether everything that is configured can be enforced, as far as could be seen.
    pub(super) fn is_good(&self) -> bool {
        let marks = self.findings.iter().map(|finding| finding.mark);
        marks.chain(self.features.iter().map(Report::mark)).all(|mark| mark != Mark::No)
    }

    pub(super) fn to_json(&self) -> Value {
        let chosen = |chosen: &Chosen<&'static str>| json!({ "chosen": chosen.what, "why": chosen.why });
        json!({
            "ok": self.is_good(),
            "backend": chosen(&self.backend),
            "header_matcher": chosen(&self.matcher),
            "features": self.features.iter().map(Report::to_json).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "warnings": self.warnings,
        })
    }

    /// One line per finding, in groups, with advice below where there is any.
    pub(super) fn to_text(&self) -> String {
        let kernel: Vec<Finding> = self.features.iter().map(Report::to_finding).collect();
        let mut out = String::new();
        let mut heading = None;
        for finding in self.findings.iter().chain(&kernel) {
            if heading != Some(&finding.section) {
                let gap = if heading.is_some() { "\n" } else { "" };
                out.push_str(&format!("{gap}{}\n", finding.section.heading()));
                heading = Some(&finding.section);
            }
            // Writing to a string does not fail.
            let _ = writeln!(out, "  {}  {:22} {}", finding.mark.sign(), finding.what, finding.told);
            for advice in &finding.advice {
                let _ = writeln!(out, "        -> {advice}");
            }
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "\nwarning: {warning}");
        }
        let _ = writeln!(out, "\n{}", self.summary());
        out
    }

    fn summary(&self) -> String {
        let marks: Vec<Mark> = (self.findings.iter().map(|finding| finding.mark))
            .chain(self.features.iter().map(Report::mark))
            .collect();
        let count = |mark: Mark| marks.iter().filter(|other| **other == mark).count();
        let mut text = match count(Mark::No) {
            0 => "Everything that is configured can be enforced".to_owned(),
            1 => "One thing (NO) keeps what is configured from being enforced".to_owned(),
            n => format!("{n} things (NO) keep what is configured from being enforced"),
        };
        for (mark, words) in [(Mark::Heed, "to heed (!!)"), (Mark::Unknown, "could not be seen (??)")] {
            if count(mark) > 0 {
                text.push_str(&format!("; {} {words}", count(mark)));
            }
        }
        text.push('.');
        text
    }
}
