//! What attempts leave on a node, for whoever takes Sluice away: an attempt that has not ended must
//! not lose its originals.

use std::path::Path;

use super::journal::{Journal, Store, store};
use crate::{api::ChangeKind, node::host::Host};

/// Each kind of change, and so each folder.
const KINDS: [ChangeKind; 2] = [ChangeKind::ApiserverGate, ChangeKind::KubeletFlag];

/// The attempts below the remediators' state folder that have not ended: what is so and what to do, a
/// sentence or two for each. What cannot be read has not ended.
pub fn unfinished(state: &Path) -> Vec<String> {
    KINDS.into_iter().filter_map(|kind| of_kind(state, kind)).collect()
}

fn of_kind(state: &Path, kind: ChangeKind) -> Option<String> {
    let folder = state.join(kind.as_str());
    match folder.try_exists() {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => return Some(unreadable(&folder, &error.to_string())),
    }
    // No file of the node itself is looked at.
    match Store::open(state, kind, Host::new("/".into())) {
        Ok(store) => left(&folder, store.load(), store.has_way_back()),
        Err(error) => Some(unreadable(&folder, &error.to_string())),
    }
}

/// What is to be said of what was read in a folder.
fn left(
    folder: &Path,
    journal: Result<Option<Journal>, store::Error>,
    way_back: bool,
) -> Option<String> {
    match journal {
        Err(error) => Some(unreadable(folder, &error.to_string())),
        Ok(Some(journal)) if !journal.is_ended() => Some(under_way(folder, &journal)),
        Ok(_) if way_back => Some(unreadable(folder, "an attempt has left its way back")),
        Ok(_) => None,
    }
}

fn under_way(folder: &Path, journal: &Journal) -> String {
    let trouble =
        journal.trouble.as_deref().map(|trouble| format!(" {trouble}")).unwrap_or_default();
    let deadline = journal.deadline.strftime("%FT%TZ");
    format!(
        "The change {} is under way on this node.{trouble} Unless it is confirmed, the remediator or \
         the guard puts the originals back by {deadline}. Where neither runs any more, compare {} with \
         the copies in {}, put them right, and remove that folder.",
        journal.id,
        journal.files.iter().map(|file| &*file.path).collect::<Vec<_>>().join(", "),
        folder.display(),
    )
}

fn unreadable(folder: &Path, what: &str) -> String {
    format!(
        "Whether a change is under way on this node cannot be told: {what}. A remediator that runs \
         puts that right within a minute. Where none runs any more, compare the node's files with the \
         copies in {}, and remove that folder.",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::remediator::journal::{End, Stage, Touched, wayback::WayBack};

    fn journal(stage: Stage) -> Journal {
        Journal {
            id: "gate.1.Off.1".to_owned(),
            kind: ChangeKind::ApiserverGate,
            began: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            files: vec![touched()],
            stage,
            written: true,
            restart: None,
            reason: "Applied".to_owned(),
            message: "m".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            trouble: None,
            earlier: Vec::new(),
        }
    }

    fn touched() -> Touched {
        Touched {
            path: "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned(),
            original: "0-kube-apiserver.yaml.original".to_owned(),
            changed: "0-kube-apiserver.yaml.changed".to_owned(),
            owner: crate::remediator::file::Owner { mode: 0o600, uid: 0, gid: 0 },
        }
    }

    #[test]
    fn only_ended_attempts_may_lose_their_originals() {
        use Stage::*;
        let stages = [
            (Kept, true),
            (Edited, true),
            (Restarted, true),
            (Applied, true),
            (Undoing(End::RolledBack), true),
            (Undoing(End::Failed), true),
            (Confirmed, false),
            (Ended(End::RolledBack), false),
            (Ended(End::Refused), false),
            (Ended(End::Failed), false),
        ];
        for (stage, blocks) in stages {
            let state = tempfile::tempdir().unwrap();
            let store = Store::open(state.path(), ChangeKind::ApiserverGate, Host::new("/".into()));
            store.unwrap().save(&journal(stage)).unwrap();
            let said = unfinished(state.path());
            assert_eq!(!said.is_empty(), blocks, "{stage:?}: {said:?}");
            if blocks {
                assert!(said[0].contains("gate.1.Off.1"), "{said:?}");
                assert!(said[0].contains("kube-apiserver.yaml"), "{said:?}");
            }
        }
    }

    #[test]
    fn nothing_was_ever_changed_here() {
        let state = tempfile::tempdir().unwrap();
        assert!(unfinished(state.path()).is_empty());
        assert!(unfinished(&state.path().join("nowhere")).is_empty());
        assert!(fs::read_dir(state.path()).unwrap().next().is_none(), "and nothing is made");
    }

    #[test]
    fn what_cannot_be_read_may_be_under_way() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(ChangeKind::KubeletFlag.as_str());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("journal.json"), "{").unwrap();
        assert!(unfinished(state.path())[0].contains("cannot be told"));
        // A journal that is gone, and the way back of its attempt.
        fs::remove_file(folder.join("journal.json")).unwrap();
        assert!(unfinished(state.path()).is_empty());
        let way = WayBack::of(&journal(Stage::Applied));
        fs::write(folder.join("way-back.json"), serde_json::to_vec(&way).unwrap()).unwrap();
        assert!(unfinished(state.path())[0].contains("way back"));
    }
}
