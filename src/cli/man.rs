//! `sluice man`: the manual pages.

use std::{fs, io, path::PathBuf};

use clap_mangen::Man;

use super::{
    Exit, command,
    output::{self, print},
};

/// Print the manual page, or write one for each command.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write one page for each command into this directory instead of printing that of the program.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  # Read it
  sluice man | man -l -

  # Install all
  sluice man --dir /usr/local/share/man/man1

Exit codes:
  0  printed or written
  1  an error";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be printed.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// It cannot be written.
    #[error("cannot write the manual pages into {}", dir.display())]
    Write {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be made.
    #[error("cannot make the manual page")]
    Render(#[source] io::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Output(error) => error.reason(),
            Self::Write { .. } => "Write",
            Self::Render(_) => "Render",
        }
    }
}

/// Prints or writes the pages.
///
/// # Errors
/// Where they cannot be written.
pub fn run(args: &Args) -> Result<Exit, Error> {
    // It would have no page of its own.
    let program = command(false).disable_help_subcommand(true);
    if let Some(dir) = &args.dir {
        let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(program, dir));
        written.map_err(|source| Error::Write { dir: dir.clone(), source })?;
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    Man::new(program).render(&mut page).map_err(Error::Render)?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Ok)
}
