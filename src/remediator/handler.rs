//! What differs between the kinds of changes.

use jiff::Timestamp;

use super::{
    cluster_reader::ClusterReader,
    file::Found,
    journal::{Journal, Restart, Store, Termination, store},
    step::Guard,
};
use crate::api::{Change, ChangeKind};

/// What a change comes to on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditPlan {
    /// There is nothing to do, for this reason and in this sentence.
    Nothing(&'static str, String),
    /// These files are to be changed.
    Files(Vec<Edit>),
}

/// A file that is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Its path on the node.
    pub path: String,
    /// What it is.
    pub original: Found,
    /// What is to be in it.
    pub changed: String,
}

/// Whether the change has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Not yet; a sentence on what is missing.
    NotYet(String),
    /// It has; a sentence for the report.
    Made(String),
    /// It never will, for this reason and in this sentence.
    Broken(&'static str, String),
}

/// One kind of change. Whatever it is asked to do it may be asked to do again.
pub trait ChangeHandler {
    /// Which kind.
    const KIND: ChangeKind;

    /// What the change comes to. Touches nothing.
    async fn plan(&mut self, store: &Store, change: &Change) -> Result<EditPlan, Termination>;

    /// Who holds the timer beside the remediator.
    fn guard(&self, journal: Option<&Journal>, now: Timestamp) -> Guard;

    /// Has the guard started.
    fn place_guard(&self, journal: &Journal) -> Result<(), store::Error>;

    /// Has the guard ended.
    fn remove_guard(&self) -> Result<(), store::Error>;

    /// The attempt after its files are written.
    fn written(&self, journal: Journal, now: Timestamp) -> Journal;

    /// What is known of the kubelet that is to be restarted; why it is not restarted now.
    async fn before_restart(
        &mut self,
        ask: &impl ClusterReader,
        now: Timestamp,
    ) -> Result<Restart, String>;

    /// Sees to it that the kubelet is restarted, and whether it has come back.
    async fn prove(&mut self, journal: &Journal, ask: &impl ClusterReader) -> Proof;

    /// After the originals are back in their places. Returns a sentence for the report, or what has
    /// to be tried again.
    async fn take_back(&mut self, journal: &Journal) -> Result<Option<String>, String>;

    /// What the changed program said last, for the report of an attempt that goes back.
    fn last_log_line(&self, journal: &Journal) -> Option<String>;
}
