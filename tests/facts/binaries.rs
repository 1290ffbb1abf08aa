//! The binaries that there are, and what one of them says to a command line.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use sluice::kubernetes::version::Minor;

use crate::apiserver::binaries;

/// A binary of a component.
#[derive(Clone, Debug)]
pub struct Binary {
    pub version: semver::Version,
    pub path: PathBuf,
}

impl Binary {
    pub fn minor(&self) -> Minor {
        Minor(self.version.minor.try_into().unwrap())
    }

    pub fn is_kubelet(&self) -> bool {
        self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubelet-"))
    }

    /// How it ends with these arguments, and everything that it prints.
    pub fn says(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(&self.path).args(arguments).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|e| panic!("run {}: {e}", self.path.display()));
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

/// Every version of a component that has been built, oldest first.
pub fn of(component: &str) -> Vec<Binary> {
    let folder = binaries();
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}; `make kubernetes` builds it", folder.display()));
    let mut found: Vec<Binary> = entries
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?;
            let version = name.strip_prefix(component)?.strip_prefix('-')?.parse().ok()?;
            Some(Binary { version, path })
        })
        .collect();
    found.sort_by(|a, b| a.version.cmp(&b.version));
    assert!(!found.is_empty(), "no {component} in {}", folder.display());
    found
}
