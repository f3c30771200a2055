//! Answering a step's name queries with what the host's name servers say.
//!
//! Messages are passed on as they are; read are only the question, for the policy, and the
//! addresses in the answer, so that rules can speak of names. Source: RFC 1035.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::PollFlags;

use super::{Shared, gate_address, relay};

/// The longest message over UDP that is passed on.
pub(super) const MESSAGE_BYTES_MAX: usize = 4_096;
/// The longest message over TCP, in either direction.
const STREAM_BYTES_MAX: usize = 65_535;
/// How long one name server may take; the next is asked then.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Name servers of the host that are asked, as in resolv.conf(5).
const RESOLVERS_MAX: usize = 3;
/// Queries over one TCP connection.
const STREAM_QUERIES_MAX: usize = 64;
/// Records of one answer that are looked at.
const RECORDS_MAX: u16 = 256;
/// Seconds that an answer about the server's own doors holds.
const GATE_TTL_SECS: u32 = 60;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const NO_SUCH_NAME: u8 = 3;
const SERVER_FAILED: u8 = 2;

/// The host's name servers.
pub(super) fn resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(super::super::RESOLV_CONF).unwrap_or_default();
    let mut all: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().split('%').next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .take(RESOLVERS_MAX)
        .collect();
    if all.is_empty() {
        all.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    all
}

/// What a step's resolv.conf says: the host's, with the engine as the name server.
pub(in crate::exec) fn resolv_conf(host: &str) -> String {
    let mut text = format!("nameserver {}\n", super::RESOLVER);
    for line in host.lines().filter(|line| line.starts_with("search ") || line.starts_with("options ")) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Answer the queries of one TCP connection.
pub(super) fn answer_stream(shared: &Shared, mut client: TcpStream) {
    let ready = |client: &TcpStream| shared.wait(client.as_fd(), PollFlags::IN, ANSWER_MAX);
    // The step may be slow on purpose: it only holds up itself.
    let _ = client.set_read_timeout(Some(ANSWER_MAX));
    for _ in 0..STREAM_QUERIES_MAX {
        if !ready(&client) {
            return;
        }
        let Some(query) = read_message(&mut client) else { return };
        let Some(answer) = answer(shared, &query, true) else { return };
        if write_message(&mut client, &answer).is_err() {
            return;
        }
    }
}

/// The answer to a query; `None` for what is no query.
pub(super) fn answer(shared: &Shared, query: &[u8], stream: bool) -> Option<Vec<u8>> {
    let question = Question::read(query)?;
    if let Some(gate) = shared.policy.gate_of(&question.name) {
        return Some(question.reply(query, 0, (question.kind == TYPE_A).then(|| gate_address(gate)).flatten()));
    }
    if !shared.policy.may_ask(&question.name) {
        shared.note(format!("the name {} is not on the list of what builds may reach", question.name));
        return Some(question.reply(query, NO_SUCH_NAME, None));
    }
    for &to in &shared.resolvers {
        let got = if stream { ask_stream(shared, query, to) } else { ask(shared, query, to) };
        // The same number and the same question: not somebody else's answer.
        let got = got.filter(|got| got.get(..2) == query.get(..2) && Question::read(got).as_ref() == Some(&question));
        if let Some(got) = got {
            for ip in addresses(&got, question.end) {
                shared.remember(ip, &question.name);
            }
            return Some(got);
        }
    }
    Some(question.reply(query, SERVER_FAILED, None))
}

fn ask(shared: &Shared, query: &[u8], to: SocketAddr) -> Option<Vec<u8>> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.send(query).ok()?;
    if !shared.wait(socket.as_fd(), PollFlags::IN, ANSWER_MAX) {
        return None;
    }
    let mut buffer = vec![0u8; MESSAGE_BYTES_MAX];
    let n = socket.recv(&mut buffer).ok()?;
    buffer.truncate(n);
    Some(buffer)
}

fn ask_stream(shared: &Shared, query: &[u8], to: SocketAddr) -> Option<Vec<u8>> {
    let mut stream = relay::dial(shared, to).ok()?;
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    write_message(&mut stream, query).ok()?;
    if !shared.wait(stream.as_fd(), PollFlags::IN, ANSWER_MAX) {
        return None;
    }
    read_message(&mut stream)
}

fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0u8; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0u8; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len().min(STREAM_BYTES_MAX)).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&message[..usize::from(length)]);
    stream.write_all(&bytes)
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    /// In small letters, without the dot at the end.
    name: String,
    kind: u16,
    /// Where in the message it ends.
    end: usize,
}

impl Question {
    fn read(message: &[u8]) -> Option<Question> {
        if message.get(4..6)? != [0, 1] {
            return None;
        }
        let mut name = String::new();
        let mut at = HEADER_BYTES;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            // Longer is no label; a question has nothing to point back to.
            if length > 63 || name.len() + length > 255 {
                return None;
            }
            let label = message.get(at..at + length)?;
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                // A dot inside a label would make it look like another name.
                let good = byte.is_ascii_graphic() && *byte != b'.';
                name.push(if good { byte.to_ascii_lowercase() as char } else { '?' });
            }
            at += length;
        }
        let kind = u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?);
        message.get(at + 2..at + 4)?;
        Some(Question { name, kind, end: at + 4 })
    }

    /// An answer of our own.
    fn reply(&self, query: &[u8], code: u8, address: Option<Ipv4Addr>) -> Vec<u8> {
        let mut out = query.get(..self.end).unwrap_or_default().to_vec();
        if out.len() < HEADER_BYTES {
            return out;
        }
        // An answer, recursion as asked for and to be had; nothing but the question and one
        // address.
        out[2] = 0x80 | (out[2] & 0x01);
        out[3] = 0x80 | code;
        out[6..12].copy_from_slice(&[0, u8::from(address.is_some()), 0, 0, 0, 0]);
        if let Some(address) = address {
            out.extend_from_slice(&[0xc0, HEADER_BYTES as u8, 0, TYPE_A as u8, 0, 1]);
            out.extend_from_slice(&GATE_TTL_SECS.to_be_bytes());
            out.extend_from_slice(&[0, 4]);
            out.extend_from_slice(&address.octets());
        }
        out
    }
}

/// The addresses in an answer whose question ends at `at`.
fn addresses(message: &[u8], mut at: usize) -> Vec<IpAddr> {
    let count = message.get(6..8).map_or(0, |b| u16::from_be_bytes([b[0], b[1]])).min(RECORDS_MAX);
    let mut all = Vec::new();
    for _ in 0..count {
        let Some(after) = skip_name(message, at) else { break };
        let Some(head) = message.get(after..after + 10) else { break };
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let Some(data) = message.get(after + 10..after + 10 + length) else { break };
        match u16::from_be_bytes([head[0], head[1]]) {
            TYPE_A => all.extend(<[u8; 4]>::try_from(data).ok().map(|b| IpAddr::from(b).to_canonical())),
            TYPE_AAAA => all.extend(<[u8; 16]>::try_from(data).ok().map(|b| IpAddr::from(b).to_canonical())),
            _ => {}
        }
        at = after + 10 + length;
    }
    all
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

/// What a fuzzer sees of a message.
#[cfg(feature = "fuzzing")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameQuery {
    /// The name that is asked for.
    pub name: String,
    /// Addresses in the answer.
    pub addresses: usize,
    /// An answer of ours, with one address.
    pub reply: Vec<u8>,
}

/// Read a message as a query and as an answer.
#[cfg(feature = "fuzzing")]
pub fn read_query(message: &[u8]) -> Option<NameQuery> {
    let question = Question::read(message)?;
    let addresses = addresses(message, question.end).len();
    let reply = question.reply(message, 0, Some(Ipv4Addr::LOCALHOST));
    Some(NameQuery { name: question.name, addresses, reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut out = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.extend_from_slice(&[0, 0, 1, 0, 1]);
        out
    }

    #[test]
    fn questions_are_read_and_answered() {
        let message = query("My.Reg.test");
        let question = Question::read(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind, question.end), ("my.reg.test", TYPE_A, message.len()));
        let reply = question.reply(&message, 0, Some(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(Question::read(&reply), Some(Question::read(&message).unwrap()));
        assert_eq!(addresses(&reply, question.end), [IpAddr::from([1, 2, 3, 4])]);
        assert!(addresses(&question.reply(&message, NO_SUCH_NAME, None), question.end).is_empty());
        // A label that looks like a name, and messages cut anywhere.
        let mut sly = query("ab");
        sly.splice(HEADER_BYTES..HEADER_BYTES + 3, *b"\x05a.com");
        assert_eq!(Question::read(&sly).unwrap().name, "a?com");
        for cut in 0..reply.len() {
            let _ = Question::read(&reply[..cut]).map(|q| addresses(&reply[..cut], q.end));
        }
    }

    #[test]
    fn a_steps_resolv_conf_keeps_what_the_host_searches() {
        let host = "# c\nnameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\n";
        assert_eq!(resolv_conf(host), "nameserver 127.0.0.11\nsearch a.test b.test\noptions ndots:2\n");
    }
}
