//! Kubelets that end again and again right after their start.
//!
//! What a Node says of such a kubelet is said of the last one that ran. The one that will run may be of
//! another version and may have another command line: an upgraded kubelet that does not come up is the
//! usual case.

use super::{
    migration::{FlagBehaviour, Migration},
    named::Named,
};

/// What to do about one of them; `flagged` where its command line has the flag.
pub fn remedy(migration: &Migration, flagged: bool) -> String {
    let log = "Its log tells why: journalctl --unit kubelet, on the node.";
    match migration.kubelet_since(FlagBehaviour::Removed).filter(|_| flagged) {
        Some(gone) => {
            format!("{log} It is started with --{}, which {gone} and later refuse.", migration.flag)
        }
        None => log.to_owned(),
    }
}

/// What is wrong with these nodes, and what to do.
pub fn says(migration: &Migration, nodes: &Named<'_>, flagged: bool) -> String {
    format!(
        "The kubelet of {nodes} ends again and again right after its start, so what the one that will \
         run does is unknown. {}",
        remedy(migration, flagged)
    )
}
