//! What the programs on a node share: the node's own files and processes, and the StreamingNode by
//! which they are told what is wanted and say what became of it.

pub mod authorities;
pub mod gates;
pub mod host;
pub mod machine;
pub mod process;
pub mod status;
pub(crate) mod systemd;
pub mod unit;
pub mod watch;
