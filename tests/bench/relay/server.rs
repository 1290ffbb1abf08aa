//! A streaming server that knows only what the benchmark asks it for, with one blocking thread a
//! stream and the sockets as they are by default, as a runtime in Go has them.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::role::say;

const ANSWER: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

/// A byte that is nowhere else in the data: a new stream in a saturated connection.
pub const MARK: u8 = 0xff;

/// What a sender writes at once: what Go's io.Copy does.
pub const BLOCK: usize = 32 << 10;

pub fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    say((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into());
    // Streams that are only there; thousands of threads would cost more than all that is measured.
    let mut idle = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let Ok(path) = head(&mut stream) else { continue };
        if stream.write_all(ANSWER).is_err() {
            continue;
        }
        match path.split('/').nth(2) {
            Some("idle") => idle.push(stream),
            // Those that are gone are forgotten.
            Some("forget") => idle.clear(),
            _ => drop(thread::spawn(move || drop(stream_of(stream, &path)))),
        }
    }
}

/// The path of a request, which is read up to its end and no further.
pub fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    text.split(' ').nth(1).map(str::to_owned).ok_or(ErrorKind::InvalidData.into())
}

fn stream_of(mut stream: TcpStream, path: &str) -> std::io::Result<()> {
    let mut words = path.split('/').skip(2);
    match words.next().unwrap_or_default() {
        "source" => {
            let bytes: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let block = vec![0; 128 << 10];
            let mut left = bytes;
            while left > 0 {
                let length = left.min(block.len() as u64);
                stream.write_all(&block[..length as usize])?;
                left -= length;
            }
            stream.shutdown(Shutdown::Write)?;
            stream.read(&mut [0]).map(drop)
        }
        "sink" => {
            let mut block = vec![0; 256 << 10];
            while stream.read(&mut block)? > 0 {}
            stream.write_all(b"!")
        }
        "echo" => {
            let mut byte = [0];
            loop {
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
        }
        "marked-source" => {
            let mut writer = stream.try_clone()?;
            let marked = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| write_marked(&mut writer, &marked));
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) {
                    marked.store(true, Ordering::SeqCst);
                }
            });
            Ok(())
        }
        _ => {
            let mut block = vec![0; 256 << 10];
            loop {
                let length = stream.read(&mut block)?;
                if length == 0 {
                    return Ok(());
                }
                if block[..length].contains(&MARK) {
                    stream.write_all(b"!")?;
                }
            }
        }
    }
}

/// Writes as fast as it can, and a mark once one is asked for.
pub fn write_marked(stream: &mut TcpStream, marked: &AtomicBool) {
    let block = [0; BLOCK];
    loop {
        let bytes = if marked.swap(false, Ordering::SeqCst) { &[MARK][..] } else { &block };
        if stream.write_all(bytes).is_err() {
            return;
        }
    }
}
