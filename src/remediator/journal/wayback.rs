//! The way back of an attempt, in the one form that every version reads.
//!
//! The journal grows with Sluice, and a remediator that was brought back to an older version may
//! not understand it. What has to be known to put the originals back is written down beside it,
//! before anything is touched, and is taken away when the attempt has ended. Whoever changes this
//! form adds fields that may be missing, and changes the meaning of none.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Journal, Restart, Stage, Termination, Touched, is_overdue,
    store::{self, Error, Store},
};
use crate::remediator::file;

/// Its name in the folder of a kind of change.
const FILE: &str = "way-back.json";

/// What has to be known to put the originals back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WayBack {
    /// The change's id.
    pub id: String,
    /// When the attempt began.
    pub began: Timestamp,
    /// When it goes back unless it is confirmed.
    pub deadline: Timestamp,
    /// The files that it touches.
    pub files: Vec<Copies>,
}

/// A file that an attempt changes. Whose it is, its original's copy shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copies {
    /// Its path on the node.
    pub path: String,
    /// The name of the original's copy in the folder.
    pub original: String,
    /// The name of the copy of what is written instead.
    pub changed: String,
}

impl WayBack {
    /// That of an attempt.
    pub fn of(journal: &Journal) -> Self {
        let files = journal.files.iter().map(|touched| Copies {
            path: touched.path.clone(),
            original: touched.original.clone(),
            changed: touched.changed.clone(),
        });
        Self {
            id: journal.id.clone(),
            began: journal.began,
            deadline: journal.deadline,
            files: files.collect(),
        }
    }

    /// Whether the attempt's time is over.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        is_overdue(self.began, self.deadline, now)
    }
}

impl Store {
    /// Writes down the way back of an attempt that is about to begin.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn open_way_back(&self, journal: &Journal) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(&WayBack::of(journal)).map_err(Error::Encode)?;
        store::write(&self.folder().join(FILE), &text)
    }

    /// The way back of the attempt in progress, if there is one.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn way_back(&self) -> Result<Option<WayBack>, Error> {
        let path = self.folder().join(FILE);
        match file::read(&path).map_err(Error::io("read", &path))? {
            None => Ok(None),
            Some(found) => serde_json::from_slice(&found.bytes)
                .map(Some)
                .map_err(|source| Error::Journal { path, source }),
        }
    }

    /// The attempt has ended, or what it has changed stays.
    ///
    /// # Errors
    /// Where that cannot be written down.
    pub fn close_way_back(&self) -> Result<(), Error> {
        store::remove(&self.folder().join(FILE))
    }

    /// Whether one is written down.
    pub fn has_way_back(&self) -> bool {
        std::fs::symlink_metadata(self.folder().join(FILE)).is_ok()
    }

    /// The attempt, as far as its way back tells: it may have been made, and the kubelet may have been
    /// restarted.
    ///
    /// # Errors
    /// Where a copy is gone.
    pub fn recall(&self, way_back: &WayBack) -> Result<Journal, Error> {
        let files = way_back.files.iter().map(|copies| {
            let path = self.folder().join(&copies.original);
            let found = file::read(&path).map_err(Error::io("read", &path))?;
            let owner = found.ok_or(Error::Gone { path })?.owner;
            let Copies { path, original, changed } = copies.clone();
            Ok(Touched { path, original, changed, owner })
        });
        Ok(Journal {
            id: way_back.id.clone(),
            kind: self.kind(),
            began: way_back.began,
            deadline: way_back.deadline,
            files: files.collect::<Result<_, Error>>()?,
            stage: Stage::Applied,
            written: true,
            restart: Some(Restart { at: way_back.began, process: None, heartbeat: None }),
            reason: "Applied".to_owned(),
            message: String::new(),
            since: way_back.began,
            trouble: None,
            earlier: Vec::new(),
        })
    }

    /// Whether an attempt has touched a file, or somebody else has. What cannot be read may have been.
    pub fn is_touched(&self, journal: &Journal) -> bool {
        self.is_untidy(journal)
            || journal.files.iter().any(|touched| {
                let copy = file::read(&self.folder().join(&touched.original)).ok().flatten();
                let is = self.read(&touched.path).ok();
                copy.is_none() || copy.map(|copy| copy.bytes) != is.map(|is| is.bytes)
            })
    }

    /// Whether all files hold what was to be written.
    pub fn is_changed(&self, journal: &Journal) -> bool {
        journal.files.iter().all(|touched| {
            let copy = file::read(&self.folder().join(&touched.changed)).ok().flatten();
            let is = self.read(&touched.path).ok();
            copy.zip(is).is_some_and(|(copy, is)| copy.bytes == is.bytes)
        })
    }
}

/// Why an attempt goes back whose journal says nothing.
pub fn unreadable() -> Termination {
    let message = "The remediator's journal could not be read, as after a return to an older version of \
                   Sluice.";
    Termination::rolled_back("JournalUnreadable", message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remediator::test_support::at;

    /// Not to be changed: a guard of any version reads what a remediator of any other has written.
    #[test]
    fn the_form_stays() {
        let text = r#"{
  "id": "a",
  "began": "2027-01-15T08:00:00Z",
  "deadline": "2027-01-15T08:03:00Z",
  "files": [
    {
      "path": "/etc/kubernetes/manifests/kube-apiserver.yaml",
      "original": "0-kube-apiserver.yaml.original",
      "changed": "0-kube-apiserver.yaml.changed"
    }
  ]
}"#;
        let known = WayBack {
            id: "a".to_owned(),
            began: at(0),
            deadline: at(180),
            files: vec![Copies {
                path: "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned(),
                original: "0-kube-apiserver.yaml.original".to_owned(),
                changed: "0-kube-apiserver.yaml.changed".to_owned(),
            }],
        };
        assert_eq!(serde_json::to_string_pretty(&known).unwrap(), text);
        let later = text.replacen('{', "{\"more\": {\"of\": \"it\"},", 1);
        for text in [text, &later] {
            assert_eq!(serde_json::from_str::<WayBack>(text).unwrap(), known);
        }
        for (second, overdue) in [(-6, true), (0, false), (179, false), (180, true)] {
            assert_eq!(known.is_overdue(at(second)), overdue, "{second}");
        }
    }
}
