//! Whether Sluice may leave a cluster: not while a change of a node could be left half made.
//!
//! What a node's own journal says is the truth, and is asked for on the node. This is what the API
//! tells before anything is stopped.

use super::{change::Phase, names::NameSummary};

/// The reason of a report of originals that could not be put back yet: the phase is final, the attempt
/// is not.
const RESTORE_FAILED: &str = "RestoreFailed";

/// What is stored of a node's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChange<'a> {
    /// The node.
    pub node: &'a str,
    /// The id of the change that the node is asked for.
    pub wanted: Option<&'a str>,
    /// The id, phase and reason that its remediator has reported last.
    pub reported: Option<(&'a str, Phase, &'a str)>,
}

/// Why a node keeps Sluice from leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It was asked for a change and has not answered: the change may begin at any moment.
    Unanswered,
    /// A change is under way.
    UnderWay,
    /// The originals could not be put back yet.
    NotRestored,
}

impl Obstacle {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Unanswered, Self::UnderWay, Self::NotRestored];

    /// What is so, and what to do, about these nodes.
    fn sentence(self, nodes: &NameSummary<'_>) -> String {
        match self {
            Self::Unanswered => format!(
                "A change was asked for on {nodes}, and no remediator has answered. Withdraw it with \
                 --take-back."
            ),
            Self::UnderWay => format!(
                "A change is under way on {nodes}. Wait until it is confirmed or has gone back \
                 (kubectl get streamingnodes -o wide), or take it back now with --take-back."
            ),
            Self::NotRestored => format!(
                "The original could not be put back yet on {nodes}. kubectl describe streamingnode says \
                 why; the remediator goes on trying once that is mended."
            ),
        }
    }
}

/// What stands in the way on a node.
pub fn obstacle(change: &StoredChange<'_>) -> Option<Obstacle> {
    match (change.wanted, change.reported) {
        (_, Some((_, phase, _))) if !phase.has_ended() => Some(Obstacle::UnderWay),
        (_, Some((_, _, RESTORE_FAILED))) => Some(Obstacle::NotRestored),
        (Some(wanted), Some((reported, ..))) if wanted == reported => None,
        (Some(_), _) => Some(Obstacle::Unanswered),
        (None, _) => None,
    }
}

/// What stands in the way in the whole cluster, a sentence for each kind.
pub fn obstacles<'a>(changes: impl IntoIterator<Item = StoredChange<'a>>) -> Vec<String> {
    let mut nodes = Obstacle::ALL.map(|kind| (kind, NameSummary::default()));
    for change in changes {
        let Some(found) = obstacle(&change) else { continue };
        for (_, names) in nodes.iter_mut().filter(|(kind, _)| *kind == found) {
            names.add(change.node);
        }
    }
    let there = nodes.iter().filter(|(_, names)| !names.is_empty());
    there.map(|(kind, names)| kind.sentence(names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change<'a>(
        wanted: Option<&'a str>,
        reported: Option<(&'a str, Phase, &'a str)>,
    ) -> StoredChange<'a> {
        StoredChange { node: "old1", wanted, reported }
    }

    #[test]
    fn only_what_is_known_to_have_ended_is_no_obstacle() {
        use Obstacle::*;
        for (wanted, reported, expected) in [
            (None, None, None),
            (Some("1"), None, Some(Unanswered)),
            // Withdrawn, and still going back.
            (None, Some(("1", Phase::Applied, "Applied")), Some(UnderWay)),
            (None, Some(("1", Phase::Preparing, "Preparing")), Some(UnderWay)),
            (None, Some(("1", Phase::RolledBack, "Withdrawn")), None),
            (Some("1"), Some(("1", Phase::Applied, "Applied")), Some(UnderWay)),
            (Some("1"), Some(("1", Phase::Confirmed, "Confirmed")), None),
            (Some("1"), Some(("1", Phase::RolledBack, "DeadlineExceeded")), None),
            (Some("1"), Some(("1", Phase::Refused, "PolicyPaused")), None),
            (Some("1"), Some(("1", Phase::Failed, "FlagStays")), None),
            (Some("1"), Some(("1", Phase::Failed, "RestoreFailed")), Some(NotRestored)),
            (None, Some(("1", Phase::Failed, "RestoreFailed")), Some(NotRestored)),
            // The next one was asked for.
            (Some("2"), Some(("1", Phase::Confirmed, "Confirmed")), Some(Unanswered)),
            (Some("2"), Some(("1", Phase::Applied, "Applied")), Some(UnderWay)),
        ] {
            assert_eq!(obstacle(&change(wanted, reported)), expected, "{wanted:?} {reported:?}");
        }
    }

    #[test]
    fn a_phase_that_nobody_knows_is_under_way() {
        let phase = Phase::read("SomethingNewer");
        assert_eq!(obstacle(&change(None, Some(("1", phase, "")))), Some(Obstacle::UnderWay));
    }

    #[test]
    fn each_kind_is_one_sentence_with_its_nodes() {
        let names = ["n1", "n2", "n3", "n4", "n5"];
        let under_way = names.map(|node| StoredChange {
            node,
            wanted: Some("1"),
            reported: Some(("1", Phase::Applied, "Applied")),
        });
        let asked = StoredChange { node: "cp1", wanted: Some("1"), reported: None };
        let ended = StoredChange {
            node: "cp2",
            wanted: Some("1"),
            reported: Some(("1", Phase::Confirmed, "Confirmed")),
        };
        let said = obstacles(under_way.into_iter().chain([asked, ended]));
        let [first, second] = said.as_slice() else { panic!("{said:?}") };
        assert!(first.contains("cp1") && first.contains("--take-back"), "{first}");
        assert!(second.contains("n1, n2, n3 and 2 more"), "{second}");
        assert!(!said.concat().contains("cp2"));
        assert!(obstacles([ended]).is_empty());
    }
}
