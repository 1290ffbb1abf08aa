//! Edits of configuration files that change one setting and keep everything else byte for byte:
//! comments, order, quotes, line ends.
//!
//! Text in, text out. Each edit looks for the few bytes that say the setting, replaces them, reads
//! both texts again and compares everything else. Where that is not equal, or where a file says
//! something in a way that is not understood for certain, there is an error and no text.

pub mod environment;
mod flag;
mod gates;
pub mod kubeadm;
pub mod manifest;
pub mod unit;
mod words;
mod yaml;

use std::{fmt, ops::Range};

/// What an edit comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edited {
    /// The text says already what it should.
    Unchanged,
    /// The whole new text.
    Changed(String),
}

/// The kind of a file that is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// The static pod manifest of a kube-apiserver.
    Manifest,
    /// kubeadm's ClusterConfiguration.
    ClusterConfiguration,
    /// A file for systemd's `EnvironmentFile=`.
    Environment,
    /// A systemd unit or a drop-in.
    Unit,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "the apiserver's manifest",
            Self::ClusterConfiguration => "the ClusterConfiguration",
            Self::Environment => "the environment file",
            Self::Unit => "the systemd unit",
        })
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// The kind of the file.
    pub file: File,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file, self.line)
    }
}

/// Why a file is not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no YAML.
    #[error("{place}: {why}")]
    Syntax {
        /// Where.
        place: FileLine,
        /// What is wrong.
        why: String,
    },
    /// It is JSON.
    #[error("{0}: it is JSON, and only YAML is edited; edit it by hand")]
    Json(FileLine),
    /// It holds several YAML documents.
    #[error("{0}: a second YAML document begins here; which one counts is not certain")]
    Documents(FileLine),
    /// Something that stands in one place may count in others.
    #[error("{0}: anchors, aliases and tags are not edited; write the values out")]
    Anchors(FileLine),
    /// It is not what it should be.
    #[error("{place}: {what}")]
    Unexpected {
        /// Where.
        place: FileLine,
        /// What is not as it should be.
        what: String,
    },
    /// Some arguments are hidden.
    #[error("{0}: a shell or a wrapper starts the kube-apiserver, so its arguments are hidden")]
    HiddenCommand(FileLine),
    /// The feature gates cannot be understood.
    #[error("{place}: {why}")]
    Gates {
        /// Where.
        place: FileLine,
        /// What cannot be understood.
        why: String,
    },
    /// An argument that is a variable may be any flag.
    #[error("{0}: a variable stands for a flag here; which one is not certain")]
    Variable(FileLine),
    /// It is written in a way that is not edited.
    #[error("{place}: {what}; edit it by hand")]
    Style {
        /// Where.
        place: FileLine,
        /// In which way.
        what: &'static str,
    },
    /// A word that looks like the flag's value, and is none.
    #[error("{0}: the flag takes no separate value, but true or false follows; write --flag=VALUE")]
    SeparateValue(FileLine),
    /// The flag is mentioned in a way that is not understood.
    #[error("{0}: the flag is named in a way that is not understood; edit it by hand")]
    Mention(FileLine),
    /// The edited text does not say what it should, or something else has changed.
    #[error("{place}: the edit would change something else ({what}), so it is not made")]
    Unverified {
        /// Where the first byte would have changed.
        place: FileLine,
        /// What is not as it should be.
        what: String,
    },
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "Syntax",
            Self::Json(_) => "Json",
            Self::Documents(_) => "SeveralDocuments",
            Self::Anchors(_) => "Anchors",
            Self::Unexpected { .. } => "Unexpected",
            Self::HiddenCommand(_) => "HiddenCommand",
            Self::Gates { .. } => "FeatureGatesUnreadable",
            Self::Variable(_) => "Variable",
            Self::Style { .. } => "Style",
            Self::SeparateValue(_) => "SeparateValue",
            Self::Mention(_) => "Mention",
            Self::Unverified { .. } => "Unverified",
        }
    }
}

/// New bytes for a range of old ones.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Splice {
    at: Range<usize>,
    with: String,
}

impl Splice {
    fn cut(at: Range<usize>) -> Self {
        Self { at, with: String::new() }
    }

    fn insert(at: usize, with: String) -> Self {
        Self { at: at..at, with }
    }
}

/// The text with all splices made; `None` where two of them overlap that are not only cuts.
fn spliced(text: &str, mut splices: Vec<Splice>) -> Option<String> {
    splices.sort_by_key(|splice| (splice.at.start, splice.at.end));
    let mut out = String::with_capacity(text.len() + 64);
    let mut done = 0;
    for Splice { at, with } in splices {
        let start = if with.is_empty() { at.start.max(done) } else { at.start };
        out.push_str(text.get(done..start)?);
        out.push_str(&with);
        done = at.end.max(start);
    }
    out.push_str(text.get(done..)?);
    Some(out)
}

/// The line of a byte, from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Where the line of a byte begins, and where the next one does.
fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
    start..end
}

/// The line end that this text uses: that of its first line.
fn line_end(text: &str) -> &'static str {
    match text.find('\n') {
        Some(newline) if text[..newline].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}
