//! What every process of ours has: its end, its HTTP server, its log.

pub mod log;
pub mod server;
pub mod shutdown;
