//! The rule of arrows: which module of `src/` may name which. What is lower knows nothing of what
//! is above it, so that each module can be read with only those below it in mind.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module, from the bottom up, and those that it may name, all of which stand before it.
const MAY_NAME: [(&str, &[&str]); 13] = [
    ("kubernetes", &[]),
    ("process", &[]),
    ("relay", &[]),
    ("api", &["kubernetes"]),
    ("decision", &["kubernetes"]),
    ("edit", &["decision", "kubernetes"]),
    ("cluster", &["api", "decision", "kubernetes"]),
    ("node", &["api", "decision", "edit", "kubernetes"]),
    ("canary", &["cluster", "decision", "kubernetes", "process"]),
    ("agent", &["api", "cluster", "decision", "kubernetes", "node", "process", "relay"]),
    ("remediator", &["api", "cluster", "decision", "edit", "kubernetes", "node", "process"]),
    ("controller", &["api", "canary", "cluster", "decision", "edit", "kubernetes", "process"]),
    ("webhook", &["api", "cluster", "controller", "decision", "kubernetes", "process"]),
];

/// Puts the processes together, and may name everything.
const TOP: &str = "cli";

/// Only tests name it.
const FOR_TESTS: &str = "test_support";

/// A test that holds `docs/` against the code, and may name everything.
const OF_DOCS: &str = "docs";

/// The folders of single migrations in `decision`, whose shared rules must not name them.
const MIGRATIONS: [&str; 2] = ["redirects", "websockets"];

#[test]
fn arrows_run_down() {
    let mut wrong = Vec::new();
    for file in sources() {
        let path: Vec<&str> = file.module.iter().map(String::as_str).collect();
        let Some((_, may)) = MAY_NAME.iter().find(|(name, _)| *name == path[0]) else {
            assert!(
                [TOP, FOR_TESTS, OF_DOCS, "lib", "main"].contains(&path[0]),
                "src/{} is in no module of MAY_NAME: add it where it belongs",
                path.join("/")
            );
            continue;
        };
        for named in named(&file.code) {
            if named != path[0] && !may.contains(&named.as_str()) {
                wrong.push(format!("{} names {named}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that run up:\n{}", wrong.join("\n"));
}

#[test]
fn nothing_climbs_out_of_its_module_by_super() {
    for file in sources() {
        let out = "super::".repeat(file.module.len());
        let path = file.module.join("::");
        assert!(!file.code.contains(&out), "{path}: {out} leaves the module: write crate::");
    }
}

#[test]
fn what_migrations_share_names_none_of_them() {
    for file in sources().iter().filter(|file| file.module[0] == "decision") {
        let Some(part) = file.module.get(1) else { continue };
        if MIGRATIONS.contains(&part.as_str()) {
            continue;
        }
        for migration in MIGRATIONS {
            let names = file.code.contains(&format!("{migration}::"));
            assert!(!names, "decision::{part} is shared, and names {migration}");
        }
    }
}

#[test]
fn each_may_name_only_what_stands_before_it() {
    let mut below = BTreeSet::new();
    for (name, may) in MAY_NAME {
        for other in may {
            assert!(
                below.contains(other),
                "{name} may name {other}, which does not stand before it"
            );
        }
        below.insert(name);
    }
}

#[test]
fn what_counts_as_naming() {
    for (code, expected) in [
        ("use crate::api::Change;", vec!["api"]),
        ("use crate::{\n    api::{Change, node::X},\n    node,\n};", vec!["api", "node"]),
        ("fn f() -> crate::relay::Error {}", vec!["relay"]),
        ("use crate::decision::{self, crash};", vec!["decision"]),
        ("use super::api;", vec![]),
    ] {
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(named(code), expected, "{code}");
    }
    let source = "use crate::a;\n// crate::b\n#[cfg(test)]\nmod c;\n#[cfg(test)]\nmod tests {\n crate::d\n}\n";
    assert_eq!(named(&code(source)), BTreeSet::from(["a".to_owned()]));
}

/// A file of `src/`.
struct Source {
    /// Its module's path.
    module: Vec<String>,
    /// Its text without comments and tests.
    code: String,
}

/// All files of the product; those of its tests aside, which may play what is above them.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources = files.iter().map(|file| {
        let path = file.strip_prefix(&root).unwrap().with_extension("");
        let module = path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        Source { module, code: code(&fs::read_to_string(file).unwrap()) }
    });
    let of_tests =
        |source: &Source| source.module.iter().any(|part| part == "tests" || part == FOR_TESTS);
    let sources: Vec<Source> = sources.filter(|source| !of_tests(source)).collect();
    assert!(sources.len() > 100, "the sources are elsewhere");
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// A file without its comments, up to the tests at its end.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let tests = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(tests) {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The modules right below the crate's root that a piece of code names.
fn named(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        let rest = &code[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            named.extend(first_of_each(group));
        } else {
            named.extend(words(rest).next().map(str::to_owned));
        }
    }
    named
}

/// The first word of each path of a group, up to its closing brace.
fn first_of_each(group: &str) -> Vec<String> {
    let (mut depth, mut path, mut paths) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => paths.push(std::mem::take(&mut path)),
            _ if depth == 0 => path.push(c),
            _ => {}
        }
    }
    paths.push(path);
    paths.iter().filter_map(|path| words(path).next().map(str::to_owned)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
