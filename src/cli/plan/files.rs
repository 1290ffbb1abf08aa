//! Objects from files, as kubectl prints them and as people write them.

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::objects::Objects;
use crate::kubernetes::documents::{self, large};

mod list;
mod object;
mod piece;
mod rights;

/// The name that stands for standard input.
const STDIN: &str = "-";

/// The kinds of files that are read from a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A text of at most so many bytes is read as a whole. Of a larger one only a piece is held at a time, which
/// takes it to be such as kubectl prints.
const WHOLE: u64 = 4 << 20;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLocation {
    file: String,
    document: usize,
    item: String,
}

impl fmt::Display for ObjectLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}{}", self.file, self.document, self.item)
    }
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A URL.
    #[error("-f reads files, and {0} is a URL: save what is there, and give the file")]
    Url(String),
    /// A directory without a file to read.
    #[error("{0} holds no .yaml, .yml or .json file")]
    NoFiles(String),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
            Self::Url(_) => "Url",
            Self::NoFiles(_) => "NoFiles",
        }
    }
}

/// Why a part of what was given is left out of the judgement.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// A file is neither YAML nor JSON.
    #[error("{file}: {why}")]
    Syntax {
        /// The file.
        file: String,
        /// What and where.
        why: String,
    },
    /// It is no Kubernetes object.
    #[error("{place}: {why}")]
    NoObject {
        /// Where.
        place: ObjectLocation,
        /// Why not.
        why: &'static str,
    },
    /// A list that does not hold all.
    #[error(
        "{place}: {kind} is a part of a list, as its metadata.{field} says, and what it leaves out may stand \
         in the way: get it again without limit"
    )]
    Part {
        /// Where.
        place: ObjectLocation,
        /// The kind of list.
        kind: String,
        /// The field that says so.
        field: &'static str,
    },
    /// An object that matters cannot be taken.
    #[error("{place}: {object}: {why}")]
    Malformed {
        /// Where.
        place: ObjectLocation,
        /// Its kind and name.
        object: String,
        /// The field, and what is wrong with it.
        why: String,
    },
}

/// Reads files, directories and standard input. What is in them and cannot be taken is told in
/// [`Objects::unread`].
///
/// # Errors
/// Where there is nothing to read.
pub fn read(paths: &[PathBuf], stdin: &mut impl io::Read) -> Result<Objects, Error> {
    let mut objects = Objects::default();
    for path in paths {
        if path == Path::new(STDIN) {
            let name = "standard input";
            add_reader(&mut objects, name, stdin, WHOLE).map_err(|why| unreadable(name, why))?;
            continue;
        }
        let text = path.to_string_lossy();
        if ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(Error::Url(text.into_owned()));
        }
        for file in files(path)? {
            let name = file.display().to_string();
            let added = fs::File::open(&file)
                .and_then(|mut file| add_reader(&mut objects, &name, &mut file, WHOLE));
            added.map_err(|source| unreadable(&name, source))?;
        }
    }
    Ok(objects)
}

/// Adds what a file holds, as a whole or in pieces.
fn add_reader(
    objects: &mut Objects,
    file: &str,
    reader: &mut impl Read,
    whole: u64,
) -> io::Result<()> {
    let mut head = Vec::new();
    reader.by_ref().take(whole + 1).read_to_end(&mut head)?;
    let is_whole = u64::try_from(head.len()).is_ok_and(|length| length <= whole);
    if is_whole || documents::is_wide(&head) {
        reader.read_to_end(&mut head)?;
        match documents::decode(head) {
            Ok(text) => add(objects, file, &text),
            Err(why) => objects.unread.push(Unread::Syntax { file: file.to_owned(), why }),
        }
        return Ok(());
    }
    let text = documents::without_mark(&head).chain(reader);
    match large::read(text, |place, piece| piece::add(objects, file, place, piece)) {
        Err(large::Error::Read(error)) => return Err(error),
        Err(error @ large::Error::Syntax { .. }) => {
            let (file, why) = (file.to_owned(), error.to_string());
            objects.unread.push(Unread::Syntax { file, why });
        }
        Ok(()) => {}
    }
    Ok(())
}

fn unreadable(file: &str, source: io::Error) -> Error {
    Error::Read { file: file.to_owned(), source }
}

/// The file itself, or the files of a directory in order of their names; not those below it, as
/// kubectl does it.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let name = path.display().to_string();
    let entries = fs::read_dir(path).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut files = entries.map_err(|source| unreadable(&name, source))?;
    let wanted = |file: &PathBuf| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        file.is_file() && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    };
    files.retain(wanted);
    files.sort();
    if files.is_empty() { Err(Error::NoFiles(name)) } else { Ok(files) }
}

/// Adds the objects of one text.
pub fn add(objects: &mut Objects, file: &str, text: &str) {
    let whole = match read_documents(text) {
        Ok(documents) => return add_documents(objects, file, 0, documents),
        Err(why) => why,
    };
    let syntax = |why| Unread::Syntax { file: file.to_owned(), why };
    let pieces = pieces(text);
    let before = objects.unread.len();
    for (index, piece) in pieces.iter().enumerate().filter(|_| pieces.len() > 1) {
        match documents::yaml(piece) {
            Ok(documents) => add_documents(objects, file, index, documents),
            Err(error) => objects.unread.push(syntax(error.to_string())),
        }
    }
    if objects.unread.len() == before {
        objects.unread.push(syntax(whole));
    }
}

fn add_documents(objects: &mut Objects, file: &str, before: usize, documents: Vec<Value>) {
    for (index, document) in (before + 1..).zip(documents) {
        let place = ObjectLocation { file: file.to_owned(), document: index, item: String::new() };
        if !document.is_null() {
            object::add(objects, &place, document, None);
        }
    }
}

/// The documents of a YAML text, each by itself, after as many empty lines as it has lines before it:
/// an error then names the right one. No document holds a line that begins with `---` (YAML 1.2.2,
/// section 9.1.2).
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        let separates = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        let begun = pieces.last().is_some_and(|piece| !piece.trim().is_empty());
        if separates && begun {
            pieces.push("\n".repeat(number));
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(line);
            piece.push('\n');
        }
    }
    pieces
}

fn read_documents(text: &str) -> Result<Vec<Value>, String> {
    // JSON is YAML too, but a JSON parser reads a large dump many times faster.
    let json = text.trim_start().starts_with('{').then(|| {
        serde_json::Deserializer::from_str(text).into_iter().collect::<Result<Vec<Value>, _>>()
    });
    let not_json = match json {
        Some(Ok(documents)) => return Ok(documents),
        Some(Err(error)) => Some(error),
        None => None,
    };
    documents::yaml(text)
        .map_err(|error| not_json.map_or(error.to_string(), |json| json.to_string()))
}

#[cfg(test)]
mod tests;
