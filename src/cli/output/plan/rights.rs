//! Who loses streams for want of `create`, for people.

use super::super::{BAD, CARE, Cell, GOOD, Table, wrap};
use crate::decision::websockets::rights::{
    Report, RightsReason,
    finding::{Concern, Finding},
    rule::Names,
};

/// So many findings and roles are named; scripts have all of them.
pub(super) const SHOWN: usize = 10;

/// The verdict in a line; nothing where nobody asked and nothing is wrong.
pub(super) fn verdict(report: &Report, for_target: bool, width: Option<usize>) -> String {
    let reason = report.reason;
    if !for_target {
        let what = "Rights to stream, today: ";
        return match reason {
            RightsReason::CreateIsThere => String::new(),
            _ if report.refuses_today() => {
                format!("{what}{BAD}Refused{BAD:#}: {}\n", reason.as_str())
            }
            // An upgrade would be refused for it. Nobody has asked for one.
            _ => format!("{what}{CARE}{}{CARE:#}\n", reason.as_str()),
        };
    }
    let what = format!("Rights to stream at {}: ", report.question.minor);
    if reason.refuses() {
        format!("{what}{BAD}Refused{BAD:#}: {}\n", reason.as_str())
    } else {
        let safe = format!("{what}{GOOD}Safe{GOOD:#}: {}. {}", reason.as_str(), report.message());
        wrap("", &safe, width)
    }
}

/// The findings; nothing where there are none.
pub(super) fn findings(report: &Report) -> String {
    if report.findings.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["SUBJECT", "LACKS CREATE ON", "WHERE", "GETS BY", "VERDICT"]);
    for finding in report.findings.iter().take(SHOWN) {
        let style = match finding.concern {
            Concern::Blocks => BAD,
            Concern::Warns => CARE,
        };
        table.add([
            finding.subject.to_string().into(),
            lacks(finding).into(),
            finding.binding.scope.to_string().into(),
            format!("{} of {}", finding.binding, finding.role).into(),
            Cell::styled(finding.concern.as_str(), style),
        ]);
    }
    let mut text = table.render();
    let hidden = report.findings.len().saturating_sub(SHOWN);
    if hidden > 0 {
        text.push_str(&format!("{hidden} more; -o json shows them.\n"));
    }
    text
}

/// What to know and do; nothing where the verdict has said it.
pub(super) fn todo(report: &Report, for_target: bool, width: Option<usize>) -> String {
    let said = for_target && !report.reason.refuses();
    if said || report.reason == RightsReason::CreateIsThere {
        return String::new();
    }
    let mut text = format!("  Rights: {}\n", report.reason.as_str());
    for finding in report.message().lines() {
        text.push_str(&wrap("  - ", finding, width));
    }
    text
}

fn lacks(finding: &Finding) -> String {
    let parts: Vec<String> = finding
        .lacks
        .iter()
        .map(|(subresource, names)| match names {
            Names::All => subresource.as_str().to_owned(),
            Names::Only(names) => match names.len() {
                1 => format!(
                    "{} of {}",
                    subresource.as_str(),
                    names.first().map_or("", String::as_str)
                ),
                many => format!("{} of {many} pods", subresource.as_str()),
            },
        })
        .collect();
    parts.join(",")
}
