//! The relay as a whole, between sockets of this machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod carry;
mod end;
mod limits;
mod many;
mod refuse;
mod stage;
mod stalled;
