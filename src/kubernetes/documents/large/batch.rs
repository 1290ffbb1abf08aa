//! Pieces that are parsed at once, by as many threads as there are processors: YAML takes long.

use std::{ops::Range, panic, thread};

use super::{Piece, PieceLocation};

/// So many bytes are enough for every thread; in tests two pieces are.
const ENOUGH: usize = if cfg!(test) { 16 } else { 4 << 20 };

/// Pieces that wait to be parsed.
#[derive(Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    place: PieceLocation,
    /// The number of its first line.
    line: usize,
    at: Range<usize>,
}

impl Batch {
    /// Adds a piece that begins at this line.
    pub fn add(&mut self, place: PieceLocation, line: usize, text: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        self.entries.push(Entry { place, line, at: start..self.text.len() });
    }

    /// Whether it is time to parse them.
    pub fn is_full(&self) -> bool {
        self.text.len() >= ENOUGH
    }

    /// Parses the pieces and hands them on in their order. None is left.
    pub fn parse<T: Send>(
        &mut self,
        parse: impl Fn(&[u8], usize) -> Piece<T> + Sync,
        found: &mut impl FnMut(PieceLocation, Piece<T>),
    ) {
        let (text, parse) = (&self.text, &parse);
        let all = |entries: &[Entry]| -> Vec<Piece<T>> {
            entries.iter().map(|entry| parse(&text[entry.at.clone()], entry.line)).collect()
        };
        let threads = match self.is_full() {
            true => thread::available_parallelism().map_or(1, usize::from),
            false => 1,
        };
        let share = self.entries.len().div_ceil(threads).max(1);
        let parsed: Vec<Vec<Piece<T>>> = thread::scope(|scope| {
            let mut shares = self.entries.chunks(share);
            let first = shares.next();
            let others: Vec<_> = shares.map(|share| scope.spawn(move || all(share))).collect();
            let mut parsed = vec![first.map(all).unwrap_or_default()];
            for thread in others {
                // What panics there panics here.
                parsed.push(thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
            }
            parsed
        });
        self.text.clear();
        for (entry, piece) in self.entries.drain(..).zip(parsed.into_iter().flatten()) {
            found(entry.place, piece);
        }
    }
}
