//! Texts of any size, read piece by piece: each item of a list is parsed by itself and can be let go of
//! before the next.
//!
//! What is a piece is told by its first bytes alone: JSON by its brackets, and YAML by lines that are not
//! indented, as kubectl prints lists. Each piece then goes to the same parsers as any other text, so that
//! a piece that was cut out wrongly is no JSON or no YAML, and is told.

mod batch;
mod window;

use std::io::{self, Read};

use memchr::memchr_iter;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use batch::Batch;
use window::Window;

/// Where a piece was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceLocation {
    /// Which document, from 1.
    pub document: usize,
    /// Which item of the document's list, from 0; `None` of the document itself.
    pub item: Option<usize>,
    /// What a typed list said of its items before them: their apiVersion, and its own kind.
    pub list: Option<(String, String)>,
}

/// What a piece holds.
#[derive(Debug, PartialEq)]
pub enum Piece<T> {
    /// What was looked for.
    Known(T),
    /// Anything else.
    Other(Value),
    /// A list without its items, which came before it.
    List(Value),
    /// Neither JSON nor YAML: what is wrong, and where.
    Syntax(String),
}

/// Why reading ended too early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// From here on it is no JSON.
    #[error("{what} at line {line}")]
    Syntax {
        /// What is wrong.
        what: &'static str,
        /// Where.
        line: usize,
    },
}

/// Reads a text, and hands on each piece of it.
///
/// # Errors
/// Where it cannot be read to its end.
pub fn read<T: DeserializeOwned + Send>(
    reader: impl Read,
    mut found: impl FnMut(PieceLocation, Piece<T>),
) -> Result<(), Error> {
    let mut window = Window::new(reader);
    let mut document = 0;
    loop {
        match window.after_space()? {
            None => return Ok(()),
            Some(b'{') => {
                document += 1;
                json(&mut window, document, &mut found)?;
            }
            Some(_) => yaml(&mut window, &mut document, &mut found)?,
        }
    }
}

/// One JSON object, of which the elements of `items` are pieces of their own.
fn json<T: DeserializeOwned + Send>(
    window: &mut Window<impl Read>,
    document: usize,
    found: &mut impl FnMut(PieceLocation, Piece<T>),
) -> Result<(), Error> {
    let mut place = PieceLocation { document, item: None, list: None };
    let mut fields = Map::new();
    let mut listed = false;
    window.skip(1);
    loop {
        match window.after_space()? {
            Some(b'}') => break window.skip(1),
            Some(b',') if !fields.is_empty() || listed => window.skip(1),
            Some(b'"') => {
                let Value::String(key) = window.json_value()? else {
                    return Err(window.wrong("a key that is no text"));
                };
                if window.after_space()? != Some(b':') {
                    return Err(window.wrong("a key without a colon"));
                }
                window.skip(1);
                if key == "items" && window.after_space()? == Some(b'[') {
                    let text = |field: &str| fields.get(field).and_then(Value::as_str);
                    let known = text("apiVersion").zip(text("kind"));
                    place.list = known.map(|(version, kind)| (version.to_owned(), kind.to_owned()));
                    json_items(window, &place, found)?;
                    listed = true;
                } else {
                    fields.insert(key, window.json_value()?);
                }
            }
            _ => return Err(window.wrong("no JSON")),
        }
    }
    let rest = Value::Object(fields);
    if listed {
        found(place, Piece::List(rest));
    } else {
        // One by itself is small enough to be looked at twice.
        let known = T::deserialize(&rest).ok();
        found(place, known.map_or(Piece::Other(rest), Piece::Known));
    }
    Ok(())
}

fn json_items<T: DeserializeOwned + Send>(
    window: &mut Window<impl Read>,
    place: &PieceLocation,
    found: &mut impl FnMut(PieceLocation, Piece<T>),
) -> Result<(), Error> {
    window.skip(1);
    let mut index = 0;
    let mut batch = Batch::default();
    let ended = loop {
        match window.after_space()? {
            Some(b']') => {
                window.skip(1);
                break Ok(());
            }
            Some(b',') if index > 0 => window.skip(1),
            Some(_) => match window.end_of_json() {
                Ok(end) => {
                    let item = Some(index);
                    let place = PieceLocation { item, ..place.clone() };
                    batch.add(place, window.line, window.ahead(end));
                    index += 1;
                    window.skip(end);
                    if batch.is_full() {
                        batch.parse(json_piece, found);
                    }
                }
                Err(error) => break Err(error),
            },
            None => break Err(window.wrong("a list that does not end")),
        }
    };
    batch.parse(json_piece, found);
    ended
}

/// What a JSON text holds that begins at this line of the whole.
fn json_piece<T: DeserializeOwned>(text: &[u8], line: usize) -> Piece<T> {
    match serde_json::from_slice(text) {
        Ok(known) => Piece::Known(known),
        Err(_) => match serde_json::from_slice(text) {
            Ok(value) => Piece::Other(value),
            Err(error) => {
                let text = error.to_string();
                let what = text.split(" at line ").next().unwrap_or_default();
                let line = line + error.line().saturating_sub(1);
                Piece::Syntax(format!("{what} at line {line}"))
            }
        },
    }
}

/// One YAML document, of which the entries below a line `items:` are pieces of their own where they are not
/// indented.
fn yaml<T: DeserializeOwned + Send>(
    window: &mut Window<impl Read>,
    document: &mut usize,
    found: &mut impl FnMut(PieceLocation, Piece<T>),
) -> Result<(), Error> {
    let mut head = Vec::new();
    let line = window.line;
    let mut items = 0;
    let blank = |text: &[u8]| text.trim_ascii().is_empty();
    while let Some(end) = window.end_of_line()? {
        let text = window.ahead(end);
        if separates(text) {
            if !blank(&head) || items > 0 {
                break;
            }
            head.extend_from_slice(&text[3..]);
        } else {
            head.extend_from_slice(text);
        }
        let opens = text.trim_ascii_end() == b"items:";
        window.skip(end);
        if !opens {
            continue;
        }
        let mut batch = Batch::default();
        while window.begins_entry()? {
            let end = window.end_of_entry()?;
            let place = PieceLocation { document: *document + 1, item: Some(items), list: None };
            batch.add(place, window.line, window.ahead(end));
            items += 1;
            window.skip(end);
            if batch.is_full() {
                batch.parse(yaml_entry, found);
            }
        }
        batch.parse(yaml_entry, found);
    }
    if blank(&head) && items == 0 {
        return Ok(());
    }
    let known = if items == 0 { parsed::<T>(&head, line, true) } else { Ok(None) };
    let piece = match known {
        Ok(Some(known)) => Piece::Known(known),
        _ => match parsed::<Value>(&head, line, false) {
            Ok(None | Some(Value::Null)) if items == 0 => return Ok(()),
            Ok(rest) if items > 0 => Piece::List(rest.unwrap_or_default()),
            Ok(rest) => Piece::Other(rest.unwrap_or_default()),
            Err(why) => Piece::Syntax(why),
        },
    };
    *document += 1;
    found(PieceLocation { document: *document, item: None, list: None }, piece);
    Ok(())
}

/// What an entry of a YAML list holds that begins at this line of the whole.
fn yaml_entry<T: DeserializeOwned>(text: &[u8], line: usize) -> Piece<T> {
    match parsed::<[T; 1]>(text, line, true) {
        Ok(Some([known])) => Piece::Known(known),
        _ => match parsed::<[Value; 1]>(text, line, false) {
            Ok(Some([value])) => Piece::Other(value),
            Ok(None) => Piece::Other(Value::Null),
            Err(why) => Piece::Syntax(why),
        },
    }
}

/// The only document of a YAML text that begins at this line of the whole; `None` where it holds nothing.
/// `strict` takes for texts only what can be nothing else.
fn parsed<T: DeserializeOwned>(
    text: &[u8],
    line: usize,
    strict: bool,
) -> Result<Option<T>, String> {
    let text = str::from_utf8(text).map_err(|error| {
        let before = memchr_iter(b'\n', &text[..error.valid_up_to()]).count();
        format!("line {} is not UTF-8: save it as UTF-8", line + before)
    })?;
    let documents = super::yaml_as::<T>(text, strict);
    let mut documents = documents.map_err(|error| format!("{error}, counted from line {line}"))?;
    match documents.len() {
        0 | 1 => Ok(documents.pop()),
        // To leave out all but one would hide what may count.
        _ => Err(format!("a document that ends without ---, counted from line {line}")),
    }
}

/// Whether a line separates YAML documents.
fn separates(line: &[u8]) -> bool {
    let behind = line.strip_prefix(b"---");
    behind.is_some_and(|behind| behind.first().is_none_or(u8::is_ascii_whitespace))
}

#[cfg(test)]
mod tests;
