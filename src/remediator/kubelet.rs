//! The kubelet's redirect flag, which is taken away where it comes from.
//!
//! The files are those that systemd itself names for the kubelet's unit. The kubelet is restarted
//! through systemd, which touches no running pod, and has to come back without the flag and with its
//! Node ready.

use std::borrow::Cow;

use jiff::{Timestamp, Unit};

use super::{
    cluster_reader::ClusterReader,
    file::Found,
    handler::{ChangeHandler, Edit, EditPlan, Proof},
    journal::{Journal, Restart, Store, Termination, store},
    step::Guard,
};
use crate::{
    api::{Change, ChangeKind},
    decision::{change::PassingRefusal, migration::STREAMING_REDIRECTS},
    edit::{self, Edited},
    kubernetes::arguments::{self, kubelet::FlagValue},
    node::{
        host::Host,
        process::{self, Process},
        systemd::{self, Systemd},
    },
};

const FLAG: &str = STREAMING_REDIRECTS.flag;

/// Takes the flag off this node's kubelet.
#[derive(Clone, Debug)]
pub struct KubeletFlag<S> {
    host: Host,
    systemd: S,
    /// The attempt for which this process has had the kubelet restarted.
    restarted: Option<String>,
    /// The attempt for which it has had it restarted with the originals.
    taken_back: Option<String>,
}

impl<S: Systemd> KubeletFlag<S> {
    /// On this node, by this systemd.
    pub fn new(host: Host, systemd: S) -> Self {
        Self { host, systemd, restarted: None, taken_back: None }
    }

    fn kubelet(&self) -> Result<Process, String> {
        process::kubelet(&self.host.proc()).map_err(|error| error.to_string())
    }

    /// Has the kubelet restarted as the files are now.
    async fn restart(&self, journal: &Journal) -> Result<(), systemd::Error> {
        if journal.files.iter().any(|touched| is_unit(&touched.path)) {
            self.systemd.reload().await?;
        }
        self.systemd.restart().await
    }
}

impl<S: Systemd> ChangeHandler for KubeletFlag<S> {
    const KIND: ChangeKind = ChangeKind::KubeletFlag;

    async fn plan(&mut self, store: &Store, _: &Change) -> Result<EditPlan, Termination> {
        let kubelet = self.kubelet().map_err(|why| {
            Termination::refused_for_now(
                PassingRefusal::KubeletUnknown,
                format!("Nothing was changed: {why}."),
            )
        })?;
        let files = self.systemd.files().await.map_err(|error| {
            Termination::refused(error.reason(), format!("Nothing was changed: {error}."))
        })?;
        let units = files.units.iter().map(|path| (path, edit::unit::remove_flag as RemoveFlag));
        let environment =
            files.environment.iter().map(|path| (path, edit::environment::remove_flag as _));
        let (mut edits, mut unread) = (Vec::new(), Vec::new());
        for (path, remove_flag) in units.chain(environment) {
            match store.read(path) {
                Ok(original) => edits.extend(edited(path, original, remove_flag)?),
                // An environment file may be missing.
                Err(store::Error::Gone { .. }) => {}
                Err(error) => unread.push(format!("{path} ({error})")),
            }
        }
        if !edits.is_empty() {
            return Ok(EditPlan::Files(edits));
        }
        if says(&kubelet) == FlagValue::Absent {
            let message = format!("The kubelet runs without --{FLAG}, and no file names it.");
            return Ok(EditPlan::Nothing("NothingToDo", message));
        }
        let mut message = format!(
            "The kubelet runs with --{FLAG}, and none of the files of its unit names it ({}). Take \
             it away where it comes from, and restart the kubelet.",
            files.units.iter().chain(&files.environment).cloned().collect::<Vec<_>>().join(", ")
        );
        if !unread.is_empty() {
            message.push_str(&format!(" Not read: {}.", unread.join(", ")));
        }
        Err(Termination::refused("FlagSourceUnknown", message))
    }

    fn guard(&self, _: Option<&Journal>, _: Timestamp) -> Guard {
        Guard::NotNeeded
    }

    fn place_guard(&self, _: &Journal) -> Result<(), store::Error> {
        Ok(())
    }

    fn remove_guard(&self) -> Result<(), store::Error> {
        Ok(())
    }

    fn written(&self, journal: Journal, now: Timestamp) -> Journal {
        journal.edited(now)
    }

    async fn before_restart(
        &mut self,
        ask: &impl ClusterReader,
        now: Timestamp,
    ) -> Result<Restart, String> {
        let readiness = ask.readiness().await.map_err(|error| error.to_string())?;
        // Heartbeats have whole seconds: one of this second could be before the restart, or after it.
        if readiness.heartbeat.is_some_and(|heartbeat| heartbeat >= whole(now)) {
            return Err("the Node's last heartbeat is of this second".to_owned());
        }
        let process = self.kubelet().ok().map(|kubelet| (kubelet.pid, kubelet.start));
        Ok(Restart { at: now, process, heartbeat: readiness.heartbeat })
    }

    async fn prove(&mut self, journal: &Journal, ask: &impl ClusterReader) -> Proof {
        let Some(restart) = &journal.restart else {
            return Proof::NotYet("no restart is written down".to_owned());
        };
        let is_new = |kubelet: &Process| restart.process != Some((kubelet.pid, kubelet.start));
        let has_come = |kubelet: &Process| is_new(kubelet) && says(kubelet) == FlagValue::Absent;
        let asked = self.restarted.as_ref() == Some(&journal.id);
        // A process that was killed may have asked for it, or not.
        if !asked && !self.kubelet().is_ok_and(|kubelet| has_come(&kubelet)) {
            match self.restart(journal).await {
                Ok(()) => self.restarted = Some(journal.id.clone()),
                Err(error @ systemd::Error::Job(_)) => {
                    return Proof::Broken("KubeletNotReady", format!("{error}."));
                }
                Err(error) => return Proof::NotYet(error.to_string()),
            }
        }
        let kubelet = match self.kubelet() {
            Ok(kubelet) if is_new(&kubelet) => kubelet,
            Ok(_) => return Proof::NotYet("the kubelet has not been restarted".to_owned()),
            Err(why) => return Proof::NotYet(why),
        };
        if says(&kubelet) != FlagValue::Absent {
            let message = format!(
                "The kubelet still runs with --{FLAG} after its restart: the flag comes from \
                 somewhere else, too."
            );
            return Proof::Broken("FlagStays", message);
        }
        match ask.readiness().await {
            Ok(now) if !now.ready => Proof::NotYet("the Node is not ready".to_owned()),
            Ok(now) if now.heartbeat.is_none_or(|heartbeat| heartbeat < whole(restart.at)) => {
                Proof::NotYet("the Node's last heartbeat is of before the restart".to_owned())
            }
            Ok(_) => Proof::Made(format!(
                "{} changed, and the kubelet has come back without --{FLAG}, its Node ready. The \
                 originals are kept, and come back by themselves at {} unless the change is \
                 confirmed before.",
                journal.paths(),
                journal.deadline.strftime("%FT%TZ")
            )),
            Err(error) => Proof::NotYet(error.to_string()),
        }
    }

    async fn take_back(&mut self, journal: &Journal) -> Result<Option<String>, String> {
        if !journal.written || journal.files.is_empty() {
            return Ok(None);
        }
        let units = journal.files.iter().any(|touched| is_unit(&touched.path));
        let asked = self.taken_back.as_ref() == Some(&journal.id);
        let done = match &journal.restart {
            _ if asked => Ok(()),
            Some(_) => self.restart(journal).await,
            // Nobody has started the kubelet with what was written.
            None if units => self.systemd.reload().await,
            None => Ok(()),
        };
        match done {
            Ok(()) => {
                self.taken_back = Some(journal.id.clone());
                let restarted = journal.restart.map(|_| "The kubelet is restarted with it.");
                Ok(restarted.map(str::to_owned))
            }
            // To try again every second would help nobody.
            Err(error @ systemd::Error::Job(_)) => {
                self.taken_back = Some(journal.id.clone());
                Ok(Some(format!("{error}. Look at the kubelet's log.")))
            }
            Err(error) => Err(format!("the kubelet cannot be restarted: {error}")),
        }
    }

    fn last_log_line(&self, _: &Journal) -> Option<String> {
        None
    }
}

type RemoveFlag = fn(&str, &str) -> Result<Edited, edit::Error>;

/// The edit of one file; `None` where it does not name the flag.
fn edited(
    path: &str,
    original: Found,
    remove_flag: RemoveFlag,
) -> Result<Option<Edit>, Termination> {
    // systemd skips bytes that are no text where they stand in comments, so such a file counts; but
    // it cannot be written as it was.
    let text = String::from_utf8_lossy(&original.bytes);
    match remove_flag(&text, FLAG) {
        Ok(Edited::Unchanged) => Ok(None),
        Ok(Edited::Changed(_)) if matches!(text, Cow::Owned(_)) => {
            let message = format!(
                "{path} is left alone: it names --{FLAG}, and holds bytes that are not UTF-8. Take \
                 the flag out by hand, and restart the kubelet."
            );
            Err(Termination::refused("EditRefused", message))
        }
        Ok(Edited::Changed(changed)) => Ok(Some(Edit { path: path.to_owned(), original, changed })),
        Err(error) => {
            let message = format!("{path} is left alone ({}): {error}.", error.reason());
            Err(Termination::refused("EditRefused", message))
        }
    }
}

fn says(kubelet: &Process) -> FlagValue {
    arguments::kubelet::boolean(kubelet.args.iter().skip(1).map(String::as_str), FLAG)
}

/// A unit or a drop-in, which systemd has to read again.
fn is_unit(path: &str) -> bool {
    path.ends_with(".service") || path.ends_with(".conf")
}

/// The second in which something was.
fn whole(at: Timestamp) -> Timestamp {
    at.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor))
        .unwrap_or(at)
}

#[cfg(test)]
mod tests;
