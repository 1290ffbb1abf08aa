//! The `sluice` program.

use std::process::ExitCode;

use sluice::cli::{self, Exit};

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(exit) => exit.into(),
        Err(error) => {
            anstream::eprintln!("error: {}", chain(&error.into()));
            Exit::Error.into()
        }
    }
}

/// What was attempted, and why it failed, in one line. Some libraries put their cause into their
/// own words already; once is enough.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let refusal = refusal(cause);
        let cause = refusal.map_or_else(|| cause.to_string(), str::to_owned);
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
        // What follows says the same in the shape of the object.
        if refusal.is_some() {
            break;
        }
    }
    text
}

/// An apiserver's refusal in its own sentence, which names the right that is missing.
fn refusal<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a str> {
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(|error| &**error);
    match boxed.or_else(|| error.downcast_ref())? {
        kube::Error::Api(status) if !status.message.is_empty() => Some(&status.message),
        _ => None,
    }
}
