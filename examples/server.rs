//! A small HTTP/1.1 server, as plain as a program is that knows nothing of
//! castoff: a thread for each connection, and SIGTERM ends it at once.
//!
//! `server [ADDRESS]` listens there (127.0.0.1:0), `server -` on the socket that
//! is its standard input. It prints `port N`, and answers
//!
//! - `/` at once, `/close` too, and closes the connection;
//! - `/slow?MS` after so many milliseconds;
//! - `/stream?MS&EVERY` for so many milliseconds, a chunk every EVERY.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = match &*address {
        "-" => TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?),
        address => TcpListener::bind(address)?,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "port {}", listener.local_addr()?.port())?;
    out.flush()?;
    drop(out);
    for client in listener.incoming() {
        let client = client?;
        // Thousands of them may be open, and none needs much.
        let thread = thread::Builder::new().stack_size(64 * 1024);
        // A client that goes away is no reason to end.
        thread.spawn(move || serve(client).unwrap_or_default())?;
    }
    Ok(())
}

/// Answers one request after the other until the client closes.
fn serve(client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client.try_clone()?);
    while let Some(target) = read_request(&mut requests)? {
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut numbers = query.split('&').map(|number| number.parse().unwrap_or(0));
        let mut next = || Duration::from_millis(numbers.next().unwrap_or(0));
        match path {
            "/" => answer(&client, "200 OK", "hello\n")?,
            "/slow" => {
                wait(next());
                answer(&client, "200 OK", "that took a while\n")?;
            }
            "/stream" => stream(&client, next(), next())?,
            "/close" => return answer(&client, "200 OK", "goodbye\n"),
            _ => answer(&client, "404 Not Found", "nothing here\n")?,
        }
    }
    Ok(())
}

/// The target of the next request; `None` when the client has closed.
fn read_request(requests: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    requests.read_line(&mut first)?;
    // The head ends with an empty line, and nothing in it matters here.
    let mut line = String::from("a line");
    while !line.trim_end().is_empty() {
        line.clear();
        requests.read_line(&mut line)?;
    }
    Ok(first.split(' ').nth(1).map(str::to_owned))
}

fn answer(mut client: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    client.write_all(text.as_bytes())
}

fn stream(mut client: &TcpStream, length: Duration, every: Duration) -> io::Result<()> {
    let begun = Instant::now();
    client.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    while begun.elapsed() < length {
        client.write_all(b"5\r\ntick\n\r\n")?;
        wait(every.max(Duration::from_millis(1)));
    }
    client.write_all(b"0\r\n\r\n")
}

fn wait(length: Duration) {
    let begun = Instant::now();
    while let Some(left) = length.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
