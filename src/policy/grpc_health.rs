//! grpc.health.v1: the bytes of a request and a `Status` in, the bytes of an
//! answer out.
//!
//! The two messages are small enough to be read and written by hand
//! (`grpc/health/v1/health.proto`). It knows nothing of HTTP/2, keeps nothing
//! between two requests, and takes every byte of a request for hostile.

use super::status::Status;

/// The bytes of a message that gRPC puts before it: a flag and a length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The longest message that is read. A service's name has some dozen bytes,
/// and what is longer is no name of ours.
const MESSAGE_BYTES_MAX: usize = 512;

/// The longest body of a request that is worth reading; one byte more can only
/// be refused.
pub(crate) const BODY_BYTES_MAX: usize = PREFIX_BYTES + MESSAGE_BYTES_MAX;

/// The methods of `grpc.health.v1.Health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Check,
    List,
    Watch,
}

impl Method {
    /// The method at `path`; `None` for those of other services and for those
    /// that only a later version has.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path.strip_prefix("/grpc.health.v1.Health/")? {
            "Check" => Some(Self::Check),
            "List" => Some(Self::List),
            "Watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

/// How a call ends, by the numbers of gRPC's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok = 0,
    DeadlineExceeded = 4,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// What a client may ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Also the service without a name, which stands for the whole server.
    Ready,
    Live,
    Startup,
    /// Any other.
    Unknown,
}

impl Service {
    /// Every name that has an answer.
    const NAMES: [(&str, Self); 4] = [
        ("", Self::Ready),
        ("live", Self::Live),
        ("ready", Self::Ready),
        ("startup", Self::Startup),
    ];

    fn named(name: &[u8]) -> Self {
        let known = Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name);
        known.map_or(Self::Unknown, |(_, service)| *service)
    }
}

/// `HealthCheckResponse.ServingStatus`, by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Serving = 1,
    NotServing = 2,
    /// Only `Watch` says so, for such a service may still come.
    ServiceUnknown = 3,
}

impl State {
    pub(crate) fn of(service: Service, status: &Status) -> Self {
        let is_serving = match service {
            Service::Ready => status.is_ready(),
            Service::Live => status.is_live(),
            Service::Startup => status.was_ready,
            Service::Unknown => return Self::ServiceUnknown,
        };
        if is_serving { Self::Serving } else { Self::NotServing }
    }

    /// The message `HealthCheckResponse`, as it is sent.
    pub(crate) fn response(self) -> Vec<u8> {
        framed(&self.message())
    }

    fn message(self) -> [u8; 2] {
        // Field 1, a number.
        [0x08, self as u8]
    }
}

/// The answer to `Check`.
pub(crate) fn check(body: &[u8], status: &Status) -> Result<Vec<u8>, Code> {
    match service(body)? {
        Service::Unknown => Err(Code::NotFound),
        service => Ok(State::of(service, status).response()),
    }
}

/// The answer to `List`: every name with its state. The request has no fields.
pub(crate) fn list(body: &[u8], status: &Status) -> Result<Vec<u8>, Code> {
    fields(message(body)?, |_, _| ())?;
    let mut message = Vec::new();
    for (name, service) in Service::NAMES {
        // An entry of the map, field 1: the key, field 1, and the value, field 2.
        let mut entry = Vec::new();
        put(&mut entry, 1, name.as_bytes());
        put(&mut entry, 2, &State::of(service, status).message());
        put(&mut message, 1, &entry);
    }
    Ok(framed(&message))
}

/// Which service the request of `Check` or `Watch` names. `body` is all that
/// the client has sent, or its first `BODY_BYTES_MAX` bytes and one more.
pub(crate) fn service(body: &[u8]) -> Result<Service, Code> {
    let mut name: &[u8] = b"";
    // The last one counts, as with every protobuf.
    fields(message(body)?, |number, value| {
        if number == 1 {
            name = value;
        }
    })?;
    Ok(Service::named(name))
}

/// The only message of a body, out of its frame.
fn message(body: &[u8]) -> Result<&[u8], Code> {
    let (prefix, message) = body.split_first_chunk().ok_or(Code::Internal)?;
    let [flag, length @ ..]: &[u8; PREFIX_BYTES] = prefix;
    let length = u32::from_be_bytes(*length) as usize;
    match flag {
        0 if length > MESSAGE_BYTES_MAX => Err(Code::ResourceExhausted),
        0 if length == message.len() => Ok(message),
        // Compressed, and no encoding was ever offered.
        1 => Err(Code::Unimplemented),
        // Cut short, or followed by another.
        _ => Err(Code::Internal),
    }
}

/// Hands every field that has bytes to `take`, with its number, and passes
/// over the others: they may be those of a later version.
fn fields<'a>(mut message: &'a [u8], mut take: impl FnMut(u64, &'a [u8])) -> Result<(), Code> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (0, _) => return Err(Code::Internal),
            (_, 0) => drop(varint(&mut message)?),
            (_, 1) => drop(bytes(&mut message, 8)?),
            (number, 2) => {
                let length = varint(&mut message)?;
                take(number, bytes(&mut message, length)?);
            }
            (_, 5) => drop(bytes(&mut message, 4)?),
            // Groups, which nobody has written for many years, and numbers
            // that mean nothing.
            _ => return Err(Code::Internal),
        }
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Result<u64, Code> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().ok_or(Code::Internal)?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Code::Internal)
}

fn bytes<'a>(message: &mut &'a [u8], length: u64) -> Result<&'a [u8], Code> {
    let length = usize::try_from(length).map_err(|_| Code::Internal)?;
    let (bytes, rest) = message.split_at_checked(length).ok_or(Code::Internal)?;
    *message = rest;
    Ok(bytes)
}

/// Adds a field with bytes, of which there must be less than 128.
fn put(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    message.extend([number << 3 | 2, value.len() as u8]);
    message.extend(value);
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u32;
    [&[0], &length.to_be_bytes()[..], message].concat()
}

#[cfg(test)]
mod tests {
    use super::super::health::serving;
    use super::*;
    use proptest::prelude::*;

    fn asking(name: &str) -> Vec<u8> {
        let mut message = Vec::new();
        if !name.is_empty() {
            put(&mut message, 1, name.as_bytes());
        }
        framed(&message)
    }

    fn drained() -> Status {
        Status { takes_traffic: false, ..serving() }
    }

    const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];
    const NOT_SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, 2];

    #[test]
    fn each_service_follows_its_level() {
        let starting = Status { takes_traffic: false, was_ready: false, ..serving() };
        for (name, [at_start, at_work, at_stop]) in [
            ("", [NOT_SERVING, SERVING, NOT_SERVING]),
            ("ready", [NOT_SERVING, SERVING, NOT_SERVING]),
            ("live", [SERVING, SERVING, SERVING]),
            ("startup", [NOT_SERVING, SERVING, SERVING]),
        ] {
            let request = asking(name);
            assert_eq!(check(&request, &starting).unwrap(), at_start, "{name}");
            assert_eq!(check(&request, &serving()).unwrap(), at_work, "{name}");
            assert_eq!(check(&request, &drained()).unwrap(), at_stop, "{name}");
        }
    }

    #[test]
    fn other_services_are_not_found_but_may_be_watched() {
        for name in ["castoff", "Ready", "ready ", "liveness", "\0"] {
            assert_eq!(check(&asking(name), &serving()), Err(Code::NotFound), "{name}");
            assert_eq!(service(&asking(name)), Ok(Service::Unknown), "{name}");
        }
        let unknown = State::of(Service::Unknown, &serving());
        assert_eq!(unknown.response(), [0, 0, 0, 0, 2, 8, 3]);
    }

    #[test]
    fn a_list_has_every_name() {
        let expected = [
            &[0, 0, 0, 0, 48][..],
            b"\x0a\x06\x0a\x00\x12\x02\x08\x02",
            b"\x0a\x0a\x0a\x04live\x12\x02\x08\x01",
            b"\x0a\x0b\x0a\x05ready\x12\x02\x08\x02",
            b"\x0a\x0d\x0a\x07startup\x12\x02\x08\x01",
        ];
        let expected = expected.concat();
        assert_eq!(usize::from(expected[4]), expected.len() - PREFIX_BYTES);
        assert_eq!(list(&framed(b""), &drained()).unwrap(), expected);
        assert_eq!(list(&framed(b"\x0a"), &drained()), Err(Code::Internal));
    }

    #[test]
    fn only_the_methods_of_the_service_are_known() {
        assert_eq!(Method::at("/grpc.health.v1.Health/Check"), Some(Method::Check));
        assert_eq!(Method::at("/grpc.health.v1.Health/Watch"), Some(Method::Watch));
        assert_eq!(Method::at("/grpc.health.v1.Health/List"), Some(Method::List));
        for path in [
            "/grpc.health.v1.Health/",
            "/grpc.health.v1.Health/check",
            "/grpc.health.v1.Health/Check/",
            "/grpc.health.v2.Health/Check",
            "/readyz",
            "*",
            "",
        ] {
            assert_eq!(Method::at(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_malformed_says_how() {
        let long = framed(&[0; MESSAGE_BYTES_MAX + 1]);
        for (body, code) in [
            (&b""[..], Code::Internal),
            (b"\0\0\0\0", Code::Internal),
            (b"\0\0\0\0\x01", Code::Internal),
            (b"\0\0\0\0\0\0", Code::Internal),
            (b"\x01\0\0\0\0", Code::Unimplemented),
            (b"\x02\0\0\0\0", Code::Internal),
            (b"\0\xff\xff\xff\xff", Code::ResourceExhausted),
            (&long, Code::ResourceExhausted),
            // A name that is longer than the message.
            (b"\0\0\0\0\x03\x0a\x05r", Code::Internal),
            (b"\0\0\0\0\x0b\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Code::Internal),
            // A number without an end.
            (b"\0\0\0\0\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Code::Internal),
            // Field 0, and a group.
            (b"\0\0\0\0\x02\x02\0", Code::Internal),
            (b"\0\0\0\0\x01\x0b", Code::Internal),
        ] {
            assert_eq!(check(body, &serving()), Err(code), "{body:?}");
        }
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let strange = b"\x10\x96\x01\x19abcdefgh\x1a\x03new\x25abcd\x0a\x04live\x08\x07";
        assert_eq!(service(&framed(strange)), Ok(Service::Live));
        assert_eq!(service(&framed(b"\x0a\x04live\x0a\x05ready")), Ok(Service::Ready));
    }

    proptest! {
        #[test]
        fn no_body_is_too_strange(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = check(&body, &serving());
            let _ = list(&body, &serving());
        }

        #[test]
        fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = check(&framed(&message), &serving());
        }

        #[test]
        fn a_name_is_found_among_any_other_fields(
            before in proptest::collection::vec((2_u8..16, "[a-z]{0,20}"), 0..5),
            name in "(live|ready|startup|[a-z]{1,9})",
            after in proptest::collection::vec((2_u8..16, "[a-z]{0,20}"), 0..5),
        ) {
            let mut message = Vec::new();
            before.iter().for_each(|(number, text)| put(&mut message, *number, text.as_bytes()));
            put(&mut message, 1, name.as_bytes());
            after.iter().for_each(|(number, text)| put(&mut message, *number, text.as_bytes()));
            prop_assert_eq!(service(&framed(&message)), Ok(Service::named(name.as_bytes())));
        }
    }
}
