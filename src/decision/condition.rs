//! A condition: whether something holds, why, and what to do.

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl ConditionStatus {
    /// The spelling of `metav1.ConditionStatus`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition without its type and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionOutcome {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The stable reason.
    pub reason: &'static str,
    /// What a person should know and do. Never empty.
    pub message: String,
}

impl ConditionOutcome {
    pub(crate) fn new(status: ConditionStatus, reason: &'static str, message: String) -> Self {
        Self { status, reason, message }
    }
}
