//! How streams share the node's limit. Pure: whoever asks says what time it is.
//!
//! Each flow has an account of what it has had, and whoever has had the least is next. Those that
//! always want more so have equal parts: they keep together, and how far the last of them has come is
//! the round. Whoever wants less falls behind it, and is given a quantum of that and no more. So it
//! comes before all that want more than their part, as the new flows of fq_codel (RFC 8290) do, while
//! nothing is saved up by being silent.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::limiter::{Bucket, QUANTUM};

/// What flows that want more than their part leave in the bucket, as time at its rate: who comes
/// before them rarely has to wait for tokens.
const RESERVE: Duration = Duration::from_millis(5);

/// Those begin when a [`QUANTUM`] has come together and stop at this, as time at the rate: a few turns
/// for each time that the clock is looked at.
const FLOOR: Duration = Duration::from_millis(10);

/// The least that a quantum is, in bytes.
const QUANTUM_MIN: u64 = 1 << 10;

/// Who comes first has turns of a part of the quantum. Whoever is new comes first, and many that are
/// new and will want all are so found out before they have held up the others for long.
const PARTS: u64 = 4;

/// After so many quanta of flows that came first one has its turn that has waited for them: there may
/// be ever new ones.
const AHEAD: u64 = 16;

/// A quantum in the accounts: so fine that every byte counts, whatever the rate is.
const ROUND: u128 = 1 << 40;

/// One flow's account.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// How far it has come, on the scale of [`Share::round`].
    served: u128,
}

/// A place in the line; those that come first are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// How far the flow has come.
    start: u128,
    /// Of those that have come as far, who has asked first.
    ticket: u64,
}

/// What a flow may move.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Bytes.
    pub bytes: u64,
    /// What was taken from the bucket for it, in bytes: nothing where there was no limit.
    paid: u64,
    /// How far the flow had come.
    start: u128,
    /// Whether it came before those that want more than their part.
    first: bool,
}

/// One that stands in line.
#[derive(Debug)]
struct Asked<W> {
    most: u64,
    waiter: W,
}

/// What comes next.
#[derive(Debug)]
pub enum Next<W> {
    /// This one's turn.
    Turn(W, Turn),
    /// Nobody's turn for so long.
    Wait(Duration),
    /// Nobody waits.
    Nobody,
}

/// A bucket, and the line before it. `W` is how whoever waits is told.
#[derive(Debug)]
pub struct Share<W> {
    bucket: Bucket,
    line: BTreeMap<Slot, Asked<W>>,
    /// How far the last of those has come that always want more; a quantum is one [`ROUND`].
    round: u128,
    tickets: u64,
    /// Bytes that were moved by flows that came first, since one had its turn that did not.
    ahead: u64,
    /// Whether those that do not come first have begun and not yet stopped.
    flowing: bool,
}

impl<W> Share<W> {
    /// So many bytes per second to share; 0 is no limit.
    pub fn new(rate: u64, now: Instant) -> Self {
        Self {
            bucket: Bucket::new(rate, now),
            line: BTreeMap::new(),
            round: ROUND,
            tickets: 0,
            ahead: 0,
            flowing: false,
        }
    }

    /// Goes on at another rate, as [`Bucket::set_rate`] does.
    pub fn set_rate(&mut self, rate: u64, now: Instant) {
        self.bucket.set_rate(rate, now);
    }

    /// Puts a flow in line that wants to move at most so many bytes.
    pub fn ask(&mut self, flow: &Flow, most: u64, waiter: W) -> Slot {
        self.tickets += 1;
        let start = flow.served.max(self.round - ROUND);
        let place = Slot { start, ticket: self.tickets };
        self.line.insert(place, Asked { most, waiter });
        place
    }

    /// A flow waits no longer; nothing happens where its turn has come already.
    pub fn leave(&mut self, place: Slot) {
        self.line.remove(&place);
    }

    /// Whose turn it is now.
    pub fn next(&mut self, now: Instant) -> Next<W> {
        let Some(place) = self.place() else { return Next::Nobody };
        let first = place.start < self.round;
        let most = match self.there(first, now) {
            Ok(there) => there,
            Err(wait) => return Next::Wait(wait),
        };
        let Some(Asked { most: wanted, waiter }) = self.line.remove(&place) else {
            return Next::Nobody;
        };
        let bytes = most.max(1).min(wanted);
        let paid = if self.bucket.rate() == 0 { 0 } else { bytes };
        self.bucket.spend(paid);
        if !first {
            self.round = place.start;
            self.ahead = 0;
        }
        Next::Turn(waiter, Turn { bytes, paid, start: place.start, first })
    }

    /// A flow has had its turn, and moved so many bytes.
    pub fn end(&mut self, flow: &mut Flow, turn: Turn, moved: u64) {
        flow.served = turn.start + u128::from(moved) * ROUND / u128::from(self.quantum());
        if turn.first {
            self.ahead = self.ahead.saturating_add(moved);
        }
        self.bucket.refund(turn.paid.saturating_sub(moved));
    }

    /// A turn that nobody took.
    pub fn give_back(&mut self, turn: Turn) {
        self.bucket.refund(turn.paid);
    }

    fn place(&self) -> Option<Slot> {
        let (first, _) = self.line.first_key_value()?;
        let waited = Slot { start: self.round, ticket: 0 };
        let waited = self.line.range(waited..).next().map(|(place, _)| *place);
        Some(waited.filter(|_| self.ahead >= AHEAD * self.quantum()).unwrap_or(*first))
    }

    /// How many bytes a turn may have now, or how long to wait.
    fn there(&mut self, first: bool, now: Instant) -> Result<u64, Duration> {
        if first {
            return Ok(self.bucket.holds(RESERVE, now)?.min(self.quantum() / PARTS));
        }
        self.flowing = self.flowing && self.bucket.holds(FLOOR, now).is_ok();
        let there = self.bucket.holds(if self.flowing { FLOOR } else { QUANTUM }, now)?;
        self.flowing = true;
        Ok(there.saturating_sub(self.bucket.worth(RESERVE)).min(self.quantum()))
    }

    /// A millisecond's worth, so that everyone's turn comes soon.
    fn quantum(&self) -> u64 {
        (self.bucket.rate() / 1000).max(QUANTUM_MIN)
    }
}

#[cfg(test)]
mod tests;
