//! Kubelets that keep exiting right after they start.
//!
//! What a Node says of such a kubelet is said of the last one that ran. The one that will run may be of
//! another version and may have another command line: an upgraded kubelet that does not come up is the
//! usual case.

use crate::decision::{
    migration::{FlagBehaviour, Migration},
    names::NameSummary,
};

/// Where the cause is found.
pub const LOG: &str = "Its log tells why: journalctl --unit kubelet, on the node.";

/// What may be the cause where the flag was seen: a sentence with a space before it. `who` is such as
/// `It was`.
pub fn shown(migration: &Migration, who: &str) -> Option<String> {
    let gone = migration.kubelet_since(FlagBehaviour::Removed)?;
    Some(format!(" {who} last seen with --{}, which {gone} and later refuse.", migration.flag))
}

/// What is wrong with these nodes, and what to do; `flagged` are those of them that show the flag.
pub fn says(migration: &Migration, nodes: &NameSummary<'_>, flagged: &NameSummary<'_>) -> String {
    let were = if flagged.count() == 1 { "was" } else { "were" };
    let shown = match flagged.is_empty() {
        true => None,
        false => shown(migration, &format!("{flagged} {were}")),
    };
    format!(
        "The kubelet of {nodes} keeps exiting right after it starts, so what the one that will run does \
         is unknown. {LOG}{}",
        shown.unwrap_or_default()
    )
}
