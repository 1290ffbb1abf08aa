//! What a long-running command logs, and how.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError};

/// What is logged.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// What is logged: a level, or directives such as info,sluice=debug.
    #[arg(long, value_name = "FILTER", env = "SLUICE_LOG", default_value = "info")]
    pub log: String,

    /// The form of the log.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: Format,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    #[default]
    Json,
    /// Lines for people.
    Text,
}

impl Format {
    /// Its name as the option takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
        }
    }
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is to be logged cannot be understood.
    #[error("cannot understand --log")]
    Filter(#[from] ParseError),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Filter(_) => "LogFilter",
        }
    }
}

impl Args {
    /// Logs to standard error from now on.
    ///
    /// # Errors
    /// Where the filter cannot be understood.
    pub fn start(&self) -> Result<(), Error> {
        let filter = EnvFilter::try_new(&self.log)?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            Format::Json => log.json().flatten_event(true).init(),
            Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        }
        Ok(())
    }
}
