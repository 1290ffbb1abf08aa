//! What the commands print: tables for people, JSON and YAML for programs.

pub mod check;
pub mod plan;
pub mod status;
pub mod streams;
mod table;
mod wrap;

use std::io::{self, IsTerminal as _, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub use table::{Cell, Table};
pub use wrap::wrap;

/// As it should be.
const GOOD: Style = AnsiColor::Green.on_default();

/// Not known, or excepted.
const CARE: Style = AnsiColor::Yellow.on_default();

/// Not as it should be.
const BAD: Style = AnsiColor::Red.on_default().bold();

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// A v1 List as JSON.
    Json,
    /// A v1 List as YAML.
    Yaml,
}

/// Why something could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard output cannot be written to.
    #[error("cannot write the output")]
    Write(#[from] io::Error),
    /// It cannot be put into JSON.
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    /// It cannot be put into YAML.
    #[error("cannot write YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Write(_) => "Output",
            Self::Json(_) => "Json",
            Self::Yaml(_) => "Yaml",
        }
    }
}

/// Prints a text; colours stay only on a terminal that wants them.
///
/// # Errors
/// Where it cannot be written. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Error> {
    print_or_end(text).map(|_| ())
}

/// The same for who prints on and on: `false` once nobody reads it any more.
///
/// # Errors
/// Where it cannot be written.
pub fn print_or_end(text: &str) -> Result<bool, Error> {
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Error::Write),
    }
}

/// How wide the terminal is that standard output goes to; `None` where it goes elsewhere, and nothing needs
/// to fit.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok())??;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// An object as a YAML document.
///
/// # Errors
/// Where it cannot be put into YAML.
pub fn yaml(object: &impl Serialize) -> Result<String, Error> {
    Ok(serde_saphyr::to_string(object)?)
}

/// A v1 List, the form in which kubectl prints several objects.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    api_version: &'static str,
    kind: &'static str,
    /// The objects.
    pub items: Vec<T>,
}

impl<T: Serialize> List<T> {
    /// A list of these objects.
    pub fn new(items: Vec<T>) -> Self {
        Self { api_version: "v1", kind: "List", items }
    }
}

/// An object as indented JSON.
///
/// # Errors
/// Where it cannot be put into JSON.
pub fn json(object: &impl Serialize) -> Result<String, Error> {
    let mut text = serde_json::to_string_pretty(object)?;
    text.push('\n');
    Ok(text)
}
