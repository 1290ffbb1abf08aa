//! What of a text has been read and has not been parsed yet.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2};
use serde_json::Value;

use super::Error;

/// So many bytes are read at once; in tests so few that every piece is cut.
const CHUNK: u64 = if cfg!(test) { 7 } else { 1 << 20 };

/// What of a text has been read and not been parsed yet.
pub(super) struct Window<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    /// The number of the line that is next.
    pub(super) line: usize,
}

impl<R: Read> Window<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, ended: false, line: 1 }
    }

    /// Reads more; `false` where there is no more.
    fn fill(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let before = self.buffer.len();
        self.reader.by_ref().take(CHUNK).read_to_end(&mut self.buffer)?;
        self.ended = self.buffer.len() == before;
        Ok(!self.ended)
    }

    /// The byte that is so far ahead.
    fn peek(&mut self, at: usize) -> io::Result<Option<u8>> {
        while self.start + at >= self.buffer.len() {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer[self.start + at]))
    }

    pub(super) fn ahead(&self, end: usize) -> &[u8] {
        &self.buffer[self.start..self.start + end]
    }

    pub(super) fn skip(&mut self, end: usize) {
        self.line += memchr_iter(b'\n', self.ahead(end)).count();
        self.start += end;
    }

    /// The next byte that is no white space, which is what is next then.
    pub(super) fn after_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.peek(0)? {
                Some(byte) if byte.is_ascii_whitespace() => self.skip(1),
                byte => return Ok(byte),
            }
        }
    }

    /// Finds a byte from there on.
    fn find(
        &mut self,
        from: usize,
        find: impl Fn(&[u8]) -> Option<usize>,
    ) -> io::Result<Option<usize>> {
        let mut from = from;
        loop {
            let known = self.buffer.get(self.start + from..).unwrap_or_default();
            if let Some(at) = find(known) {
                return Ok(Some(from + at));
            }
            from += known.len();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// How far ahead the next line ends; `None` where there is none.
    pub(super) fn end_of_line(&mut self) -> io::Result<Option<usize>> {
        if self.peek(0)?.is_none() {
            return Ok(None);
        }
        let end = self.find(0, |text| memchr(b'\n', text))?;
        Ok(Some(end.map_or(self.buffer.len() - self.start, |end| end + 1)))
    }

    /// Whether the next line begins an entry of a list.
    pub(super) fn begins_entry(&mut self) -> io::Result<bool> {
        let dash = self.peek(0)? == Some(b'-');
        Ok(dash && self.peek(1)?.is_none_or(|byte| byte.is_ascii_whitespace()))
    }

    /// How far ahead the entry ends that the next line begins.
    pub(super) fn end_of_entry(&mut self) -> io::Result<usize> {
        let mut at = 0;
        loop {
            match self.find(at, |text| memchr(b'\n', text))? {
                None => return Ok(self.buffer.len() - self.start),
                Some(end) => at = end + 1,
            }
            match self.peek(at)? {
                Some(b' ' | b'\t' | b'\r' | b'\n' | b'#') => {}
                _ => return Ok(at),
            }
        }
    }

    /// How far ahead the JSON value ends that is next.
    pub(super) fn end_of_json(&mut self) -> Result<usize, Error> {
        let (mut at, mut depth) = (0_usize, 0_usize);
        loop {
            let special = |text: &[u8]| {
                text.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b','))
            };
            let Some(found) = self.find(at, special)? else {
                return Err(self.wrong("JSON that does not end"));
            };
            at = found + 1;
            match self.ahead(at)[found] {
                b'"' => {
                    at = self.end_of_text(at)?;
                    if depth == 0 {
                        return Ok(at);
                    }
                }
                b'{' | b'[' => depth += 1,
                b',' if depth == 0 => return Ok(found),
                b',' => {}
                // What encloses a number or a word.
                _ if depth == 0 => return Ok(found),
                _ => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at);
                    }
                }
            }
        }
    }

    /// How far ahead a JSON text ends whose content begins there.
    fn end_of_text(&mut self, from: usize) -> Result<usize, Error> {
        let mut at = from;
        loop {
            let Some(found) = self.find(at, |text| memchr2(b'"', b'\\', text))? else {
                return Err(self.wrong("a text that does not end"));
            };
            match self.ahead(found + 1)[found] {
                b'"' => return Ok(found + 1),
                _ => at = found + 2,
            }
        }
    }

    pub(super) fn json_value(&mut self) -> Result<Value, Error> {
        if self.after_space()?.is_none() {
            return Err(self.wrong("JSON that does not end"));
        }
        let end = self.end_of_json()?;
        let value = serde_json::from_slice(self.ahead(end)).map_err(|_| self.wrong("no JSON"))?;
        self.skip(end);
        Ok(value)
    }

    pub(super) fn wrong(&self, what: &'static str) -> Error {
        Error::Syntax { what, line: self.line }
    }
}
