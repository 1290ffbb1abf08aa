//! The threads that carry streams.
//!
//! Each has an event loop of its own, and a stream stays with its thread. A runtime that shares its
//! tasks out wakes a second thread whenever one lets others have their turn, and that costs more than
//! the turn.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
};

/// More threads than this pay for no node's streams.
const MOST: usize = 4;

/// Threads that are started once there is something to carry, and end with this.
#[derive(Debug, Default)]
pub struct Threads {
    started: OnceLock<Vec<Handle>>,
    next: AtomicUsize,
    stop: watch::Sender<()>,
}

impl Threads {
    /// That of the next stream. Must be called within a tokio runtime, whose own threads are used where
    /// no others can be started.
    pub fn next(&self) -> Handle {
        let threads = self.started.get_or_init(|| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            (0..cores.min(MOST)).map_while(|_| self.start().ok()).collect()
        });
        let next = self.next.fetch_add(1, Ordering::Relaxed) % threads.len().max(1);
        threads.get(next).cloned().unwrap_or_else(Handle::current)
    }

    fn start(&self) -> io::Result<Handle> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let mut stopped = self.stop.subscribe();
        let run = move || runtime.block_on(async { while stopped.changed().await.is_ok() {} });
        thread::Builder::new().name("streams".into()).spawn(run)?;
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn streams_are_shared_out_over_threads_that_end_with_them() {
        let threads = Threads::default();
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let mut used = HashSet::new();
        for _ in 0..3 * MOST {
            let alive = alive.clone();
            let (tell, told) = tokio::sync::oneshot::channel();
            threads.next().spawn(async move {
                tell.send(thread::current().id()).unwrap();
                alive.closed().await;
            });
            used.insert(told.await.unwrap());
        }
        let cores = thread::available_parallelism().unwrap().get();
        assert_eq!(used.len(), cores.min(MOST));
        assert!(!used.contains(&thread::current().id()));
        drop((threads, alive));
        assert_eq!(ended.recv().await, None);
    }
}
