//! The webhook's certificate: kept in a Secret that all replicas share, made and rotated by
//! whichever of them comes first, and served by all.
//!
//! [`rotation`] decides, [`stored`] reads and makes, [`keeper`] watches and writes, [`serving`] is
//! what TLS asks. Two replicas that act at once decide the same; the apiserver takes the first of
//! their writes, and the other one reads what became of it.

pub mod keeper;
mod request;
pub mod rotation;
pub mod serving;
pub mod stored;
#[cfg(test)]
mod tests;
