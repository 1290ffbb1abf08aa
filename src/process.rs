//! What every process of ours has: its end, its HTTP server, its health, its log.

pub mod health;
pub mod log;
pub mod server;
pub mod shutdown;
