//! A client of the child, `examples/server.rs`: it can keep its connection, and
//! closes it before the server does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::wait_until::PATIENCE;

pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    #[track_caller]
    pub(crate) fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self(BufReader::new(stream))
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, target: &str) -> &mut Self {
        let request = format!("GET {target} HTTP/1.1\r\nHost: child\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("the request is taken");
        self
    }

    /// The body of the next answer, whole.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let status = self.line();
        assert!(status.starts_with("HTTP/1.1 200 "), "{status:?}");
        let mut length = None;
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = Some(value.parse().expect("a length"));
            }
        }
        match length {
            Some(length) => self.exactly(length),
            None => self.chunks(),
        }
    }

    #[track_caller]
    pub(crate) fn get(&mut self, target: &str) -> String {
        self.ask(target).answer()
    }

    /// Reads whatever still comes, to whatever end.
    pub(crate) fn swallow(mut self) {
        let _ = std::io::copy(&mut self.0, &mut std::io::sink());
    }

    /// Says that no request follows.
    #[track_caller]
    pub(crate) fn half_close(&mut self) {
        self.0.get_ref().shutdown(Shutdown::Write).expect("it is open");
    }

    #[track_caller]
    fn chunks(&mut self) -> String {
        let mut body = String::new();
        loop {
            let length = usize::from_str_radix(&self.line(), 16).expect("a length");
            body += &self.exactly(length);
            assert_eq!(self.line(), "");
            if length == 0 {
                return body;
            }
        }
    }

    #[track_caller]
    fn exactly(&mut self, length: usize) -> String {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("the whole body");
        String::from_utf8(body).expect("text")
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        assert!(line.ends_with("\r\n"), "cut off: {line:?}");
        line.trim_end().to_owned()
    }
}
