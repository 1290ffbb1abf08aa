//! `sluice completion`: what a shell needs to complete the command line.

use clap_complete::Shell;

use super::{
    Exit, command,
    output::{self, print},
};

/// The name of the program, by which a shell finds its completion.
const PROGRAM: &str = "sluice";

/// Print the completion script of a shell.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  # In this shell, until it ends
  source <(sluice completion bash)

  # For every shell to come
  sluice completion bash > /etc/bash_completion.d/sluice
  sluice completion zsh > \"${fpath[1]}/_sluice\"
  sluice completion fish > ~/.config/fish/completions/sluice.fish

Exit codes:
  0  printed
  1  an error";

/// Prints the script.
///
/// # Errors
/// Where it cannot be written.
pub fn run(args: &Args) -> Result<Exit, output::Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(false), PROGRAM, &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
