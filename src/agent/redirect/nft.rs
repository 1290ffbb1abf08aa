//! The `nft` program, through which the rules reach the kernel.
//!
//! A program rather than a library: those that speak netlink to nf_tables are under the GPL, and
//! crates around `nft` only spell its language in JSON, which nobody reads as easily.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

/// How long a transaction may take. Beside tens of thousands of kube-proxy's rules it takes a while.
const TIMEOUT: Duration = Duration::from_secs(5);

/// So much of what it complains about is kept, in characters.
const SAID_MAX: usize = 300;

/// Why the rules are not as they were to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program cannot be run.
    #[error("cannot run {}: {source}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It has refused what it was told; nothing of it counts.
    #[error("nft refuses the rules: {0}")]
    Refused(String),
    /// The kernel lacks what the rules need.
    #[error(
        "the kernel cannot hold the rules that bring streams to the agent: they need tproxy and the \
         match of sockets of nftables (Linux 4.20; modules nft_tproxy and nft_socket)"
    )]
    Kernel,
    /// It did not end in time.
    #[error("nft has not ended within {TIMEOUT:?}")]
    Timeout,
}

impl Error {
    /// A short, stable name for the report, the log and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Run { .. } => "NftMissing",
            Self::Refused(_) => "RulesRefused",
            Self::Kernel => "KernelTooOld",
            Self::Timeout => "RulesSlow",
        }
    }
}

/// The program.
#[derive(Clone, Debug)]
pub struct Nft(pub PathBuf);

impl Nft {
    /// Carries out a script as one transaction: all of it, or nothing.
    ///
    /// # Errors
    /// Where it cannot be run, or refuses; then nothing has changed.
    pub async fn run(&self, script: &str) -> Result<(), Error> {
        let failed = |source| Error::Run { program: self.0.clone(), source };
        let mut child = Command::new(&self.0)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let work = async {
            if let Some(mut stdin) = child.stdin.take() {
                // One that ends early says why on standard error.
                let _ = stdin.write_all(script.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(TIMEOUT, work).await.map_err(|_| Error::Timeout)?;
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        if is_unknown_to_the_kernel(&said) {
            return Err(Error::Kernel);
        }
        let said: String = said.chars().take(SAID_MAX).collect();
        Err(Error::Refused(if said.is_empty() { output.status.to_string() } else { said }))
    }
}

/// Whether the kernel has refused one of our rules since it does not know the expression. nft shows the
/// rule, and what the kernel said: ENOENT, after it has found no module either
/// (`nft_expr_type_get` in `net/netfilter/nf_tables_api.c`).
fn is_unknown_to_the_kernel(said: &str) -> bool {
    said.contains("No such file or directory")
        && ["tproxy to ", "socket mark "].iter().any(|expression| said.contains(expression))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A shell script in the program's place, and the folder that it lies in.
    ///
    /// Another process writes it. Were it this one, a program that another test starts at that moment would
    /// hold the file open for writing until it has called exec, and the script could not be run meanwhile
    /// (ETXTBSY).
    pub fn script(text: &str) -> (tempfile::TempDir, Nft) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nft");
        let written = std::process::Command::new("sh")
            .args(["-euc", r#"printf '#!/bin/sh\n%s\n' "$1" >"$0"; chmod 755 "$0""#])
            .arg(&path)
            .arg(text)
            .status();
        assert!(written.unwrap().success());
        (folder, Nft(path))
    }

    #[tokio::test]
    async fn what_nft_says_is_told() {
        let (folder, nft) = script(r#"cat >"$0.said"; test "$1 $2" = "-f -""#);
        nft.run("add table ip sluice\n").await.unwrap();
        let said = std::fs::read_to_string(folder.path().join("nft.said")).unwrap();
        assert_eq!(said, "add table ip sluice\n");

        let (_folder, nft) =
            script("echo 'Error: Could not process rule:\n  Operation not permitted' >&2; exit 1");
        let error = nft.run("x").await.unwrap_err();
        assert_eq!(error.reason(), "RulesRefused");
        assert!(
            error.to_string().ends_with("Error: Could not process rule: Operation not permitted"),
            "{error}"
        );

        for (rule, reason) in [
            (
                "tcp flags & (syn | ack) == syn ip daddr . tcp dport @live tproxy to 127.0.0.1:9",
                "KernelTooOld",
            ),
            ("socket mark 0x51 return", "KernelTooOld"),
            ("flush set ip sluice live", "RulesRefused"),
        ] {
            let text = format!(
                "Error: Could not process rule: No such file or directory\n{rule}\n^^^^^^^^"
            );
            let (_folder, nft) = script(&format!("echo '{text}' >&2; exit 1"));
            assert_eq!(nft.run("x").await.unwrap_err().reason(), reason, "{rule}");
        }

        let error = Nft("/nonexistent/nft".into()).run("x").await.unwrap_err();
        assert_eq!(error.reason(), "NftMissing");
    }
}
