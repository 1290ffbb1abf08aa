//! What to do with the Secret at a given time, without I/O and without cryptography.
//!
//! An apiserver trusts the authorities in the bundle (`caBundle` of the configuration, `ca.crt` of
//! the Secret), and every replica serves the certificate in the Secret. Neither changes everywhere
//! at once, so a new authority first joins the bundle, where it does nothing, and signs only once
//! it has been trusted for a while. The old one stays until it expires.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// How long an authority is valid.
pub const AUTHORITY_LIFETIME: SignedDuration = SignedDuration::from_hours(365 * 24);
/// How long a serving certificate is valid. Less than what is left of its authority when that is
/// replaced.
pub const SERVING_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long before its making a certificate begins to be valid, for clocks that are behind.
pub const BACKDATED: SignedDuration = HOUR;
/// How long an authority is trusted before it signs what is served. An apiserver follows its
/// configuration within seconds.
pub const SETTLES: SignedDuration = HOUR;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

impl Validity {
    /// Of a certificate that is made now.
    pub fn starting(now: Timestamp, lifetime: SignedDuration) -> Self {
        Self { from: later(now, -BACKDATED), until: later(now, lifetime) }
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }

    /// When it is time for another: after two thirds.
    fn due(&self) -> Timestamp {
        later(self.from, self.until.duration_since(self.from) * 2 / 3)
    }
}

/// What the Secret holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The authorities of the bundle, the newest first.
    pub authorities: Vec<Validity>,
    /// Whether the first authority's key is there too.
    pub signs: bool,
    /// The certificate that is served.
    pub serving: Option<Serving>,
}

/// A serving certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// When it is valid.
    pub validity: Validity,
    /// The names that it is for.
    pub names: BTreeSet<String>,
    /// Which authority of the bundle has signed it, if one has.
    pub issuer: Option<usize>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until then.
    Keep(Timestamp),
    /// A new authority joins the bundle in front; what is served stays.
    Join,
    /// The first authority signs a new serving certificate.
    Issue,
    /// A new authority in front, and a serving certificate of its own at once: nothing there is of
    /// any use, so nothing is lost.
    Begin,
    /// Expired authorities leave the bundle.
    Forget,
}

/// What to do with what the Secret holds. `trusted` says whether the configuration has the first
/// authority in its bundle.
pub fn next(held: &Held, names: &BTreeSet<String>, trusted: bool, now: Timestamp) -> Step {
    let first = held.authorities.first();
    let able = held.signs && first.is_some_and(|authority| authority.holds(now));
    // What is served is accepted by nobody, so an authority that is not trusted yet loses nothing.
    let anew = if able { Step::Issue } else { Step::Begin };
    let (Some(first), Some(serving)) = (first, &held.serving) else { return anew };
    let issuer = serving.issuer.and_then(|index| held.authorities.get(index));
    let Some(issuer) = issuer.filter(|issuer| issuer.holds(now)) else { return anew };
    if !serving.validity.holds(now) || !names.is_subset(&serving.names) {
        return anew;
    }
    if !able || first.due() <= now {
        return Step::Join;
    }
    let expired = |authority: &Validity| authority.until <= now;
    if held.authorities.iter().any(expired) {
        return Step::Forget;
    }
    let renews = match serving.issuer {
        Some(0) => serving.validity.due(),
        _ => first.from,
    };
    // Issuing has to wait for the authority to be trusted; what is served is good until its end.
    let settled = later(first.from, BACKDATED + SETTLES);
    let renews = renews.max(settled);
    let end = serving.validity.until.min(issuer.until);
    if renews <= now && trusted {
        return Step::Issue;
    }
    let renews = if renews <= now { end } else { renews };
    let forgets = held.authorities.iter().map(|authority| authority.until).min();
    let until = [renews, end, first.due()].into_iter().chain(forgets).min();
    Step::Keep(until.unwrap_or(end))
}

fn later(time: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(duration).unwrap_or(end)
}

#[cfg(test)]
mod tests;
