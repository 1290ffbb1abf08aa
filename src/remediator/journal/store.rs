//! The folder on the node in which an attempt is written down, with the originals.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Journal, Restored, Touched, aside};
use crate::{
    api::ChangeKind,
    node::host::Host,
    remediator::{
        file::{self, Found},
        foreign::{self, Whose},
    },
};

/// Who waits for the lock tries again so often.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// The folder of one kind of change.
#[derive(Clone, Debug)]
pub struct Store {
    kind: ChangeKind,
    folder: PathBuf,
    host: Host,
}

/// While it is held, nobody else reads or writes the journal, or touches a file of an attempt. The
/// kernel gives it back when the process ends, however it does.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Why something on the node's disk cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refuses.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The journal is there and says nothing.
    #[error("the journal {} cannot be understood: {source}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The journal cannot be written down.
    #[error("the journal cannot be written: {0}")]
    Encode(#[source] serde_json::Error),
    /// A file of the attempt is not as it was when the attempt began.
    #[error("{path} was changed by somebody else meanwhile")]
    Altered {
        /// The file's path on the node.
        path: String,
    },
    /// A file of the attempt, or its copy, is gone.
    #[error("{} is gone", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "DiskFull",
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    "NotWritable"
                }
                _ => "WriteFailed",
            },
            Self::Journal { .. } => "JournalUnreadable",
            Self::Encode(_) => "JournalUnwritable",
            Self::Altered { .. } => "FileAltered",
            Self::Gone { .. } => "FileGone",
        }
    }

    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

/// Gives a file this content, at once; a file that is not there is root's alone.
///
/// # Errors
/// Where that is not possible; then it is as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    file::replace(path, bytes, None).map_err(Error::io("write", path))
}

/// Removes a file that may be gone already, and what a write of it that was cut short has left.
///
/// # Errors
/// Where it stays.
pub fn remove(path: &Path) -> Result<(), Error> {
    file::remove(path).and_then(|()| file::tidy(path)).map_err(Error::io("remove", path))
}

impl Store {
    /// The folder for changes of this kind below `state`, on this node.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn open(state: &Path, kind: ChangeKind, host: Host) -> Result<Self, Error> {
        let folder = state.join(kind.as_str());
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        Ok(Self { kind, folder, host })
    }

    /// The kind.
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// Where there can be none.
    pub async fn lock(&self) -> Result<Lock, Error> {
        let path = self.folder.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_AGAIN).await,
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path)(source)),
            }
        }
    }

    /// The attempt that is written down.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn load(&self) -> Result<Option<Journal>, Error> {
        let path = self.journal();
        match file::read(&path).map_err(Error::io("read", &path))? {
            None => Ok(None),
            Some(found) => serde_json::from_slice(&found.bytes)
                .map(Some)
                .map_err(|source| Error::Journal { path, source }),
        }
    }

    /// Writes the attempt down.
    ///
    /// # Errors
    /// Where that is not possible; then the one before it is still there.
    pub fn save(&self, journal: &Journal) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(journal).map_err(Error::Encode)?;
        write(&self.journal(), &text)
    }

    /// Sets aside a journal that says nothing.
    ///
    /// # Errors
    /// Where it stays.
    pub fn set_journal_aside(&self) -> Result<(), Error> {
        let path = self.journal();
        if let Some(found) = file::read(&path).map_err(Error::io("read", &path))? {
            aside::keep(&self.folder, "journal.json", &found)?;
        }
        remove(&path)
    }

    /// Reads a file of the node that is to be changed: a regular one.
    ///
    /// # Errors
    /// Where there is none, or none of that kind.
    pub fn read(&self, path: &str) -> Result<Found, Error> {
        let path = self.host.path(path);
        let found = file::read(&path).map_err(Error::io("read", &path))?;
        found.ok_or(Error::Gone { path })
    }

    /// Keeps the original of a file, and what is to be written instead.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn keep(
        &self,
        number: usize,
        path: &str,
        original: &Found,
        changed: &str,
    ) -> Result<Touched, Error> {
        let name = path.rsplit('/').next().unwrap_or("file");
        let touched = Touched {
            path: path.to_owned(),
            original: format!("{number}-{name}.original"),
            changed: format!("{number}-{name}.changed"),
            owner: original.owner,
        };
        let write = |name: &str, bytes: &[u8]| {
            let path = self.folder.join(name);
            file::replace(&path, bytes, Some(original.owner)).map_err(Error::io("write", &path))
        };
        write(&touched.original, &original.bytes)?;
        write(&touched.changed, changed.as_bytes())?;
        Ok(touched)
    }

    /// Writes what is to be written into the files that do not hold it yet.
    ///
    /// # Errors
    /// Where that is not possible, or a file holds neither that nor the original.
    pub fn edit(&self, journal: &Journal) -> Result<(), Error> {
        for touched in &journal.files {
            let path = self.host.path(&touched.path);
            let (original, changed) = self.copies(touched)?;
            let found = self.read(&touched.path)?;
            if found.bytes == changed {
                continue;
            }
            if found != original {
                return Err(Error::Altered { path: touched.path.clone() });
            }
            file::spare(&path)
                .and_then(|()| file::replace(&path, &changed, Some(touched.owner)))
                .map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    /// Puts the originals back, but not over what somebody else has put in their places: that may be
    /// newer, such as the manifest of a kubeadm upgrade, and would be undone.
    ///
    /// # Errors
    /// Where that is not possible: then it has to be tried again.
    pub fn restore(&self, journal: &Journal) -> Result<Restored, Error> {
        let Restored { mut notes, mut left } = Restored::default();
        for touched in &journal.files {
            let path = self.host.path(&touched.path);
            let (original, changed) = self.copies(touched)?;
            // The second name is there from before a file is written until its original is back.
            let written = journal.written || file::is_untidy(&path);
            match file::read(&path).map_err(Error::io("read", &path))? {
                Some(found) if found.bytes == original.bytes => {
                    file::tidy(&path).map_err(Error::io("tidy", &path))?;
                    continue;
                }
                Some(found) if found.bytes == changed => {}
                _ if !written => {
                    notes.push(format!("What somebody else did to {} stays.", touched.path));
                    continue;
                }
                Some(found)
                    if foreign::whose(&touched.path, &changed, &found.bytes) == Whose::Theirs =>
                {
                    left = true;
                    notes.push(format!(
                        "Somebody else has changed {} since, such as by a kubeadm upgrade, and it \
                         is left as it is. Compare it with what it was before, {}, and see that it \
                         says what it has to say.",
                        touched.path,
                        self.folder.join(&touched.original).display()
                    ));
                    continue;
                }
                Some(found) => {
                    let aside = aside::keep(&self.folder, &touched.original, &found)?;
                    notes.push(format!(
                        "{} held neither the original nor the change; what it held is kept as {}.",
                        touched.path,
                        aside.display()
                    ));
                }
                None => notes.push(format!("{} was gone.", touched.path)),
            }
            file::put_back(&path, &original).map_err(Error::io("put back", &path))?;
            notes.push(format!("The original {} is back.", touched.path));
        }
        Ok(Restored { notes, left })
    }

    /// Whether a file that was changed holds its original again: somebody has put it back, or a
    /// remediator that could not write that down. What cannot be read tells nothing.
    pub fn is_reverted(&self, journal: &Journal) -> bool {
        journal.files.iter().any(|touched| {
            let copies = self.copies(touched).ok();
            copies.zip(self.read(&touched.path).ok()).is_some_and(|((original, _), found)| {
                journal.written && found.bytes == original.bytes
            })
        })
    }

    /// Takes away what only an attempt in progress needs.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn tidy(&self, journal: &Journal) -> Result<(), Error> {
        for touched in &journal.files {
            let path = self.host.path(&touched.path);
            file::tidy(&path).map_err(Error::io("tidy", &path))?;
        }
        self.close_way_back()
    }

    /// Whether something is there that only an attempt in progress needs.
    pub fn is_untidy(&self, journal: &Journal) -> bool {
        journal.files.iter().any(|touched| file::is_untidy(&self.host.path(&touched.path)))
    }

    fn copies(&self, touched: &Touched) -> Result<(Found, Vec<u8>), Error> {
        let read = |name: &str| {
            let path = self.folder.join(name);
            let found = file::read(&path).map_err(Error::io("read", &path))?;
            found.ok_or(Error::Gone { path })
        };
        let original = Found { owner: touched.owner, ..read(&touched.original)? };
        Ok((original, read(&touched.changed)?.bytes))
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("journal.json")
    }
}
