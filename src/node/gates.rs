//! The feature gates with which the running kubelet was started: its configuration file, the drop-ins
//! of that, and its command line, in the order in which the kubelet takes them (`NewKubeletCommand`,
//! `mergeKubeletConfigurations` and `kubeletConfigFlagPrecedence` of `cmd/kubelet/app/server.go`).
//!
//! Files count only while they are what the kubelet has read: one that may have changed since it
//! started tells of its next start, so nothing is known then.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{host::Host, process::Process};
use crate::kubernetes::{
    arguments::kubelet::{self, Text},
    documents,
    feature_gates::FeatureGates,
};

/// The gates that are set, and what they are set to.
pub type Gates = BTreeMap<String, bool>;

/// A configuration is some kilobytes.
const FILE_MAX: u64 = 1 << 20;

/// Files and folders of drop-ins that are looked at.
const FILES_MAX: usize = 256;

/// The extension of drop-ins.
const DROP_IN: &str = "conf";

/// The kind of all these files.
const KIND: &str = "KubeletConfiguration";

/// Watches the gates of the kubelet that runs.
#[derive(Debug, Default)]
pub struct Watch {
    last: Option<Look>,
}

/// A look at the files of one kubelet.
#[derive(Debug)]
struct Look {
    process: (u32, u64),
    stamps: Stamps,
    /// What the kubelet has read, once that is known.
    read: Option<BTreeMap<String, Value>>,
}

impl Watch {
    /// Those of `names` that the kubelet's command line and files set; `None` where that is not known.
    /// `started` is when it was started.
    pub fn see(
        &mut self,
        host: &Host,
        process: &Process,
        started: Option<SystemTime>,
        names: &[&str],
    ) -> Option<Gates> {
        let args: Vec<&str> = process.args.iter().skip(1).map(String::as_str).collect();
        let flags = FeatureGates::from_kubelet_args(&args);
        let sources = Sources::of(&args)?;
        let stamps = sources.stamps(host)?;
        let process = (process.pid, process.start);
        let last = self.last.take().filter(|last| last.process == process);
        let look = match last {
            // What has changed since it was read is not what runs, whatever its times say.
            Some(last) if last.read.is_some() || last.stamps == stamps => last,
            _ => {
                let settled = started.is_some_and(|started| stamps.are_before(started));
                let read = settled.then(|| sources.read(host, &stamps)).flatten();
                // It may have changed while it was read.
                let read = read.filter(|_| sources.stamps(host).as_ref() == Some(&stamps));
                Look { process, stamps: stamps.clone(), read }
            }
        };
        let look = self.last.insert(look);
        let read = look.read.as_ref().filter(|_| look.stamps == stamps)?;
        set(read, &flags, names)
    }
}

/// Of these gates those that are set: a flag has the last word about each.
fn set(read: &BTreeMap<String, Value>, flags: &FeatureGates, names: &[&str]) -> Option<Gates> {
    if flags.unreadable().is_some() {
        return None;
    }
    let mut gates = Gates::new();
    for name in names {
        let on = match (flags.get(name), read.get(*name)) {
            (Some(on), _) => on,
            (None, Some(Value::Bool(on))) => *on,
            (None, Some(_)) => return None,
            (None, None) => continue,
        };
        gates.insert((*name).to_owned(), on);
    }
    Some(gates)
}

/// Where a kubelet has its configuration from, as paths on the node.
#[derive(Debug)]
struct Sources<'a> {
    config: Option<&'a str>,
    drop_ins: Option<&'a str>,
}

impl<'a> Sources<'a> {
    /// What a command line says of it; `None` where that is not clear.
    fn of(args: &[&'a str]) -> Option<Self> {
        let path = |flag| match kubelet::certain_text(args, flag) {
            Text::Absent | Text::Is("") => Some(None),
            // Relative to a folder that is not known.
            Text::Is(path) => path.starts_with('/').then_some(Some(path)),
            Text::Unclear => None,
        };
        Some(Self { config: path("config")?, drop_ins: path("config-dir")? })
    }

    /// All files and folders that count; `None` where one cannot be seen.
    fn stamps(&self, host: &Host) -> Option<Stamps> {
        let mut stamps = Stamps::default();
        if let Some(config) = self.config {
            stamps.add_link(host, config).ok()?;
            stamps.add(host.resolved(config)).ok()?;
        }
        if let Some(folder) = self.drop_ins {
            stamps.add_link(host, folder).ok()?;
            stamps.add_folder(host, folder).ok()?;
        }
        Some(stamps)
    }

    /// `featureGates` of all files, as they are merged. `None` where one is not understood.
    fn read(&self, host: &Host, stamps: &Stamps) -> Option<BTreeMap<String, Value>> {
        let mut all = BTreeMap::new();
        if let Some(config) = self.config {
            all.extend(gates_in(&host.resolved(config))?.unwrap_or_default());
        }
        for file in &stamps.drop_ins {
            all.extend(gates_in(file)?.unwrap_or_default());
        }
        Some(all)
    }
}

/// `featureGates` of one file, if it has any; `None` where the file is not understood.
fn gates_in(file: &Path) -> Option<Option<serde_json::Map<String, Value>>> {
    let text = fs::read_to_string(file).ok()?;
    let Value::Object(mut config) = documents::first(&text).ok()? else { return None };
    if config.get("kind").and_then(Value::as_str) != Some(KIND) {
        return None;
    }
    match config.remove("featureGates") {
        None => Some(None),
        Some(Value::Object(gates)) => Some(Some(gates)),
        // How a null is merged is not worth to be relied on.
        Some(_) => None,
    }
}

/// What tells one state of files from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamps {
    all: Vec<(PathBuf, Stamp)>,
    /// Those of them that are drop-ins, in the order in which they are merged.
    drop_ins: Vec<PathBuf>,
}

/// One file or folder, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    /// When its content or anything else of it has changed last, since the epoch.
    changed: Duration,
}

impl Stamps {
    fn add(&mut self, path: PathBuf) -> io::Result<()> {
        let stamp = Stamp::of(&fs::metadata(&path)?);
        if stamp.size > FILE_MAX || self.all.len() >= FILES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.all.push((path, stamp));
        Ok(())
    }

    /// The path itself, where it is a link: it may lead to another file that is as old.
    fn add_link(&mut self, host: &Host, path: &str) -> io::Result<()> {
        let path = host.path(path);
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_symlink() {
            self.all.push((path, Stamp::of(&metadata)));
        }
        Ok(())
    }

    /// A folder of drop-ins, and those below it in lexical order, as Go's `filepath.WalkDir` goes: it
    /// follows links to files, and none to folders but the first.
    fn add_folder(&mut self, host: &Host, folder: &str) -> io::Result<()> {
        let place = host.resolved(folder);
        self.add(place.clone())?;
        let entries = fs::read_dir(&place)?.collect::<io::Result<Vec<_>>>()?;
        let mut names: Vec<(String, bool)> = Vec::new();
        for entry in entries {
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            names.push((name, entry.file_type()?.is_dir()));
        }
        names.sort_unstable();
        for (name, is_folder) in names {
            let path = format!("{}/{name}", folder.trim_end_matches('/'));
            if is_folder {
                self.add_folder(host, &path)?;
            } else if name.rsplit_once('.').is_some_and(|(_, extension)| extension == DROP_IN) {
                self.add_link(host, &path)?;
                let file = host.resolved(&path);
                self.add(file.clone())?;
                self.drop_ins.push(file);
            }
        }
        Ok(())
    }

    fn are_before(&self, moment: SystemTime) -> bool {
        let moment = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.all.iter().all(|(_, stamp)| stamp.changed < moment)
    }
}

impl Stamp {
    /// The time of the last change of an inode is later than that of its content where a file was
    /// moved into its place, or written with an older time.
    fn of(metadata: &fs::Metadata) -> Self {
        let time = |seconds: i64, nanos: i64| {
            let nanos = u32::try_from(nanos).unwrap_or_default();
            Duration::new(u64::try_from(seconds).unwrap_or_default(), nanos)
        };
        let content = time(metadata.mtime(), metadata.mtime_nsec());
        let inode = time(metadata.ctime(), metadata.ctime_nsec());
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            changed: content.max(inode),
        }
    }
}

#[cfg(test)]
mod tests;
