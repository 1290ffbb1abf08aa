//! One YAML document as a tree that knows where in the text each value stands.

use std::{collections::BTreeSet, ops::Range};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

use super::{Error, File, FileLine};

/// A value.
#[derive(Clone, Debug)]
pub struct Node {
    /// The bytes that it stands in, with its quotes.
    pub at: Range<usize>,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A text, number, or anything else without parts.
    Scalar(Scalar),
    /// A list.
    Sequence {
        /// It is written in brackets.
        flow: bool,
        /// Its items.
        items: Vec<Node>,
    },
    /// Keys and values.
    Mapping {
        /// It is written in braces.
        flow: bool,
        /// Its entries.
        entries: Vec<(Node, Node)>,
    },
}

/// A value without parts.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// What it says.
    pub value: String,
    /// How it is quoted.
    pub quotes: Quotes,
    /// The bytes that are exactly what it says: no escapes, no folded lines.
    pub literal: Option<Range<usize>>,
    /// It goes over several lines.
    pub lines: bool,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotes {
    /// As it is.
    Plain,
    /// In single quotes.
    Single,
    /// In double quotes.
    Double,
    /// As a block of lines.
    Block,
}

impl Quotes {
    /// A text without anything to escape, written so.
    pub fn around(self, text: &str) -> String {
        match self {
            Self::Plain | Self::Block => text.to_owned(),
            Self::Single => format!("'{text}'"),
            Self::Double => format!("\"{text}\""),
        }
    }
}

impl Node {
    /// Where it is.
    pub fn place(&self, file: File) -> FileLine {
        FileLine { file, line: self.line }
    }

    /// The error that it is written in a way that is not edited.
    pub fn style(&self, file: File, what: &'static str) -> Error {
        Error::Style { place: self.place(file), what }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// A key with its value.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key))
    }

    /// All keys and values; none of anything but a mapping.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.content {
            Content::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// All items; none of anything but a list.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// What it says without parts.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.content {
            Content::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Its text.
    pub fn text(&self) -> Option<&str> {
        self.scalar().map(|scalar| scalar.value.as_str())
    }

    /// Whether there is nothing in it: an empty collection, or no value at all.
    pub fn is_empty(&self) -> bool {
        match &self.content {
            Content::Scalar(scalar) => {
                scalar.quotes == Quotes::Plain && matches!(&*scalar.value, "" | "~" | "null")
            }
            Content::Sequence { items, .. } => items.is_empty(),
            Content::Mapping { entries, .. } => entries.is_empty(),
        }
    }

    /// Whether it is written in brackets or braces.
    pub fn is_flow(&self) -> bool {
        matches!(
            &self.content,
            Content::Sequence { flow: true, .. } | Content::Mapping { flow: true, .. }
        )
    }
}

enum Open {
    Sequence { start: Span, flow: bool, items: Vec<Node> },
    Mapping { start: Span, flow: bool, entries: Vec<(Node, Node)>, key: Option<Node> },
}

/// Reads a text with one document, without anchors, aliases and tags. Behind it there may be
/// documents in which nothing is: whoever reads the first one only, as a kubelet does, and whoever
/// reads all see the same.
///
/// # Errors
/// Where it is anything else.
pub fn read(file: File, text: &str) -> Result<Node, Error> {
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    let mut second = FileLine { file, line: 1 };
    let mut root = None;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| syntax(file, &error))?;
        let place = FileLine { file, line: span.start.line() };
        if event.is_alias() || event.anchor_id().is_some_and(|id| id != 0) || event.tag().is_some()
        {
            return Err(Error::Anchors(place));
        }
        let node = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                second = place;
                continue;
            }
            Event::Scalar(value, ScalarStyle::Plain, ..)
                if documents > 1 && matches!(&*value, "" | "~" | "null") =>
            {
                continue;
            }
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..)
                if documents > 1 =>
            {
                return Err(Error::Documents(second));
            }
            Event::SequenceStart(style, ..) => {
                let flow = style == StructureStyle::Flow;
                open.push(Open::Sequence { start: span, flow, items: Vec::new() });
                continue;
            }
            Event::MappingStart(style, ..) => {
                let flow = style == StructureStyle::Flow;
                open.push(Open::Mapping { start: span, flow, entries: Vec::new(), key: None });
                continue;
            }
            Event::Scalar(value, style, ..) => scalar(text, value.into_owned(), style, &span),
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::Sequence { start, flow, items }) => {
                    collection(&start, &span, Content::Sequence { flow, items })
                }
                Some(Open::Mapping { start, flow, entries, .. }) => {
                    if let Some(key) = twice(&entries) {
                        let what = format!("the key {} is there twice", key.text().unwrap_or("?"));
                        return Err(Error::Unexpected { place: key.place(file), what });
                    }
                    collection(&start, &span, Content::Mapping { flow, entries })
                }
                None => continue,
            },
            _ => continue,
        };
        let Some(node) = node else {
            return Err(Error::Syntax { place, why: "its place is not known".to_owned() });
        };
        match open.last_mut() {
            None => root = Some(node),
            Some(Open::Sequence { items, .. }) => items.push(node),
            Some(Open::Mapping { entries, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(name) => entries.push((name, node)),
            },
        }
    }
    let empty =
        || Error::Syntax { place: FileLine { file, line: 1 }, why: "it is empty".to_owned() };
    root.ok_or_else(empty)
}

/// A key that an entry before has, too.
fn twice(entries: &[(Node, Node)]) -> Option<&Node> {
    let mut seen = BTreeSet::new();
    let keys = entries.iter().map(|(key, _)| key);
    keys.into_iter().find(|key| key.text().is_some_and(|text| !seen.insert(text)))
}

fn syntax(file: File, error: &ScanError) -> Error {
    let place = FileLine { file, line: error.marker().line() };
    Error::Syntax { place, why: error.info() }
}

fn scalar(text: &str, value: String, style: ScalarStyle, span: &Span) -> Option<Node> {
    let at = span.byte_range()?;
    let raw = text.get(at.clone())?;
    let (quotes, inner) = match style {
        ScalarStyle::Plain => (Quotes::Plain, at.clone()),
        ScalarStyle::SingleQuoted => (Quotes::Single, at.start + 1..at.end.saturating_sub(1)),
        ScalarStyle::DoubleQuoted => (Quotes::Double, at.start + 1..at.end.saturating_sub(1)),
        ScalarStyle::Literal | ScalarStyle::Folded => (Quotes::Block, at.clone()),
    };
    let literal = match quotes {
        Quotes::Block => None,
        _ => Some(inner).filter(|inner| {
            text.get(inner.clone()) == Some(value.as_str()) && !raw.contains(['\n', '\r'])
        }),
    };
    let lines = quotes == Quotes::Block || raw.contains(['\n', '\r']);
    let content = Content::Scalar(Scalar { value, quotes, literal, lines });
    Some(Node { at, line: span.start.line(), content })
}

fn collection(start: &Span, end: &Span, content: Content) -> Option<Node> {
    let at = start.byte_range()?.start..end.byte_range()?.end;
    Some(Node { at, line: start.start.line(), content })
}
