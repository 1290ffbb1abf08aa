//! Kubernetes versions, as far as a decision needs them: the minor of major 1.
//!
//! Every behaviour that Sluice judges changed at a minor release, and the skew policy counts in
//! minors, so patch levels and vendor suffixes (`+k3s1`, `-eks-fb459a0`) are read and dropped.

use std::{fmt, str::FromStr};

/// A minor version of Kubernetes 1, such as `1.20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minor(pub u16);

/// Why a version could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a version such as `v1.20.2` or `1.24`.
    #[error("{0:?} is not a Kubernetes version such as v1.20.2 or 1.24")]
    Malformed(String),
    /// A version of something else than Kubernetes 1.
    #[error("{0:?} is not a version of Kubernetes 1")]
    OtherMajor(String),
}

impl Error {
    /// A short, stable name for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "VersionMalformed",
            Self::OtherMajor(_) => "VersionOtherMajor",
        }
    }
}

impl Minor {
    /// How many minors `self` is behind `newer`; negative when it is ahead.
    pub fn behind(self, newer: Minor) -> i32 {
        i32::from(newer.0) - i32::from(self.0)
    }

    /// The next minor.
    pub fn next(self) -> Minor {
        Minor(self.0.saturating_add(1))
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl FromStr for Minor {
    type Err = Error;

    /// Reads `1.24`, `v1.24`, `1.20.2`, `v1.20.2+k3s1` and `v1.21.5-eks-fb459a0`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed(text.to_owned());
        let bare = text.strip_prefix('v').unwrap_or(text);
        // Two numbers are no semantic version, but they are how people name a minor.
        let full = if bare.bytes().filter(|b| *b == b'.').count() == 1 {
            semver::Version::parse(&format!("{bare}.0"))
        } else {
            semver::Version::parse(bare)
        };
        let version = full.map_err(|_| malformed())?;
        if version.major != 1 {
            return Err(Error::OtherMajor(text.to_owned()));
        }
        u16::try_from(version.minor).map(Minor).map_err(|_| malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_clusters_report_them() {
        for (text, minor) in [
            ("v1.20.2", 20),
            ("1.20.2", 20),
            ("1.24", 24),
            ("v1.24", 24),
            ("v1.20.2+k3s1", 20),
            ("v1.21.5-eks-fb459a0", 21),
            ("v1.22.17-rke2r1-build20230101", 22),
            ("v1.18.20-gke.6000", 18),
            ("v1.35.0-alpha.1+abc", 35),
        ] {
            assert_eq!(text.parse(), Ok(Minor(minor)), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "VersionMalformed"),
            ("latest", "VersionMalformed"),
            ("1", "VersionMalformed"),
            ("1.x", "VersionMalformed"),
            ("1.20.2.1", "VersionMalformed"),
            ("1.99999999", "VersionMalformed"),
            ("2.0", "VersionOtherMajor"),
            ("v0.9.1", "VersionOtherMajor"),
        ] {
            let refused = text.parse::<Minor>().map_err(|e| e.reason());
            assert_eq!(refused, Err(reason), "{text}");
        }
    }

    #[test]
    fn skew_is_signed() {
        assert_eq!(Minor(18).behind(Minor(20)), 2);
        assert_eq!(Minor(20).behind(Minor(18)), -2);
    }
}
