//! The relay as a whole, between sockets of this machine.

mod carry;
mod end;
mod limits;
mod many;
mod refuse;
mod stage;
mod stalled;
