//! HTTP: what the kubelet passes, what it follows, and servers that are none.

use super::*;

fn target(port: u16, path: &str) -> HttpTarget {
    HttpTarget { place: local(port), path: path.to_owned(), headers: Vec::new() }
}

fn check(target: &HttpTarget) -> Result<(), String> {
    run(Clients::default().http(target, &Stage::default()))
}

/// Reads a request to the end of its head.
fn head(mut stream: &TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII")
}

/// A server that gives one answer per connection and tells what it was asked.
fn answering(answers: &[&str]) -> (u16, JoinHandle<Vec<String>>) {
    let act = |answer: &str| {
        let answer = answer.to_owned();
        move |mut stream: TcpStream| {
            let head = head(&stream);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            is_left(&stream);
            head
        }
    };
    serve(answers.iter().map(|answer| act(answer)).collect())
}

fn result_of(answer: &str) -> Result<(), String> {
    let (port, server) = answering(&[answer]);
    let result = check(&target(port, "/"));
    server.join().expect("no panic");
    result
}

#[test]
fn it_asks_as_the_kubelet_does() {
    let (port, server) = answering(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]);
    assert_eq!(check(&target(port, "/healthz?full=1")), Ok(()));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        server.join().expect("no panic"),
        [format!(
            "GET /healthz?full=1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
             User-Agent: castoff/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )]
    );
}

#[test]
fn headers_replace_and_empty_ones_take_out() {
    let ok = "HTTP/1.0 204 No Content\r\n\r\n";
    for (given, expected) in [
        (
            vec![
                ("host", "app.example"),
                ("user-agent", "me"),
                ("accept", "text/plain"),
                ("x-a", "1"),
                ("X-A", "2"),
            ],
            "Host: app.example\r\nUser-Agent: me\r\nAccept: text/plain\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n",
        ),
        (
            vec![
                ("Accept", ""),
                ("User-Agent", ""),
                ("Content-Length", "9"),
                ("Connection", "keep-alive"),
                ("Transfer-Encoding", "chunked"),
                ("X-Empty", ""),
            ],
            "Host: 127.0.0.1:PORT\r\nX-Empty: \r\nConnection: close\r\n\r\n",
        ),
    ] {
        let (port, server) = answering(&[ok]);
        let mut target = target(port, "/");
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        target.headers = given.into_iter().map(owned).collect();
        assert_eq!(check(&target), Ok(()));
        let expected = expected.replace("PORT", &port.to_string());
        assert_eq!(server.join().expect("no panic"), [format!("GET / HTTP/1.1\r\n{expected}")]);
    }
}

#[test]
fn from_200_to_399_passes() {
    for (code, result) in [
        (200, Ok(())),
        (204, Ok(())),
        (299, Ok(())),
        (300, Ok(())),
        (301, Ok(())),
        (304, Ok(())),
        (399, Ok(())),
        (400, Err("answered 400")),
        (404, Err("answered 404")),
        (503, Err("answered 503")),
        (999, Err("answered 999")),
        (101, Err("answered 101")),
    ] {
        let answer = format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(result_of(&answer), result.map_err(str::to_owned), "{code}");
    }
}

#[test]
fn interim_answers_are_passed_over() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(result_of(answer), Ok(()));
}

#[test]
fn what_is_no_answer_fails_with_its_reason() {
    let long = format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Many: 1\r\n".repeat(1000));
    for (answer, reason) in [
        ("", "closed the connection without an answer"),
        ("HTTP/1.1 200", "closed the connection without an answer"),
        ("HTTP/1.1 200 OK\r\nX-Half:", "closed the connection without an answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "answered what is not HTTP: invalid HTTP version parsed"),
        (
            "\0\u{1}\u{2}\u{3}garbage\r\n\r\n",
            "answered what is not HTTP: invalid HTTP version parsed",
        ),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "answered what is not HTTP: invalid HTTP status-code parsed"),
        (
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
            "answered what is not HTTP: invalid HTTP header parsed",
        ),
        (&long, "the head of its answer is too long"),
        (&many, "the head of its answer is too long"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "its body breaks off"),
    ] {
        let shown = answer.get(..20.min(answer.len()));
        assert_eq!(result_of(answer), Err(reason.to_owned()), "{shown:?}");
    }
}

#[test]
fn ten_kilobytes_of_a_body_are_enough() {
    let endless = |mut stream: TcpStream| {
        head(&stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    };
    let (port, server) = serve(vec![endless]);
    assert_eq!(check(&target(port, "/")), Ok(()));
    server.join().expect("its client has gone");
}

#[test]
fn a_redirect_to_the_same_host_is_followed() {
    let redirect = |location: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
    };
    let listener = listen();
    let other = port_of(&listener);
    let last = spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let head = head(&stream);
        let _ = stream.write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        head
    });
    let away = redirect(&format!("http://127.0.0.1:{other}/last?q"));
    let (port, server) = answering(&[&redirect("b?x=1"), &redirect("?y"), &away]);
    let mut target = target(port, "/dir/a");
    target.headers =
        vec![("Host".to_owned(), "app".to_owned()), ("X-A".to_owned(), "1".to_owned())];
    assert_eq!(check(&target), Err("answered 500".to_owned()));
    let mut heads = server.join().expect("no panic");
    heads.push(last.join().expect("no panic"));
    let lines = |head: &String| head.lines().take(2).collect::<Vec<_>>().join(", ");
    assert_eq!(
        heads.iter().map(lines).collect::<Vec<_>>(),
        [
            "GET /dir/a HTTP/1.1, Host: app".to_owned(),
            "GET /dir/b?x=1 HTTP/1.1, Host: app".to_owned(),
            "GET /dir/b?y HTTP/1.1, Host: app".to_owned(),
            format!("GET /last?q HTTP/1.1, Host: 127.0.0.1:{other}"),
        ]
    );
    assert!(heads.iter().all(|head| head.contains("X-A: 1\r\n")), "{heads:?}");
}

#[test]
fn a_redirect_that_leads_away_passes() {
    for location in ["http://example.invalid/", "https://127.0.0.1/login", "//example.invalid"] {
        let answer = format!("HTTP/1.1 307 Away\r\nLocation: {location}\r\n\r\n");
        assert_eq!(result_of(&answer), Ok(()), "{location}");
    }
    // Nor is one that leads nowhere a failure, to Go.
    assert_eq!(result_of("HTTP/1.1 308 Where\r\n\r\n"), Ok(()));
    assert_eq!(result_of("HTTP/1.1 308 Where\r\nLocation: \r\n\r\n"), Ok(()));
    let odd = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:port/\r\n\r\n";
    let reason = "redirects to what is no address: http://127.0.0.1:port/";
    assert_eq!(result_of(odd), Err(reason.to_owned()));
}

#[test]
fn redirects_in_a_circle_end() {
    let circle = "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n";
    let (port, server) = answering(&[circle; 10]);
    assert_eq!(check(&target(port, "/")), Err("redirected 10 times".to_owned()));
    assert_eq!(server.join().expect("no panic").len(), 10);
}

#[test]
fn a_check_that_is_cut_off_leaves_no_connection() {
    // What is said before the silence, and what the check waits for then.
    let heads = "HTTP/1.1 200 OK\r\nX-Drip: ";
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    for (said, stage_then) in [
        ("", "while waiting for the answer"),
        (heads, "while waiting for the answer"),
        (interim.as_str(), "while waiting for the answer"),
        ("HTTP/1.1 200 OK\r\n\r\nx", "while reading the answer"),
    ] {
        let said = said.to_owned();
        let act = move |mut stream: TcpStream| {
            // An answer before the question is another error.
            head(&stream);
            let _ = stream.write_all(said.as_bytes());
            is_left(&stream)
        };
        let (port, server) = serve(vec![act]);
        let stage = Stage::default();
        let target = target(port, "/");
        let clients = Clients::default();
        assert_eq!(cut_off(&stage, clients.http(&target, &stage)), stage_then);
        assert_eq!(server.join().expect("no panic"), [true]);
    }
}

#[test]
fn a_flood_does_not_keep_the_timeout_from_coming() {
    let flood = |mut stream: TcpStream| {
        head(&stream);
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        while stream.write_all(interim.as_bytes()).is_ok() {}
    };
    let (port, server) = serve(vec![flood]);
    let stage = Stage::default();
    let target = target(port, "/");
    let clients = Clients::default();
    let then = cut_off(&stage, clients.http(&target, &stage));
    assert_eq!(then, "while waiting for the answer");
    server.join().expect("its client has gone");
}
