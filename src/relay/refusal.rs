//! Why a connection is not carried, or not to its end.

/// Why a connection is not carried, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It came to the relay's port by itself: nobody is served there.
    NotRedirected,
    /// It is one of the relay's own: carrying it would open another, and so on.
    Loop,
    /// It was meant for something that is not the runtime's streaming server.
    NotRuntime,
    /// More connections than the relay is allowed to carry.
    TooMany,
    /// What it sent is no request.
    HeadGarbage,
    /// Its request's head did not come in time.
    HeadTimeout,
    /// It ended before its request's head did.
    HeadEnded,
    /// The runtime's streaming server cannot be reached.
    Dial,
    /// One side has reset the connection, and so it was reset on the other.
    Reset,
    /// No descriptor was left.
    Descriptors,
}

impl Refusal {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::NotRedirected,
        Self::Loop,
        Self::NotRuntime,
        Self::TooMany,
        Self::HeadGarbage,
        Self::HeadTimeout,
        Self::HeadEnded,
        Self::Dial,
        Self::Reset,
        Self::Descriptors,
    ];

    /// A short, stable name for metrics and logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotRedirected => "NotRedirected",
            Self::Loop => "Loop",
            Self::NotRuntime => "NotRuntime",
            Self::TooMany => "TooMany",
            Self::HeadGarbage => "HeadGarbage",
            Self::HeadTimeout => "HeadTimeout",
            Self::HeadEnded => "HeadEnded",
            Self::Dial => "Dial",
            Self::Reset => "Reset",
            Self::Descriptors => "Descriptors",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}
