//! Changes of nodes, as far as they have come: what was asked for, what the node's remediator says,
//! and what the canary says.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::kubernetes::feature_gates::Setting;

/// A change that no remediator has answered is asked for again after this long. By then its permit
/// is old, and a remediator ignores an old permit.
pub const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// How soon a remediator answers, if there is one.
pub const ANSWERS: SignedDuration = SignedDuration::from_secs(15);

/// A trial that failed is repeated after this long while a change waits for it.
pub const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// A remediator has said by so long after a change's deadline what became of it, if it can: what it
/// was asked for may have been begun late, and a guard may have taken it back before.
const UNREPORTED: SignedDuration = SignedDuration::from_secs(120);

/// So long a trial that has passed proves something.
const PROVES: SignedDuration = SignedDuration::from_mins(10);

/// What is changed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The gate on the command line of the node's apiserver.
    Gate(Setting),
    /// The kubelet's redirect flag is taken away.
    KubeletFlag,
}

impl Target {
    /// A short name, as part of a change's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gate(Setting::Default) => "gate-default",
            Self::Gate(Setting::Off) => "gate-off",
            Self::Gate(Setting::On) => "gate-on",
            Self::KubeletFlag => "kubelet-flag",
        }
    }

    /// Whether both change the same thing, to whatever.
    pub fn is_alike(self, other: Self) -> bool {
        matches!(
            (self, other),
            (Self::Gate(_), Self::Gate(_)) | (Self::KubeletFlag, Self::KubeletFlag)
        )
    }
}

/// A change that is wanted of a node: one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeRequest {
    /// Names the attempt.
    pub id: String,
    /// What is changed.
    pub target: Target,
    /// The policy that wants it.
    pub policy: String,
    /// The generation of that policy's spec.
    pub generation: i64,
    /// When it was asked for, or asked for again.
    pub asked: Timestamp,
    /// How long it may take to prove itself, in seconds.
    pub deadline: u32,
    /// It has proven itself.
    pub confirmed: bool,
}

impl ChangeRequest {
    /// A new attempt. Its id tells it from all others of the node.
    pub fn new(policy: &PolicyRef<'_>, target: Target, now: Timestamp) -> Self {
        let PolicyRef { name, generation, deadline, .. } = *policy;
        Self {
            id: format!("{name}.{generation}.{}.{}", target.as_str(), now.as_second()),
            target,
            policy: name.to_owned(),
            generation,
            asked: now,
            deadline,
            confirmed: false,
        }
    }
}

/// Who wants changes: a policy.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRef<'a> {
    /// Its name.
    pub name: &'a str,
    /// The generation of its spec.
    pub generation: i64,
    /// How long a step may take to prove itself, in seconds.
    pub deadline: u32,
    /// No new step is begun.
    pub paused: bool,
}

/// How far a change has come, as the node's remediator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Nobody has answered.
    Asked,
    /// It is about to be made, or the remediator says something that we do not know.
    Preparing,
    /// It is made, and goes back by itself unless it is confirmed.
    Applied,
    /// It is made, and stays.
    Confirmed,
    /// It was made, and has gone back.
    RolledBack,
    /// It was not made.
    Refused,
    /// It was made or not, and the remediator cannot mend it.
    Failed,
}

impl Phase {
    /// The name in a remediator's report; none before there is one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "",
            Self::Preparing => "Preparing",
            Self::Applied => "Applied",
            Self::Confirmed => "Confirmed",
            Self::RolledBack => "RolledBack",
            Self::Refused => "Refused",
            Self::Failed => "Failed",
        }
    }

    /// Reads the name in a remediator's report. One that is not known is that of something under
    /// way.
    pub fn read(text: &str) -> Self {
        let later = [Self::Applied, Self::Confirmed, Self::RolledBack, Self::Refused, Self::Failed];
        later.into_iter().find(|phase| phase.as_str() == text).unwrap_or(Self::Preparing)
    }

    /// Whether nothing more will come of it by itself.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Confirmed | Self::RolledBack | Self::Refused | Self::Failed)
    }

    /// Whether it has ended otherwise than was wanted.
    pub fn has_failed(self) -> bool {
        matches!(self, Self::RolledBack | Self::Refused | Self::Failed)
    }
}

/// A change and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// What was asked for.
    pub wanted: ChangeRequest,
    /// How far it has come.
    pub phase: Phase,
    /// Why, as a stable name; empty before anybody has answered.
    pub reason: String,
    /// What was done, or what went wrong.
    pub message: String,
}

/// What was decided and what the remediator saw do not go together yet.
const SEEN_SOON: SignedDuration = SignedDuration::from_secs(10);

/// The node has trouble of its own, which ends by itself or by somebody's hand.
const MENDED_LATER: SignedDuration = SignedDuration::from_secs(60);

/// Why a change is refused for something that passes: it is asked for again. The remediator says
/// these, and the controller reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassingRefusal {
    /// The decision is too old, or of another clock.
    VerdictStale,
    /// What is stored now is not what was decided on.
    VerdictChanged,
    /// The verdict of a node is not stored yet.
    VerdictUnseen,
    /// Nothing can be said of the kubelet's process.
    KubeletUnknown,
    /// The agent has not told of the runtime since the node's last start.
    RuntimeUntold,
    /// A kubelet that proxies would not trust the runtime's streaming server.
    RuntimeNotTrusted,
    /// systemd cannot be asked.
    SystemdUnreachable,
    /// systemd does not answer.
    SystemdTimeout,
}

impl PassingRefusal {
    /// Each.
    pub const ALL: [Self; 8] = [
        Self::VerdictStale,
        Self::VerdictChanged,
        Self::VerdictUnseen,
        Self::KubeletUnknown,
        Self::RuntimeUntold,
        Self::RuntimeNotTrusted,
        Self::SystemdUnreachable,
        Self::SystemdTimeout,
    ];

    /// The reason in a report.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerdictStale => "VerdictStale",
            Self::VerdictChanged => "VerdictChanged",
            Self::VerdictUnseen => "VerdictUnseen",
            Self::KubeletUnknown => "KubeletUnknown",
            Self::RuntimeUntold => "RuntimeUntold",
            Self::RuntimeNotTrusted => "RuntimeNotTrusted",
            Self::SystemdUnreachable => "SystemdUnreachable",
            Self::SystemdTimeout => "SystemdTimeout",
        }
    }

    /// Reads a report's reason; `None` for one that does not pass.
    pub fn read(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == reason)
    }

    /// How long after the change was asked for it is asked for again.
    fn asked_again_after(self) -> SignedDuration {
        match self {
            Self::VerdictStale | Self::VerdictChanged | Self::VerdictUnseen => SEEN_SOON,
            Self::KubeletUnknown
            | Self::RuntimeUntold
            | Self::RuntimeNotTrusted
            | Self::SystemdUnreachable
            | Self::SystemdTimeout => MENDED_LATER,
        }
    }
}

impl Attempt {
    /// The same as if nobody had answered.
    pub fn unanswered(&self) -> Self {
        let (reason, message) = (String::new(), String::new());
        Self { wanted: self.wanted.clone(), phase: Phase::Asked, reason, message }
    }

    /// Whether something may still come of it.
    pub fn is_under_way(&self) -> bool {
        !self.phase.has_ended()
    }

    /// Whether it has gone back by itself, unless it has proven itself or was begun late.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        let deadline = SignedDuration::from_secs(self.wanted.deadline.into());
        now >= self.wanted.asked + deadline
    }

    /// Whether nobody has said what became of it although its time was over long ago: the node, its
    /// kubelet or its remediator is down.
    pub fn is_lost(&self, now: Timestamp) -> bool {
        self.lost_at().is_some_and(|at| at <= now)
    }

    /// When [`Self::is_lost`] begins to hold, if nobody says anything until then.
    pub fn lost_at(&self) -> Option<Timestamp> {
        let begun = matches!(self.phase, Phase::Preparing | Phase::Applied);
        let deadline = SignedDuration::from_secs(self.wanted.deadline.into());
        begun.then(|| self.wanted.asked + deadline + UNREPORTED)
    }

    /// Whether a later state of its policy withdraws it, since nobody speaks of it any more. Its
    /// remediator puts the original back when it returns.
    pub fn is_withdrawn(&self, policy_ref: &PolicyRef<'_>, now: Timestamp) -> bool {
        let same = self.wanted.policy == policy_ref.name
            && self.wanted.generation == policy_ref.generation;
        !same && (self.is_lost(now) || self.is_silent(now))
    }

    /// When it is asked for again, if it was refused for something that passes.
    pub fn anew_at(&self) -> Option<Timestamp> {
        let passing = PassingRefusal::read(&self.reason).filter(|_| self.phase == Phase::Refused);
        Some(self.wanted.asked + passing?.asked_again_after())
    }

    /// Whether it stands against another attempt for the same policy as it is now: whoever wants
    /// another one has to change the policy.
    pub fn blocks(&self, policy_ref: &PolicyRef<'_>) -> bool {
        self.phase.has_failed()
            && self.anew_at().is_none()
            && (self.wanted.policy.as_str(), self.wanted.generation)
                == (policy_ref.name, policy_ref.generation)
    }

    /// It is what the remediator is asked at `now`: once more, if nobody has answered for long.
    pub fn asked_again(&self, now: Timestamp) -> ChangeRequest {
        let silent =
            self.phase == Phase::Asked && now.duration_since(self.wanted.asked) >= ASK_AGAIN;
        let asked = if silent { now } else { self.wanted.asked };
        ChangeRequest { asked, ..self.wanted.clone() }
    }

    /// When [`Self::asked_again`] or [`Self::is_silent`] says something else.
    pub fn next_ask(&self, now: Timestamp) -> Option<Timestamp> {
        let asked = self.wanted.asked;
        let next = [asked + ANSWERS, asked + ASK_AGAIN].into_iter().find(|at| *at > now);
        next.filter(|_| self.phase == Phase::Asked)
    }

    /// Whether nobody has answered for so long that there may be no remediator.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        let again = !self.wanted.id.ends_with(&format!(".{}", self.wanted.asked.as_second()));
        self.phase == Phase::Asked && (again || now.duration_since(self.wanted.asked) >= ANSWERS)
    }
}

/// The attempts of all nodes, by name.
pub type Attempts = BTreeMap<String, Attempt>;

/// Execs and port-forwards that have to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trial {
    /// What they are to prove.
    pub proves: String,
    /// The apiservers through which they go.
    pub through: Vec<String>,
    /// The nodes to which they go; `None` leaves the choice of a sample to whoever tries.
    pub nodes: Option<Vec<String>>,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Why it failed; `None` where it has passed.
    pub trouble: Option<Trouble>,
    /// What was tried, for people.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// Why something does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The stable reason.
    pub reason: &'static str,
    /// Where and what, and what to do.
    pub message: String,
}

/// What the canary has found so far, by what it was to prove.
pub type Trials = BTreeMap<String, Tried>;

/// What stands between a change and its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    Passed,
    /// It has to be tried now; it may have failed before.
    Due(Option<Trouble>),
    /// It was tried in vain, and is tried again at this time.
    Failed(Trouble, Timestamp),
}

/// How a trial stands that is repeated `after` it failed. One that has passed proves nothing any
/// more once it is [`PROVES`] old.
pub(super) fn proof(trials: &Trials, proves: &str, after: SignedDuration, now: Timestamp) -> Proof {
    match trials.get(proves) {
        None => Proof::Due(None),
        Some(Tried { trouble: None, at, .. }) if *at + PROVES <= now => Proof::Due(None),
        Some(Tried { trouble: None, .. }) => Proof::Passed,
        Some(Tried { trouble: Some(trouble), at, .. }) if *at + after <= now => {
            Proof::Due(Some(trouble.clone()))
        }
        Some(Tried { trouble: Some(trouble), at, .. }) => {
            Proof::Failed(trouble.clone(), *at + after)
        }
    }
}
