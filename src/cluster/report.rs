//! From judgements to statuses, the same for the controller and the command line.

mod exposed;
mod flags;
mod moment;
mod node;
mod policy;
mod proxy;

use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use moment::{Moment, Summary};
pub use node::{NodeReport, NodeScene};

/// A time as the apiserver would write it: whole seconds, so that reading it back gives the same.
pub fn seconds(now: Timestamp) -> Time {
    let whole = now.round(Unit::Second).unwrap_or(now);
    // Rounding up would put a transition into the future.
    Time(if whole > now { whole - SignedDuration::from_secs(1) } else { whole })
}
