//! Kubernetes versions, as far as a decision needs them: the minor of major 1.
//!
//! Every behaviour that Sluice judges changed at a minor release, and the skew policy counts in
//! minors, so patch levels and vendor suffixes (`+k3s1`, `-eks-fb459a0`) are dropped.

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

    /// Reads `1.24`, `v1.20.2`, `v1.20.2+k3s1`, `v1.13.1-vk-N/A`: the numbers that the text begins
    /// with, as Kubernetes' own `version.ParseGeneric` takes them. What follows them is dropped.
    fn from_str(text: &str) -> Result<Self, Error> {
        read(text).map(|(minor, _)| minor)
    }
}

impl Minor {
    /// What a program of this version counts as.
    ///
    /// What an alpha, a beta or a release candidate of a minor lacks cannot be told from its number,
    /// so it counts as the minor before. A suffix of a vendor (`-eks-fb459a0`) is no pre-release,
    /// and neither is the candidate of a patch, whose minor is out.
    ///
    /// # Errors
    /// Where it is no version of Kubernetes 1.
    pub fn running(text: &str) -> Result<Self, Error> {
        let (minor, rest) = read(text)?;
        let before = Self(minor.0.saturating_sub(1));
        Ok(if is_prerelease(rest) { before } else { minor })
    }
}

/// The minor, and what stands behind it.
fn read(text: &str) -> Result<(Minor, &str), Error> {
    let malformed = || Error::Malformed(text.to_owned());
    let bare = text.trim_start();
    let bare = bare.strip_prefix('v').unwrap_or(bare);
    let (major, rest) = number(bare).ok_or_else(malformed)?;
    let (minor, rest) = rest.strip_prefix('.').and_then(number).ok_or_else(malformed)?;
    if major.len() > 1 && major.starts_with('0') {
        return Err(malformed());
    }
    if major != "1" {
        return Err(Error::OtherMajor(text.to_owned()));
    }
    let minor = minor.parse().map_err(|_| malformed())?;
    Ok((Minor(minor), rest))
}

/// The digits that a text begins with, and what stands behind them.
fn number(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Whether what stands behind a minor makes it a pre-release of that minor.
fn is_prerelease(rest: &str) -> bool {
    // The first release has patch 0; each candidate of a later patch comes after it.
    let (patch, rest) = rest.strip_prefix('.').and_then(number).unwrap_or(("0", rest));
    let Some(rest) = rest.strip_prefix('-').filter(|_| patch.bytes().all(|b| b == b'0')) else {
        return false;
    };
    let rest = rest.to_ascii_lowercase();
    ["alpha", "beta", "rc"].into_iter().any(|stage| {
        let behind = rest.strip_prefix(stage);
        behind.is_some_and(|behind| !behind.starts_with(|c: char| c.is_ascii_alphabetic()))
    })
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

    /// As nodes, image tags and apiservers of public clusters spell them.
    #[test]
    fn what_a_running_program_counts_as() {
        for (text, minor) in [
            // Releases, and the candidates of later patches.
            ("v1.20.0", 20),
            ("v1.20.15", 20),
            ("v1.20.3-rc.0", 20),
            ("v1.6.1-beta.0", 6),
            ("1.20", 20),
            (" v1.20.2", 20),
            ("v1.20.2.1", 20),
            ("v1.8.15-0", 8),
            // Vendors, behind + and - and _, as in image tags.
            ("v1.20.2+k3s1", 20),
            ("v1.20.0+k3s1", 20),
            ("v1.20.0-k3s.1", 20),
            ("v1.20.4+rke2r1", 20),
            ("v1.22.17-rke2r1-build20230101", 22),
            ("v1.21.5-eks-fb459a0", 21),
            ("v1.21.5-eks-1-21-8", 21),
            ("v1.18.20-gke.6000", 18),
            ("v1.20.0-gke.0", 20),
            ("v1.18.8-aliyun.1", 18),
            ("v1.18.4-tke.25", 18),
            ("v1.19.0+d59ce34", 19),
            ("v1.20.0-1+8d8ca4f3fc8f0a", 20),
            ("v1.20.11-34+b1b6ed8cf9ad3c", 20),
            ("v1.20.15-acme-0a1b2c", 20),
            ("v1.20.0-acme.1", 20),
            ("v1.20.0-acme-rc.1", 20),
            ("v1.20.0-rcx.1", 20),
            ("v1.20.0+rke2r1-rc1", 20),
            ("v1.22.5_acme.1", 22),
            ("v1.21.14_acme.2", 21),
            ("v1.20.0_beta.1", 20),
            ("v1.13.1-vk-N/A", 13),
            ("v1.19.10-vk-azure-aci-1.4.1", 19),
            // Pre-releases of a minor: what they lack of it, nobody knows.
            ("v1.20.0-alpha.3", 19),
            ("v1.20.0-beta.1.204+0123456789abcd", 19),
            ("v1.20.0-beta.2", 19),
            ("v1.20.0-rc.0", 19),
            ("v1.20.0-rc1", 19),
            ("v1.20.0-RC.1", 19),
            ("v1.20.0-rc.1-dirty", 19),
            ("v1.20.0-alpha", 19),
            ("v1.20.0-beta.1_acme.1", 19),
            ("1.22-beta", 21),
            ("v1.0.0-alpha.1", 0),
        ] {
            assert_eq!(Minor::running(text), Ok(Minor(minor)), "{text}");
        }
        for text in ["fake", "kwok-v0.4.0", "stable_2", "latest", "", "sha-0123456", "12e5678"] {
            let refused = Minor::running(text).map_err(|error| error.reason());
            assert_eq!(refused, Err("VersionMalformed"), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "VersionMalformed"),
            ("latest", "VersionMalformed"),
            ("1", "VersionMalformed"),
            ("1.x", "VersionMalformed"),
            ("01.20", "VersionMalformed"),
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
