//! Where what becomes of requests is counted.

/// Counts requests to an apiserver that failed. Clones count into the same.
pub trait CountErrors: Clone + Send + Sync + 'static {
    /// One more, for this short, stable reason.
    fn error(&self, reason: &'static str);
}
