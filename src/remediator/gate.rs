//! The gate in the manifest of the apiserver's static pod.

mod last_log_line;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{
    cluster_reader::ClusterReader,
    file,
    guard::{self, Heartbeat},
    handler::{ChangeHandler, Edit, EditPlan, Proof},
    journal::{Journal, Restart, Stage, Store, Termination, store},
    step::Guard,
};
use crate::{
    api::{Change, ChangeKind, GateSetting},
    decision::migration::STREAMING_REDIRECTS,
    edit::{Edited, manifest},
    kubernetes::feature_gates::Setting,
    node::host::Host,
};
pub use last_log_line::{LOGS, last_log_line};

/// Changes the gate of this node's apiserver.
#[derive(Clone, Debug)]
pub struct ApiserverGate {
    /// The manifest's path on the node.
    pub manifest: String,
    /// The node's folders.
    pub host: Host,
    /// The folder of this kind of change.
    pub state: PathBuf,
    /// What a guard is started with.
    pub guard: guard::Template,
}

impl ApiserverGate {
    fn guard_manifest(&self) -> PathBuf {
        self.host.path(&self.manifest).with_file_name(guard::MANIFEST)
    }
}

impl ChangeHandler for ApiserverGate {
    const KIND: ChangeKind = ChangeKind::ApiserverGate;

    async fn plan(&mut self, store: &Store, change: &Change) -> Result<EditPlan, Termination> {
        let refused = |message: String| Termination::refused("EditRefused", message);
        let original = store.read(&self.manifest).map_err(|error| {
            refused(format!("The apiserver's manifest cannot be edited: {error}."))
        })?;
        let text = std::str::from_utf8(&original.bytes)
            .map_err(|_| refused(format!("{} is not UTF-8, and so no manifest.", self.manifest)))?;
        let setting = match change.gate {
            Some(GateSetting::Disabled) => Setting::Off,
            Some(GateSetting::Enabled) => Setting::On,
            Some(GateSetting::Default) => Setting::Default,
            None => return Err(refused("The change does not name a setting.".to_owned())),
        };
        match manifest::set_gate(text, STREAMING_REDIRECTS.gate, setting) {
            Ok(Edited::Unchanged) => Ok(EditPlan::Nothing(
                "AlreadySo",
                format!("{} says so already; nothing was changed.", self.manifest),
            )),
            Ok(Edited::Changed(changed)) => {
                Ok(EditPlan::Files(vec![Edit { path: self.manifest.clone(), original, changed }]))
            }
            Err(error) => {
                let message =
                    format!("{} is left alone ({}): {error}.", self.manifest, error.reason());
                Err(refused(message))
            }
        }
    }

    fn guard(&self, journal: Option<&Journal>, now: Timestamp) -> Guard {
        let path = self.guard_manifest();
        if std::fs::symlink_metadata(&path).is_err() {
            let ended = journal.is_none_or(Journal::is_ended);
            // Half of one has to be taken away, too.
            return if ended && file::is_untidy(&path) { Guard::Placed } else { Guard::Absent };
        }
        match (journal, Heartbeat::read(&self.state)) {
            (Some(journal), Some(armed)) if armed.watches(&journal.id, now) => Guard::Armed,
            _ => Guard::Placed,
        }
    }

    fn place_guard(&self, journal: &Journal) -> Result<(), store::Error> {
        store::write(&self.guard_manifest(), &self.guard.render(&journal.id))
    }

    fn remove_guard(&self) -> Result<(), store::Error> {
        store::remove(&self.guard_manifest())
    }

    fn written(&self, journal: Journal, now: Timestamp) -> Journal {
        let message = format!(
            "{} changed; the original is kept in {} and comes back by itself at {} unless the \
             change is confirmed before.",
            journal.paths(),
            self.state.display(),
            journal.deadline.strftime("%FT%TZ")
        );
        journal.applied("Applied", message, now)
    }

    async fn before_restart(
        &mut self,
        _: &impl ClusterReader,
        _: Timestamp,
    ) -> Result<Restart, String> {
        Err("the kubelet restarts the apiserver by itself".to_owned())
    }

    async fn prove(&mut self, _: &Journal, _: &impl ClusterReader) -> Proof {
        Proof::NotYet("the controller has it proven".to_owned())
    }

    async fn take_back(&mut self, _: &Journal) -> Result<Option<String>, String> {
        Ok(None)
    }

    fn last_log_line(&self, journal: &Journal) -> Option<String> {
        said(journal, &self.host.path(LOGS))
    }
}

/// A sentence with what the apiserver said last, for an attempt that had been made.
pub fn said(journal: &Journal, logs: &Path) -> Option<String> {
    let made = journal.stage == Stage::Applied && !journal.files.is_empty();
    let word = made.then(|| last_log_line(logs)).flatten()?;
    Some(format!("The apiserver's last word: {}.", word.trim_end_matches('.')))
}

#[cfg(test)]
mod tests;
