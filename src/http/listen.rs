//! Opens the listening socket. Whether a failure is an error or a warning is
//! the caller's to say.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Connections that wait to be accepted; one more is only seen a second later,
/// when its client tries again, and by then a probe has failed. The 128 of std
/// were filled within one time slice. The kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// The socket buffers of a connection. Left alone the kernel lets them grow to
/// megabytes, which count as the container's memory (`man 7 tcp`). A request
/// is small; the longest answer, `/metrics`, has 10 KiB and one more for each
/// check.
const RECEIVE_BUFFER_BYTES: usize = 16 * 1024;
const SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Listens on `address`. The IPv6 wildcard takes IPv4 clients as well.
///
/// The socket does not block and is closed on exec. Errors are those of
/// `man 2 bind` and `man 2 socket`.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // The default is the sysctl net.ipv6.bindv6only.
        socket.set_only_v6(false)?;
    }
    // A restarted container finds its predecessor's connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Before listen, so that the window of each connection starts from them.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Listens on that port of every address: on `[::]`, which takes IPv4 clients
/// too, or on `0.0.0.0` where there is no IPv6.
pub(crate) fn bind_any(port: u16) -> io::Result<TcpListener> {
    match bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if is_without_ipv6(&error) => bind((Ipv4Addr::UNSPECIFIED, port).into()),
        result => result,
    }
}

/// The kernel has no IPv6 (`ipv6.disable=1`), or no address of it.
fn is_without_ipv6(error: &io::Error) -> bool {
    /// `std::io::ErrorKind` has no name for it; the number is that of every
    /// architecture but MIPS, SPARC, Alpha and PA-RISC.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn the_ipv6_wildcard_takes_ipv4_clients() {
        let listener = bind_any(0).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        for client in ["127.0.0.1", "::1"] {
            TcpStream::connect((client, port)).expect(client);
        }
    }

    #[test]
    fn an_ipv4_address_is_bound_as_it_is() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = listener.local_addr().expect("its address");
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        let error = bind(address).expect_err("two listeners on one port");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_listener_does_not_block() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        assert_eq!(listener.accept().expect_err("nobody came").kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn only_a_missing_ipv6_falls_back_to_ipv4() {
        for (errno, falls_back) in [(97, true), (99, true), (98, false), (13, false)] {
            assert_eq!(is_without_ipv6(&io::Error::from_raw_os_error(errno)), falls_back);
        }
    }
}
