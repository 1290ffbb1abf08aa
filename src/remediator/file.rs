//! Files that are there whole, as they were or as they are to be, whatever happens in between.
//!
//! New content goes into a file of the same folder whose name starts with a dot, which the kubelet
//! overlooks among its manifests, and takes the name once it is on disk.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::attributes;
use fault::Takes;

/// Who may do what with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The permission bits.
    pub mode: u32,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whose it is.
    pub owner: Owner,
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// Where it cannot be read, or is a link or something else than a file: replacing that would not
/// be undone by putting its content back.
pub fn read(path: &Path) -> io::Result<Option<Found>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let owner = Owner { mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() };
    Ok(Some(Found { bytes: fs::read(path)?, owner }))
}

/// Gives a file this content and this owner, at once. Its other attributes stay.
///
/// # Errors
/// Where that is not possible; then the file is as it was.
pub fn replace(path: &Path, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let next = beside(path, "next")?;
    let written = write_new(&next, bytes, owner, path).and_then(|()| rename(&next, path));
    if written.is_err() {
        // Whatever is left of it is overlooked, and written over the next time.
        let _ = remove(&next);
    }
    written
}

/// Gives the file a second name, under which it waits to be put back: that takes no room, which a
/// disk that has filled up meanwhile would not have.
///
/// # Errors
/// Where that is not possible.
pub fn spare(path: &Path) -> io::Result<()> {
    remove_spare(path)?;
    fault::point(Takes::Room)?;
    fs::hard_link(path, beside(path, "original")?)?;
    sync_folder(path)
}

/// Takes away the second name, and what a write that was cut short has left.
///
/// # Errors
/// Where that is not possible.
pub fn tidy(path: &Path) -> io::Result<()> {
    remove_spare(path)?;
    remove(&beside(path, "next")?)
}

/// Whether there is something to tidy.
pub fn is_untidy(path: &Path) -> bool {
    ["original", "next"].into_iter().any(|purpose| {
        beside(path, purpose).is_ok_and(|beside| fs::symlink_metadata(beside).is_ok())
    })
}

fn remove_spare(path: &Path) -> io::Result<()> {
    remove(&beside(path, "original")?)
}

/// Puts the original back, at once: the file itself where it waits under its second name, else a
/// new one of the same content.
///
/// # Errors
/// Where that is not possible; then the file is as it was.
pub fn put_back(path: &Path, original: &Found) -> io::Result<()> {
    let spare = beside(path, "original")?;
    match read(&spare) {
        Ok(Some(waiting)) if waiting == *original => rename(&spare, path),
        _ => replace(path, &original.bytes, Some(original.owner)),
    }
}

/// Removes a file that may be gone already.
///
/// # Errors
/// Where it stays.
pub fn remove(path: &Path) -> io::Result<()> {
    fault::point(Takes::Nothing)?;
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_new(path: &Path, bytes: &[u8], owner: Option<Owner>, like: &Path) -> io::Result<()> {
    remove(path)?;
    fault::point(Takes::Room)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    if let Some(Owner { mode, uid, gid }) = owner {
        let is = file.metadata()?;
        if (is.uid(), is.gid()) != (uid, gid) {
            fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    // After the permissions, which an access list has its own word in.
    attributes::copy(like, &file)?;
    file.sync_all()
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::point(Takes::Nothing)?;
    fs::rename(from, to)?;
    fault::point(Takes::Nothing)?;
    sync_folder(to)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// `.sluice-NAME.PURPOSE` in the file's own folder.
fn beside(path: &Path, purpose: &str) -> io::Result<PathBuf> {
    let nameless = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    let mut name = OsString::from(".sluice-");
    name.push(path.file_name().ok_or_else(nameless)?);
    name.push(".");
    name.push(purpose);
    Ok(path.with_file_name(name))
}

/// Where tests let the process die, or the disk be full.
pub mod fault {
    use std::io;

    /// What a step takes of the disk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Takes {
        /// Room, which a full disk does not have.
        Room,
        /// Nothing.
        Nothing,
    }

    /// Stands before each step that reaches the disk.
    ///
    /// # Errors
    /// Only in tests.
    #[cfg(not(test))]
    pub fn point(_takes: Takes) -> io::Result<()> {
        Ok(())
    }

    /// Stands before each step that reaches the disk.
    ///
    /// # Errors
    /// As scripted.
    #[cfg(test)]
    pub fn point(takes: Takes) -> io::Result<()> {
        let (fault, steps) = FAULT.get();
        FAULT.set((fault, steps + 1));
        match fault {
            Fault::Death(after) if steps >= after => Err(io::Error::other("dead")),
            Fault::Full if takes == Takes::Room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// What befalls the steps of this thread.
    #[cfg(test)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fault {
        /// Nothing.
        None,
        /// After so many of them the process is dead.
        Death(usize),
        /// The disk is full.
        Full,
    }

    #[cfg(test)]
    thread_local! {
        static FAULT: std::cell::Cell<(Fault, usize)> = const { std::cell::Cell::new((Fault::None, 0)) };
    }

    /// From now on this befalls them.
    #[cfg(test)]
    pub fn script(fault: Fault) {
        FAULT.set((fault, 0));
    }

    /// Whether the scripted death has come.
    #[cfg(test)]
    pub fn died() -> bool {
        matches!(FAULT.get(), (Fault::Death(after), steps) if steps > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn content_changes_and_the_owner_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        assert_eq!(read(&path).unwrap(), None);
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let original = read(&path).unwrap().unwrap();
        assert_eq!(original.owner.mode, 0o640);

        spare(&path).unwrap();
        replace(&path, b"new", Some(original.owner)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), Found { bytes: b"new".into(), ..original });
        assert_eq!(names(folder.path()), [".sluice-a.yaml.original", "a.yaml"]);

        put_back(&path, &original).unwrap();
        assert_eq!(read(&path).unwrap(), Some(original));
        assert_eq!(names(folder.path()), ["a.yaml"]);
    }

    #[test]
    fn a_full_disk_leaves_the_file_and_still_gives_the_original_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, "old").unwrap();
        let original = read(&path).unwrap().unwrap();
        spare(&path).unwrap();
        fault::script(fault::Fault::Full);
        assert_eq!(replace(&path, b"new", None).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&path).unwrap().as_ref(), Some(&original));
        assert_eq!(names(folder.path()), [".sluice-a.yaml.original", "a.yaml"]);

        let other = folder.path().join("other");
        fs::write(&other, "new").unwrap();
        fs::rename(&other, &path).unwrap();
        put_back(&path, &original).unwrap();
        assert_eq!(read(&path).unwrap().as_ref(), Some(&original));
        fault::script(fault::Fault::None);
    }

    #[test]
    fn a_spare_that_somebody_has_written_to_is_not_the_original() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        fs::write(&path, "old").unwrap();
        let original = read(&path).unwrap().unwrap();
        spare(&path).unwrap();
        assert!(is_untidy(&path));
        replace(&path, b"new", None).unwrap();
        fs::write(folder.path().join(".sluice-a.yaml.original"), "other").unwrap();
        put_back(&path, &original).unwrap();
        assert_eq!(read(&path).unwrap(), Some(original));
        fs::write(folder.path().join(".sluice-a.yaml.next"), "half").unwrap();
        tidy(&path).unwrap();
        tidy(&path).unwrap();
        assert!(!is_untidy(&path));
    }

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no regular file"));
    }
}
