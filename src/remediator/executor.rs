//! Carries out what comes next, one act after the other, and writes down each.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    cluster_reader::ClusterReader,
    desired::DesiredChange,
    handler::{ChangeHandler, EditPlan, Proof},
    journal::{End, Journal, Stage, Store, Termination, store, wayback},
    permit,
    step::{self, Action, Desired, Observed},
};
use crate::{
    api::{Change, ChangeReport},
    cluster::Origin,
    node::machine::Machine,
};

/// What the time is, and how long things may take.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorTiming {
    /// The node's clock.
    pub now: fn() -> Timestamp,
    /// Between two looks at the time, the journal and the guard.
    pub tick: Duration,
    /// Until a guard watches.
    pub arming: Duration,
}

impl Default for ExecutorTiming {
    fn default() -> Self {
        let (tick, arming) = (Duration::from_secs(1), Duration::from_secs(60));
        Self { now: Timestamp::now, tick, arming }
    }
}

/// Carries out changes of one kind.
pub struct Executor<T, A> {
    store: Store,
    handler: T,
    ask: A,
    node: String,
    machine: Machine,
    timing: ExecutorTiming,
    /// What could not be written down, and what is written down instead.
    unsaved: Option<(Option<Journal>, Journal)>,
    /// What is to be said.
    told: watch::Sender<Option<ChangeReport>>,
}

impl<T: ChangeHandler, A: ClusterReader> Executor<T, A> {
    /// An executor for the changes of this node.
    pub fn new(
        store: Store,
        handler: T,
        ask: A,
        node: String,
        timing: ExecutorTiming,
        told: watch::Sender<Option<ChangeReport>>,
    ) -> Self {
        let machine = Machine::default();
        Self { store, handler, ask, node, machine, timing, unsaved: None, told }
    }

    /// The same on this machine.
    pub fn on(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    fn now(&self) -> Timestamp {
        (self.timing.now)()
    }

    /// Carries out what is wanted for ever.
    pub async fn run(
        mut self,
        mut desired_changes: watch::Receiver<DesiredChange>,
        turned: impl Fn(),
    ) {
        let mut complaint = String::new();
        loop {
            let desired = desired_changes.borrow_and_update().clone();
            let again = match self.turn(&desired).await {
                Ok(again) => again,
                Err(error) => {
                    let text = error.to_string();
                    if text != complaint {
                        tracing::error!(reason = error.reason(), %error, "cannot go on");
                        complaint = text;
                    }
                    false
                }
            };
            turned();
            if !again {
                // Nobody but this process tells it the time, and the guard may have acted.
                let _ = tokio::time::timeout(self.timing.tick, desired_changes.changed()).await;
            }
        }
    }

    /// Does what comes next; `true` where more may come at once.
    ///
    /// # Errors
    /// Where the node's disk does not let it. It is tried again.
    pub async fn turn(&mut self, desired: &DesiredChange) -> Result<bool, store::Error> {
        let _lock = self.store.lock().await?;
        let journal = match self.journal() {
            Ok(None) if self.store.has_way_back() => return self.recall(desired, None).await,
            Err(error @ store::Error::Journal { .. }) => {
                return self.recall(desired, Some(error)).await;
            }
            read => read?,
        };
        self.tell(journal.as_ref());
        let now = self.now();
        let is = |looks: fn(&Store, &Journal) -> bool| {
            journal.as_ref().is_some_and(|journal| looks(&self.store, journal))
        };
        let act = step::decide(
            journal.as_ref(),
            &Observed {
                kind: T::KIND,
                wanted: desired.wanted(),
                reported: self.reported(desired),
                guard: self.handler.guard(journal.as_ref(), now),
                reverted: is(|store, journal| !journal.is_ended() && store.is_reverted(journal)),
                untidy: is(Store::is_untidy) || self.store.has_way_back(),
                now,
                arming: self.timing.arming,
            },
        );
        if act == Action::Rest {
            return Ok(false);
        }
        tracing::debug!(?act, id = journal.as_ref().map(|journal| &*journal.id), "next");
        match (act, journal, desired.wanted()) {
            (Action::Begin, journal, Desired::Change(change)) => self.begin(change, journal).await,
            (Action::Lose, journal, Desired::Change(change)) => {
                let next = Journal::lost(change, self.store.folder(), journal.as_ref(), now);
                self.put(journal, next)
            }
            (Action::PlaceGuard, Some(journal), _) => {
                match self.handler.place_guard(&journal) {
                    Ok(()) => Ok(true),
                    // No edit without it.
                    Err(error) if journal.stage == Stage::Kept => {
                        self.undo(journal, failed(&error)).await
                    }
                    Err(error) => Err(error),
                }
            }
            (Action::Edit, Some(journal), Desired::Change(change)) => {
                self.edit(change, journal).await
            }
            (Action::Restart, Some(journal), _) => {
                match self.handler.before_restart(&self.ask, now).await {
                    Ok(restart) => {
                        let next = journal.clone().restarted(restart, self.now());
                        self.put(Some(journal), next)
                    }
                    Err(why) => {
                        tracing::info!("the kubelet is not restarted yet: {why}");
                        Ok(false)
                    }
                }
            }
            (Action::Prove, Some(journal), _) => {
                match self.handler.prove(&journal, &self.ask).await {
                    Proof::NotYet(what) => {
                        tracing::debug!("not yet: {what}");
                        Ok(false)
                    }
                    Proof::Made(message) => {
                        let next = journal.clone().applied("Applied", message, self.now());
                        self.put(Some(journal), next)
                    }
                    Proof::Broken(reason, message) => {
                        self.undo(journal, Termination::rolled_back(reason, message)).await
                    }
                }
            }
            (Action::Confirm, Some(journal), _) => {
                // Before: nobody who cannot read the journal takes back what has proven itself.
                self.store.close_way_back()?;
                let next = journal.clone().confirmed(now);
                self.put(Some(journal), next)
            }
            (Action::Undo(why), Some(journal), _) => self.undo(journal, why).await,
            (Action::GoOnUndoing, Some(journal), _) => self.go_on_undoing(journal, None).await,
            (Action::Tidy, journal, _) => {
                match &journal {
                    Some(journal) => self.store.tidy(journal)?,
                    None => self.store.close_way_back()?,
                }
                self.handler.remove_guard()?;
                Ok(true)
            }
            // No other pair is decided.
            _ => Ok(false),
        }
    }

    /// The attempt that was made last, once what is known of it is written down.
    fn journal(&mut self) -> Result<Option<Journal>, store::Error> {
        let stored = self.store.load()?;
        match self.unsaved.take() {
            // Somebody else has gone on from there: the guard.
            Some((before, _)) if before != stored => Ok(stored),
            Some((before, next)) => match self.store.save(&next) {
                Ok(()) => Ok(Some(next)),
                Err(error) => {
                    self.unsaved = Some((before, next));
                    Err(error)
                }
            },
            None => Ok(stored),
        }
    }

    /// The journal says nothing, or is gone. What the way back tells is enough to end the attempt.
    async fn recall(
        &mut self,
        desired: &DesiredChange,
        error: Option<store::Error>,
    ) -> Result<bool, store::Error> {
        let Some(way_back) = self.store.way_back()? else {
            // Nothing was under way. What was is set aside, and said once.
            self.store.set_journal_aside()?;
            return error.map_or(Ok(true), Err);
        };
        let known = self.store.recall(&way_back)?;
        if error.is_none() && !self.store.is_touched(&known) {
            // The journal is written next, and nothing is touched before.
            self.store.close_way_back()?;
            return Ok(true);
        }
        let wanted = match desired.wanted() {
            Desired::Change(change) if change.id == way_back.id => change.confirmed,
            _ => false,
        };
        if let Err(error) = self.store.set_journal_aside() {
            tracing::warn!(reason = error.reason(), %error, "the journal is not set aside");
        }
        if wanted && self.store.is_changed(&known) {
            self.store.close_way_back()?;
            return self.put(None, known.confirmed(self.now()));
        }
        self.undo(known, wayback::unreadable()).await
    }

    /// The id of the change in the last report, unless another machine of this name has said it.
    fn reported<'a>(&self, desired: &'a DesiredChange) -> Option<&'a str> {
        let report = desired.reported()?;
        let Machine { boot, id } = self.machine.clone();
        let own = Origin { boot: boot.unwrap_or_default(), machine: id.unwrap_or_default() };
        (!Origin::of_change(report).is_elsewhere(&own)).then_some(&*report.id)
    }

    /// Writes down where the attempt is now.
    fn put(&mut self, before: Option<Journal>, next: Journal) -> Result<bool, store::Error> {
        tracing::info!(
            id = next.id, stage = ?next.stage, reason = next.reason, message = next.message,
            "the change"
        );
        if let Err(error) = self.store.save(&next) {
            // An end with the originals is true whether it is written down or not.
            if matches!(next.stage, Stage::Ended(_)) {
                self.tell(Some(&next));
            }
            self.unsaved = Some((before, next));
            return Err(error);
        }
        self.tell(Some(&next));
        Ok(true)
    }

    fn tell(&self, journal: Option<&Journal>) {
        let Some(report) = journal.and_then(Journal::report) else { return };
        let Machine { boot, id } = self.machine.clone();
        let report = ChangeReport { boot_id: boot, machine_id: id, ..report };
        self.told.send_if_modified(|before| {
            let changed = before.as_ref() != Some(&report);
            *before = Some(report);
            changed
        });
    }

    async fn begin(
        &mut self,
        change: &Change,
        before: Option<Journal>,
    ) -> Result<bool, store::Error> {
        let permitted = match permit::fresh(change, self.now()) {
            Ok(()) => match self.ask.scene(change).await {
                Ok(scene) => permit::check(change, &scene, &self.node),
                Err(error) => {
                    tracing::warn!(reason = error.reason(), %error, "not begun yet");
                    return Ok(false);
                }
            },
            stale => stale,
        };
        let permitted = permitted.and_then(|()| permit::fresh(change, self.now()));
        let plan = match permitted {
            Ok(()) => self.handler.plan(&self.store, change).await,
            Err(why) => Err(why),
        };
        let now = self.now();
        let next = match plan {
            Ok(EditPlan::Nothing(reason, message)) => {
                Journal::begun(change, Vec::new(), before.as_ref(), now)
                    .applied(reason, message, now)
            }
            Ok(EditPlan::Files(edits)) => {
                let kept = edits.iter().enumerate().map(|(number, edit)| {
                    self.store.keep(number, &edit.path, &edit.original, &edit.changed)
                });
                let begun = kept.collect::<Result<Vec<_>, _>>().and_then(|files| {
                    let begun = Journal::begun(change, files, before.as_ref(), now);
                    self.store.open_way_back(&begun).map(|()| begun)
                });
                match begun {
                    Ok(begun) => begun,
                    Err(error) => Journal::unmade(change, failed(&error), before.as_ref(), now),
                }
            }
            Err(why) => Journal::unmade(change, why, before.as_ref(), now),
        };
        self.put(before, next)
    }

    async fn edit(&mut self, change: &Change, journal: Journal) -> Result<bool, store::Error> {
        // The guard may have taken a while to come up.
        let permitted = match self.ask.scene(change).await {
            Ok(scene) => permit::check(change, &scene, &self.node),
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "not changed yet");
                return Ok(false);
            }
        };
        if let Err(why) = permitted {
            return self.undo(journal, why).await;
        }
        if journal.is_overdue(self.now()) {
            let why = step::overdue(&journal);
            return self.undo(journal, why).await;
        }
        match self.store.edit(&journal) {
            Ok(()) => {
                let next = self.handler.written(journal.clone(), self.now());
                self.put(Some(journal), next)
            }
            Err(error) => self.undo(journal, failed(&error)).await,
        }
    }

    async fn undo(&mut self, journal: Journal, mut why: Termination) -> Result<bool, store::Error> {
        if let Some(word) = self.handler.last_log_line(&journal) {
            why.message = format!("{} {word}", why.message);
        }
        let next = journal.clone().undoing(why);
        tracing::warn!(id = next.id, reason = next.reason, message = next.message, "going back");
        // With a full disk the originals come back all the same.
        let unwritten = self.store.save(&next).err();
        if let Some(error) = &unwritten {
            tracing::warn!(reason = error.reason(), %error, "not written down");
        }
        self.go_on_undoing(next, unwritten.map(|_| journal)).await
    }

    /// `stored` is what is written down, where that is not `journal`.
    async fn go_on_undoing(
        &mut self,
        journal: Journal,
        stored: Option<Journal>,
    ) -> Result<bool, store::Error> {
        let Stage::Undoing(end) = journal.stage else { return Ok(false) };
        let back = match self.store.restore(&journal) {
            Ok(mut restored) => match self.handler.take_back(&journal).await {
                Ok(note) => {
                    restored.notes.extend(note);
                    Ok(restored)
                }
                Err(trouble) => Err(format!("The originals are back, but {trouble}.")),
            },
            Err(error) => Err(format!("The original cannot come back yet: {error}.")),
        };
        let now = self.now();
        match back {
            Ok(restored) => {
                let next = journal.clone().left(end, &restored, now);
                self.put(Some(stored.unwrap_or(journal)), next)
            }
            Err(trouble) => {
                let next = journal.clone().troubled(trouble, now);
                self.tell(Some(&next));
                if next.trouble != journal.trouble {
                    tracing::error!(
                        id = next.id,
                        trouble = next.trouble,
                        "the original stays away"
                    );
                    self.store.save(&next)?;
                }
                Ok(false)
            }
        }
    }
}

fn failed(error: &store::Error) -> Termination {
    let message = format!("Nothing stays changed: {error}.");
    Termination { end: End::Failed, reason: error.reason(), message }
}

#[cfg(test)]
mod tests;
