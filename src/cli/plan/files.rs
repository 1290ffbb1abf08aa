//! Objects from files, as kubectl prints them and as people write them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::objects::Objects;
use crate::kubernetes::documents;

mod object;

/// The name that stands for standard input.
const STDIN: &str = "-";

/// The kinds of files that are read from a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

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
    /// A directory without a file to read.
    #[error("{0} holds no .yaml, .yml or .json file")]
    NoFiles(String),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "Read",
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
            let mut bytes = Vec::new();
            stdin.read_to_end(&mut bytes).map_err(|source| unreadable("standard input", source))?;
            add_bytes(&mut objects, "standard input", bytes);
            continue;
        }
        for file in files(path)? {
            let name = file.display().to_string();
            let bytes = fs::read(&file).map_err(|source| unreadable(&name, source))?;
            add_bytes(&mut objects, &name, bytes);
        }
    }
    Ok(objects)
}

fn add_bytes(objects: &mut Objects, file: &str, bytes: Vec<u8>) {
    match documents::decode(bytes) {
        Ok(text) => add(objects, file, &text),
        Err(why) => objects.unread.push(Unread::Syntax { file: file.to_owned(), why }),
    }
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
mod tests {
    use super::*;

    fn objects(text: &str) -> Result<Objects, String> {
        let mut objects = Objects::default();
        add(&mut objects, "f.yaml", text);
        objects.unread.first().map_or(Ok(()), |unread| Err(unread.to_string()))?;
        Ok(objects)
    }

    #[test]
    fn reads_every_shape_of_list() {
        for text in [
            "{apiVersion: v1, kind: Node, metadata: {name: n}}",
            "---\n# nothing\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n}\n---\n",
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: n}}]",
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Node, metadata: {name: n}}]}]",
            r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"}}"#,
            r#"{"apiVersion":"v1","kind":"NodeList","items":[{"metadata":{"name":"n"}}]}"#,
            "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"n\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Secret\"}",
        ] {
            let names: Vec<_> = objects(text).unwrap().nodes.into_keys().collect();
            assert_eq!(names, ["n"], "{text}");
        }
    }

    #[test]
    fn what_can_be_read_is_there_beside_what_cannot() {
        let mut objects = Objects::default();
        let node =
            |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
        let list =
            format!("{{apiVersion: v1, kind: List, items: [{}, 7, {}]}}", node("a"), node("b"));
        add(&mut objects, "1.yaml", &format!("{list}\n---\nkind: Node\n---\n{}", node("c")));
        add(&mut objects, "2.yaml", "a: [");
        add(&mut objects, "3.yaml", &node("d"));
        let names: Vec<_> = objects.nodes.keys().collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        let unread: Vec<_> = objects.unread.iter().map(Unread::to_string).collect();
        assert_eq!(unread.len(), 3, "{unread:?}");
        assert_eq!(unread[0], "1.yaml, document 1, items[1]: not an object");
        assert!(unread[2].starts_with("2.yaml: "), "{unread:?}");
    }

    #[test]
    fn a_document_that_is_no_yaml_hides_no_other() {
        let mut objects = Objects::default();
        let node =
            |name: &str| format!("{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}}}");
        let text = format!("---\n{}\n---\na: [\n--- \n{}\n---\nkind: Node\n", node("a"), node("b"));
        add(&mut objects, "f.yaml", &text);
        assert_eq!(objects.nodes.keys().collect::<Vec<_>>(), ["a", "b"]);
        let unread: Vec<_> = objects.unread.iter().map(Unread::to_string).collect();
        assert!(unread[0].contains("line 4"), "{unread:?}");
        assert!(unread[1].starts_with("f.yaml, document 4: "), "{unread:?}");
        assert_eq!(unread.len(), 2, "{unread:?}");
    }

    #[test]
    fn other_kinds_are_counted() {
        let text =
            "apiVersion: apps/v1\nkind: Node\n---\napiVersion: v1\nkind: Secret\ndata: {a: b}\n";
        let seen = objects(text).unwrap();
        assert_eq!((seen.skipped, seen.nodes.len()), (2, 0));
    }

    #[test]
    fn the_last_of_two_counts_and_that_is_said() {
        let node = |version: &str| {
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: n}}\nstatus: {{nodeInfo: {{kubeletVersion: {version}}}}}\n"
            )
        };
        let seen = objects(&format!("{}---\n{}", node("v1.18.0"), node("v1.20.0"))).unwrap();
        assert_eq!(seen.nodes["n"].kubelet_version, "v1.20.0");
        assert_eq!(seen.warnings.len(), 1, "{:?}", seen.warnings);
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let policy = |spec: &str| {
            format!(
                "apiVersion: sluice.dev/v1alpha1\nkind: StreamingPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
            )
        };
        for (text, expected) in [
            (
                policy("{streamingProxyRedirect: Disabled}"),
                "spec.streamingProxyRedirect: unknown field",
            ),
            (policy("{proxy: {mod: Streams}}"), "spec.proxy.mod: unknown field"),
            (
                policy("{streamingProxyRedirects: Off}"),
                "spec.streamingProxyRedirects: unknown variant",
            ),
            (
                policy("{proxy: {maxConnectionBytesPerSec: -5}}"),
                "spec.proxy.maxConnectionBytesPerSec: -5 is out of range",
            ),
            (
                policy("{proxy: {maxConnectionBytesPerSec: fast}}"),
                "spec.proxy.maxConnectionBytesPerSec: \"fast\" is not a quantity",
            ),
            (policy("{targetVersion: 1.24}"), "spec.targetVersion: invalid type: floating point"),
            (policy("{targetVersion: \"2.0\"}"), "spec.targetVersion: \"2.0\" is not a version"),
            (
                policy("{overrides: [{node: n, reason: '', expires: 2030-01-01T00:00:00Z}]}"),
                "spec.overrides[0].reason: ",
            ),
            (
                policy("{overrides: [{node: n, expires: 2030-01-01T00:00:00Z}]}"),
                "missing field `reason`",
            ),
            (policy("{}\nspecs: {}"), "specs: unknown field"),
        ] {
            let error = objects(&format!("---\n{text}")).unwrap_err();
            assert!(error.starts_with("f.yaml, document 1: StreamingPolicy p: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        for (text, expected) in [
            ("a: [", "f.yaml: "),
            ("just words", "f.yaml, document 1: not an object"),
            ("a: b", "f.yaml, document 1: no kind"),
            (
                "apiVersion: v1\nkind: NodeList\nitems: {a: b}",
                "f.yaml, document 1: its items are no list",
            ),
            (
                "apiVersion: v1\nkind: Node\nmetadata: {}",
                "f.yaml, document 1: Node: metadata.name: ",
            ),
            (
                "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: 7}}]",
                "f.yaml, document 1, items[0]: Node: metadata.name: ",
            ),
            (
                "apiVersion: v1\nkind: Node\nmetadata: {name: n, labels: {a: true}}",
                "f.yaml, document 1: Node n: metadata.labels",
            ),
            (
                "apiVersion: sluice.dev/v9\nkind: StreamingPolicy\nmetadata: {name: p}",
                "f.yaml, document 1: StreamingPolicy p: apiVersion: ",
            ),
        ] {
            let error = objects(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn only_the_apiservers_pods_are_read() {
        let pod = |namespace: &str, component: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-apiserver-cp, namespace: {namespace}, labels: {{component: {component}}}, annotations: {{kubernetes.io/config.mirror: x}}, ownerReferences: [{{apiVersion: v1, kind: Node, name: cp, uid: u}}]}}\nspec: {{nodeName: cp, containers: [{{name: kube-apiserver, image: 'k/kube-apiserver:v1.21.0', command: [kube-apiserver]}}]}}\n"
            )
        };
        for (namespace, component, count) in [
            ("kube-system", "kube-apiserver", 1),
            // Whatever its labels say, it runs one.
            ("kube-system", "etcd", 1),
            ("other", "kube-apiserver", 0),
        ] {
            let seen = objects(&pod(namespace, component)).unwrap();
            assert_eq!(seen.pods.len(), count, "{namespace} {component}");
        }
    }
}
