//! Extended attributes of a file: access lists, labels of security modules, and what people put there.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{XattrFlags, fsetxattr, lgetxattr, llistxattr},
    io::Errno,
};

/// Names and values are at most so long (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MOST: usize = 64 * 1024;

/// Gives a new file the attributes of the one whose place it takes.
///
/// # Errors
/// Where it cannot have them. A label of a security module that may not be set is the module's own
/// matter: the folder gave the new file one.
pub fn copy(from: &Path, to: &File) -> io::Result<()> {
    let mut names = vec![0; MOST];
    let length = match llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOENT | Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut value = vec![0; MOST];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = lgetxattr(from, name, &mut value[..])?;
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) if is_a_modules(name) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_a_modules(name: &[u8]) -> bool {
    name.starts_with(b"security.") || name.starts_with(b"trusted.")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{getxattr, setxattr};

    use super::*;
    use crate::remediator::file;

    /// An access list as the kernel has it: version 2, then tag, permissions and id of each entry.
    fn access_list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn an_access_list_and_what_people_put_there_stay() {
        const LIST: &str = "system.posix_acl_access";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        std::fs::write(&path, "old").unwrap();
        // user::rw-, user:7:r--, group::r--, mask::r--, other::---
        let nobody = u32::MAX;
        let list = access_list(&[
            (0x01, 6, nobody),
            (0x02, 4, 7),
            (0x04, 4, nobody),
            (0x10, 4, nobody),
            (0x20, 0, nobody),
        ]);
        setxattr(&path, LIST, &list, XattrFlags::empty()).unwrap();
        setxattr(&path, "user.why", b"because", XattrFlags::empty()).unwrap();
        let owner = file::read(&path).unwrap().unwrap().owner;
        assert_eq!(owner.mode, 0o640);

        file::replace(&path, b"new", Some(owner)).unwrap();
        let mut value = [0; 256];
        let length = getxattr(&path, LIST, &mut value).unwrap();
        assert_eq!(value[..length], list);
        let length = getxattr(&path, "user.why", &mut value).unwrap();
        assert_eq!(&value[..length], b"because");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!((std::fs::read(&path).unwrap().as_slice(), mode & 0o777), (&b"new"[..], 0o640));
    }
}
