//! The line of those that wait for the node's limit. It holds its lock for a moment only and never
//! while it waits, and a task of its own looks at the clock: whoever stands in line and is not
//! polled any more holds up nobody.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::share::{Flow, Next, Share, Slot, Turn};

/// What it is now, also on the clock of a test.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The node's limit in one direction, and those that wait for it.
#[derive(Debug)]
pub struct Line {
    state: Mutex<State>,
    /// Tells the timer that its time comes earlier.
    earlier: Notify,
}

#[derive(Debug)]
struct State {
    share: Share<oneshot::Sender<Turn>>,
    /// When the timer looks again; `None` where there is none, since nobody waits.
    timer: Option<Instant>,
}

impl Line {
    /// No limit.
    pub fn new(now: Instant) -> Self {
        let state = State { share: Share::new(0, now), timer: None };
        Self { state: Mutex::new(state), earlier: Notify::new() }
    }

    /// Changes the limit, also for those that wait.
    pub fn set_rate(self: &Arc<Self>, rate: u64) {
        let mut state = self.lock();
        state.share.set_rate(rate, now());
        self.serve(&mut state);
    }

    /// Puts a flow in line that wants to move at most so many bytes. Must be called within a tokio
    /// runtime.
    pub fn ask(self: &Arc<Self>, flow: &Flow, most: u64) -> Waiting<'_> {
        let (waiter, turn) = oneshot::channel();
        let mut state = self.lock();
        let place = state.share.ask(flow, most, waiter);
        self.serve(&mut state);
        Waiting { line: self, place, turn }
    }

    /// A flow has had its turn, and moved so many bytes.
    pub fn end(&self, flow: &mut Flow, turn: Turn, moved: u64) {
        self.lock().share.end(flow, turn, moved);
    }

    /// Gives their turns to all whose turn it is, and has the rest looked after.
    fn serve(self: &Arc<Self>, state: &mut State) {
        match (state.serve(), state.timer) {
            (Some(next), None) => {
                state.timer = Some(next);
                tokio::spawn(Arc::clone(self).look_after());
            }
            (Some(next), Some(timer)) if next < timer => {
                state.timer = Some(next);
                self.earlier.notify_one();
            }
            _ => {}
        }
    }

    /// Until nobody waits.
    async fn look_after(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                state.timer = state.serve();
                state.timer
            };
            let Some(next) = next else { return };
            // Which of the two it was does not matter.
            let _ = timeout(next.saturating_duration_since(now()), self.earlier.notified()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives their turns to all whose turn it is, and tells when to look again.
    fn serve(&mut self) -> Option<Instant> {
        let now = now();
        loop {
            match self.share.next(now) {
                Next::Turn(waiter, turn) => {
                    if let Err(turn) = waiter.send(turn) {
                        self.share.give_back(turn);
                    }
                }
                Next::Wait(wait) => return Some(now + wait),
                Next::Nobody => return None,
            }
        }
    }
}

/// One that stands in line; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Waiting<'a> {
    line: &'a Line,
    place: Slot,
    turn: oneshot::Receiver<Turn>,
}

impl Waiting<'_> {
    /// Whether its turn has come; it is told once.
    pub fn turn(&mut self) -> Option<Turn> {
        self.turn.try_recv().ok()
    }

    /// Waits for its turn.
    pub async fn wait(mut self) -> Option<Turn> {
        (&mut self.turn).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.turn.is_terminated() {
            return;
        }
        let mut state = self.line.lock();
        state.share.leave(self.place);
        if let Ok(turn) = self.turn.try_recv() {
            state.share.give_back(turn);
        }
    }
}
