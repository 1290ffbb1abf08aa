//! What a canary's pod does: it says who it is to each who connects, and repeats each line that comes
//! on its standard input to whoever is attached.

use std::{
    io::{self, BufRead, Read as _, Write},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::greeting;
use crate::process::{
    server,
    shutdown::{self, Shutdown},
};

/// Connections at a time. Four would do: so many streams are open at once.
const CONNECTIONS: usize = 16;

/// How long a client may take to read a line.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much of a line is repeated at once.
const LINE: u64 = 4 << 10;

/// After an error of `accept`, which mostly means that there are no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a canary cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its port cannot be listened on.
    #[error(transparent)]
    Listen(#[from] server::Error),
    /// Signals cannot be waited for.
    #[error(transparent)]
    Shutdown(#[from] shutdown::Error),
}

impl Error {
    /// A short, stable name.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen(error) => error.reason(),
            Self::Shutdown(error) => error.reason(),
        }
    }
}

/// Answers on a port of every address, in the name of this pod, until it is told to stop.
///
/// # Errors
/// Where it cannot begin.
pub async fn run(pod: &str, port: u16) -> Result<(), Error> {
    let shutdown = Shutdown::on_signals()?;
    let listener = server::bind_everywhere(port).await?;
    // A read of standard input cannot be called off, so this ends with the process.
    std::thread::spawn(|| repeat(io::stdin().lock(), io::stdout()));
    tokio::select! {
        () = shutdown.requested() => {}
        () = answer(listener, pod) => {}
    }
    Ok(())
}

/// Says one line to each who connects, and hangs up.
pub async fn answer(listener: TcpListener, pod: &str) {
    let line: Arc<str> = format!("{}\n", greeting(pod)).into();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    // The semaphore is never closed.
    while let Ok(permit) = permits.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let line = line.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, say(stream, &line)).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Repeats each line until there are no more.
pub(super) fn repeat(mut input: impl BufRead, mut output: impl Write) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.by_ref().take(LINE).read_until(b'\n', &mut line);
        let said = read.and_then(|_| output.write_all(&line).and_then(|()| output.flush()));
        if said.is_err() || line.is_empty() {
            return;
        }
    }
}

async fn say(mut stream: TcpStream, line: &str) -> std::io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.shutdown().await
}
