//! What is set aside: what was found where something else was expected, for people to look at.

use std::{
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
};

use super::store::Error;
use crate::remediator::file::{self, Found};

/// So many copies of one file are kept.
const KEPT: usize = 4;

/// Keeps a copy in this folder, under a name with its digest: what is found again and again is kept
/// once. Returns its path.
///
/// # Errors
/// Where that is not possible.
pub fn keep(folder: &Path, name: &str, found: &Found) -> Result<PathBuf, Error> {
    let mut digest = DefaultHasher::new();
    digest.write(&found.bytes);
    let prefix = format!("{name}.aside-");
    let path = folder.join(format!("{prefix}{:016x}", digest.finish()));
    let there = fs::symlink_metadata(&path).is_ok();
    if !there {
        prune(folder, &prefix);
        file::replace(&path, &found.bytes, Some(found.owner)).map_err(Error::io("write", &path))?;
    }
    Ok(path)
}

/// Makes room for another copy. One that stays is no reason not to go on.
fn prune(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut there: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    there.sort();
    let over = (there.len() + 1).saturating_sub(KEPT);
    for (_, path) in there.into_iter().take(over) {
        if let Err(error) = file::remove(&path) {
            tracing::warn!(%error, path = %path.display(), "an old copy stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remediator::file::Owner;

    #[test]
    fn each_once_and_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let found = |text: &str| Found {
            bytes: text.into(),
            owner: Owner { mode: 0o600, uid: rustix::process::getuid().as_raw(), gid: 0 },
        };
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let first = keep(folder.path(), "a", &found("1")).unwrap();
        assert_eq!(keep(folder.path(), "a", &found("1")).unwrap(), first);
        assert_eq!((count(), fs::read_to_string(&first).unwrap().as_str()), (1, "1"));
        fs::write(folder.path().join("other"), "").unwrap();
        for number in 2..20 {
            let path = keep(folder.path(), "a", &found(&number.to_string())).unwrap();
            assert!(path.exists());
        }
        assert_eq!(count(), KEPT + 1);
        assert!(!first.exists());
    }
}
