//! What the kubelet's next start takes its arguments from, as systemd reads it: the unit, its
//! drop-ins, and the environment files that these name.

use std::{collections::BTreeMap, io};

use super::{host::Host, systemd::KUBELET as UNIT};
use crate::{
    decision::redirects::evidence::ENVIRONMENT_FILES,
    edit::{
        environment,
        unit::{self, Part},
    },
    kubernetes::arguments::kubelet::{self, FlagValue},
};

/// Where systemd looks for units, best first.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What the files say about a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextStart {
    /// What they say of the next start.
    pub says: FlagValue,
    /// Those that name it, as paths on the node.
    pub files: Vec<String>,
}

impl Host {
    /// What the kubelet's next start will say about a boolean flag.
    ///
    /// Which variables end up on the command line, and in which order, only the unit tells, and of the
    /// unit not every part need be visible here. So each place counts, and the worst of them; but for
    /// the three files of kubeadm's drop-in, which come in the order in which it has them.
    pub fn next_start(&self, flag: &str) -> NextStart {
        let mut found = Found { flag, says: FlagValue::Absent, files: Vec::new() };
        let units = self.units();
        let mut named: Vec<String> = Vec::new();
        for (path, text) in &units {
            for part in unit::parts(text) {
                match part {
                    Part::Arguments(words) => found.add(path, &words),
                    Part::Other(text) if names(&text, flag) => {
                        found.worsen(path, FlagValue::Unreadable)
                    }
                    Part::Other(_) => {}
                    Part::EnvironmentFile(file) if file.is_empty() => named.clear(),
                    Part::EnvironmentFile(file) => named.push(file),
                }
            }
        }
        for file in &named {
            self.add_named(&mut found, file);
        }
        let mut usual: Vec<String> = Vec::new();
        for path in ENVIRONMENT_FILES {
            match self.text(path) {
                Ok(text) => {
                    found.add_garbled(path, &text);
                    let words = environment::words(&text);
                    found.note(path, &words);
                    usual.extend(words);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => found.worsen(path, FlagValue::Unreadable),
            }
        }
        let says = kubelet::boolean(usual.iter().map(String::as_str), flag);
        found.says = worse(found.says, says);
        found.files.sort();
        found.files.dedup();
        NextStart { says: found.says, files: found.files }
    }

    /// The unit and its drop-ins that can be seen here, with their paths, in the order in which they
    /// count. A drop-in hides those of its name in folders that come later.
    fn units(&self) -> Vec<(String, String)> {
        let fragments = FOLDERS.iter().map(|folder| format!("{folder}/{UNIT}"));
        let fragment = fragments.filter_map(|path| Some((self.text(&path).ok()?, path))).next();
        let mut drop_ins = BTreeMap::new();
        for folder in FOLDERS {
            for kind in [format!("{UNIT}.d"), "service.d".to_owned()] {
                let folder = format!("{folder}/{kind}");
                for name in self.names_in(&folder).filter(|name| name.ends_with(".conf")) {
                    drop_ins.entry(name.clone()).or_insert_with(|| format!("{folder}/{name}"));
                }
            }
        }
        let drop_ins = drop_ins.into_values();
        let drop_ins = drop_ins.filter_map(|path| Some((self.text(&path).ok()?, path)));
        fragment.into_iter().chain(drop_ins).map(|(text, path)| (path, text)).collect()
    }

    fn names_in(&self, folder: &str) -> impl Iterator<Item = String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten();
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
    }

    /// Adds an environment file that a unit names, perhaps by a pattern.
    fn add_named(&self, found: &mut Found<'_>, file: &str) {
        let path = file.strip_prefix('-').unwrap_or(file).trim();
        if ENVIRONMENT_FILES.contains(&path) {
            return;
        }
        // Specifiers are not expanded here, and some folders are not mounted: such a file may name it.
        if path.replace("%%", "").contains('%') || !self.shows(path) {
            return found.worsen(path, FlagValue::Unreadable);
        }
        let path = path.replace("%%", "%");
        let Some((folder, pattern)) = path.rsplit_once('/') else { return };
        let paths: Vec<String> = if pattern.contains(['*', '?', '[']) {
            let names = self.names_in(folder).filter(|name| matches(pattern, name));
            names.map(|name| format!("{folder}/{name}")).collect()
        } else {
            vec![path]
        };
        for path in paths {
            match self.text(&path) {
                Ok(text) => {
                    found.add_garbled(&path, &text);
                    for words in environment::variables_words(&text) {
                        found.add(&path, &words);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => found.worsen(&path, FlagValue::Unreadable),
            }
        }
    }

    /// A file's text. Bytes that are no UTF-8 are there as U+FFFD: systemd skips them in comments.
    fn text(&self, path: &str) -> io::Result<String> {
        let bytes = std::fs::read(self.resolved(path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What is found about a flag.
struct Found<'f> {
    flag: &'f str,
    says: FlagValue,
    files: Vec<String>,
}

impl Found<'_> {
    /// Takes the words of one place.
    fn add(&mut self, path: &str, words: &[String]) {
        let says = kubelet::boolean(words.iter().map(String::as_str), self.flag);
        // A shell's script, say.
        let hidden = says == FlagValue::Absent && words.iter().any(|word| names(word, self.flag));
        self.worsen(path, if hidden { FlagValue::Unreadable } else { says });
    }

    /// Takes what systemd refuses: a name or a value that is no UTF-8. What becomes of the rest of
    /// such a file then depends on how the unit names it.
    fn add_garbled(&mut self, path: &str, text: &str) {
        if environment::holds(text, '\u{fffd}') && names(text, self.flag) {
            self.worsen(path, FlagValue::Unreadable);
        }
    }

    /// Takes down that a file names the flag.
    fn note(&mut self, path: &str, words: &[String]) {
        if words.iter().any(|word| names(word, self.flag)) {
            self.files.push(path.to_owned());
        }
    }

    fn worsen(&mut self, path: &str, says: FlagValue) {
        if says != FlagValue::Absent {
            self.files.push(path.to_owned());
            self.says = worse(self.says, says);
        }
    }
}

/// The worse of two statements about one start.
fn worse(a: FlagValue, b: FlagValue) -> FlagValue {
    let rank = |says: &FlagValue| match says {
        FlagValue::On => 0,
        FlagValue::Unreadable => 1,
        FlagValue::Off => 2,
        FlagValue::Absent => 3,
    };
    std::cmp::min_by_key(a, b, rank)
}

fn names(text: &str, flag: &str) -> bool {
    text.replace('_', "-").contains(flag)
}

/// Whether a name matches a pattern of glob(7). What is in brackets may be anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return name.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    let mut chars = name.chars();
    match first {
        '*' => (0..=name.len())
            .filter(|at| name.is_char_boundary(*at))
            .any(|at| matches(rest, &name[at..])),
        '[' => {
            let rest = rest.split_once(']').map_or("", |(_, rest)| rest);
            chars.next().is_some() && matches(rest, chars.as_str())
        }
        '?' => chars.next().is_some() && matches(rest, chars.as_str()),
        first => chars.next() == Some(first) && matches(rest, chars.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const FLAG: &str = "redirect-container-streaming";
    const ON: &str = "--redirect-container-streaming=true";
    const OFF: &str = "--redirect-container-streaming=false";

    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            for (path, bytes) in files {
                let path = root.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            root
        }

        fn says(&self) -> (FlagValue, Vec<String>) {
            let found = Host::new(self.0.path().into()).next_start(FLAG);
            (found.says, found.files)
        }
    }

    const KUBELET: &str = "etc/systemd/system/kubelet.service";

    /// A node with this unit and these files.
    fn says(unit: &str, files: &[(&str, String)]) -> (FlagValue, Vec<String>) {
        let mut all = vec![(KUBELET, unit.as_bytes())];
        all.extend(files.iter().map(|(path, text)| (*path, text.as_bytes())));
        Root::new(&all).says()
    }

    #[test]
    fn the_unit_names_its_files() {
        let unit = "[Service]\nEnvironmentFile=-/etc/kubernetes/kubelet.env\nExecStart=/usr/local/bin/kubelet $ARGS\n";
        let env = |text: &str| vec![("etc/kubernetes/kubelet.env", text.to_owned())];
        let file = vec!["/etc/kubernetes/kubelet.env".to_owned()];
        assert_eq!(says(unit, &env(&format!("ARGS=\"{ON}\"\n"))), (FlagValue::On, file.clone()));
        assert_eq!(
            says(unit, &env(&format!("# {ON}\nARGS='{OFF}'"))),
            (FlagValue::Off, file.clone())
        );
        // Which of two variables comes last, the file does not say.
        assert_eq!(says(unit, &env(&format!("A={ON}\nB={OFF}\n"))), (FlagValue::On, file));
        assert_eq!(says(unit, &env("ARGS=--v=2\n")), (FlagValue::Absent, vec![]));
        assert_eq!(says(unit, &[]), (FlagValue::Absent, vec![]));
        // A drop-in may take all files back, and name others, by a pattern too.
        let drop_in = (
            "etc/systemd/system/kubelet.service.d/10.conf",
            "[Service]\nEnvironmentFile=\nEnvironmentFile=/etc/k/*.env\n".to_owned(),
        );
        let files = [
            drop_in,
            ("etc/kubernetes/kubelet.env", format!("A={ON}")),
            ("etc/k/a.env", format!("A={OFF}")),
            ("etc/k/a.txt", format!("A={ON}")),
        ];
        assert_eq!(says(unit, &files), (FlagValue::Off, vec!["/etc/k/a.env".to_owned()]));
    }

    #[test]
    fn arguments_in_the_unit_count_too() {
        let unit = format!("/{KUBELET}");
        let on = |text: &str| says(&format!("[Service]\n{text}\n"), &[]);
        for (text, expected) in [
            (format!("ExecStart=/usr/bin/kubelet {ON}"), FlagValue::On),
            (format!("Environment=\"A=--v=2 {ON}\""), FlagValue::On),
            (format!("ExecStart=/bin/sh -c 'exec kubelet {ON}'"), FlagValue::Unreadable),
            (format!("ExecStartPre=/bin/sh -c 'echo A={ON} > /run/x'"), FlagValue::Unreadable),
            ("EnvironmentFile=/opt/kubelet.env".to_owned(), FlagValue::Unreadable),
            ("EnvironmentFile=/etc/%H.env".to_owned(), FlagValue::Unreadable),
        ] {
            let (says, files) = on(&text);
            assert_eq!((says, files.len()), (expected, 1), "{text}");
        }
        assert_eq!(on(&format!("# {ON}\nExecStart=/usr/bin/kubelet")), (FlagValue::Absent, vec![]));
        assert_eq!(on(&format!("ExecStart=kubelet {ON}")).1, [unit]);
    }

    #[test]
    fn the_files_of_kubeadms_drop_in_come_in_their_order() {
        let files = |kubeadm: &str, extra: &str| {
            Root::new(&[
                ("var/lib/kubelet/kubeadm-flags.env", format!("A=\"{kubeadm}\"").as_bytes()),
                ("etc/default/kubelet", format!("B={extra}").as_bytes()),
            ])
            .says()
        };
        assert_eq!(files(ON, OFF).0, FlagValue::Off);
        assert_eq!(files(OFF, ON).0, FlagValue::On);
        assert_eq!(files(ON, "").1, ["/var/lib/kubelet/kubeadm-flags.env"]);
        assert_eq!(files("--v=2", "").0, FlagValue::Absent);
    }

    #[test]
    fn bytes_that_are_no_text() {
        let with = |bytes: &[u8]| Root::new(&[("etc/default/kubelet", bytes)]).says().0;
        let on = b"# Ger\xe4t\nA=--redirect-container-streaming=true\n";
        assert_eq!(with(on), FlagValue::On);
        assert_eq!(
            with(b"B=\xe4\nA=--redirect-container-streaming=false\n"),
            FlagValue::Unreadable
        );
        assert_eq!(with(b"B=\xe4\nA=--v=2\n"), FlagValue::Absent);
        let unit = b"# Ger\xe4t\n[Service]\nExecStart=/usr/local/bin/kubelet --redirect-container-streaming=true --v=2\n";
        assert_eq!(Root::new(&[(KUBELET, unit)]).says().0, FlagValue::On);
    }

    #[test]
    fn links_lead_to_where_they_lead_on_the_node() {
        let root = Root::new(&[("etc/kubernetes/kubelet", format!("A={ON}").as_bytes())]);
        let folder = root.0.path().join("etc/default");
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("/etc/kubernetes/kubelet", folder.join("kubelet")).unwrap();
        assert_eq!(root.says(), (FlagValue::On, vec!["/etc/default/kubelet".to_owned()]));
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*.env", "a.env", true),
            ("*.env", "a.conf", false),
            ("kubelet*", "kubelet", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[0-9].env", "a1.env", true),
            ("ä*", "äö", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
