//! Which start of which machine said something.
//!
//! A StreamingNode has its Node's name, and a Node keeps its name when another machine takes its place.
//! What was said of the one before is not said of this one.

use crate::api::{AgentReport, ChangeReport};

/// One start of one machine. What is not known of it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The number of the start.
    pub boot: String,
    /// The machine's number.
    pub machine: String,
}

impl Origin {
    /// Where an agent's report comes from.
    pub fn of_agent(report: &AgentReport) -> Self {
        Self::new(report.boot_id.as_deref(), report.machine_id.as_deref())
    }

    /// Where a remediator's report comes from.
    pub fn of_change(report: &ChangeReport) -> Self {
        Self::new(report.boot_id.as_deref(), report.machine_id.as_deref())
    }

    fn new(boot: Option<&str>, machine: Option<&str>) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self { boot: text(boot), machine: text(machine) }
    }

    /// Whether what comes from here is about the machine of this Node, since its last start. A program
    /// may not see the machine's number, but every one sees that of the start.
    pub fn is(&self, node: &Self) -> bool {
        self.boot == node.boot && !self.is_elsewhere(node)
    }

    /// Whether it is another machine for sure.
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        !self.machine.is_empty() && !other.machine.is_empty() && self.machine != other.machine
    }

    /// Whether nothing is known of it.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_start_of_the_same_machine() {
        let origin = |boot: &str, machine: &str| Origin::new(Some(boot), Some(machine));
        for (one, other, is, elsewhere) in [
            (origin("b", "m"), origin("b", "m"), true, false),
            (origin("b", "m"), origin("c", "m"), false, false),
            // As where several nodes share one kernel.
            (origin("b", "m"), origin("b", "n"), false, true),
            (origin("b", "m"), origin("c", "n"), false, true),
            (origin("b", ""), origin("b", "m"), true, false),
            (origin("b", ""), origin("c", "m"), false, false),
            (origin("", ""), origin("b", "m"), false, false),
            (origin("", ""), origin("", ""), true, false),
        ] {
            let seen = (one.is(&other), one.is_elsewhere(&other));
            assert_eq!(seen, (is, elsewhere), "{one:?} {other:?}");
        }
    }
}
