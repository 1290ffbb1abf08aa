//! The decision as a whole, against a second telling of the published history.
//!
//! [`oracle`] writes the history down again as plain literals and never asks the code under test;
//! [`cluster`] builds inputs. The rest are the tests: [`table`] over every pair of versions,
//! [`properties`] over random clusters, [`policies`] over several policies, [`rights`] over random
//! roles and bindings, [`upgrades`], [`trust`], [`steps`] and [`messages`]. [`websockets`] is all of
//! this for the second migration, with an oracle of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cluster;
mod crash;
mod messages;
mod oracle;
mod policies;
mod properties;
mod remediation;
mod rights;
mod rollout;
mod steps;
mod table;
mod trust;
mod upgrades;
mod websockets;
