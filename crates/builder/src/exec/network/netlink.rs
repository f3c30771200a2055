//! The few messages that set up a step's network, and one question about the host's.
//!
//! Source: rtnetlink(7), and linux/netfilter/nf_tables.h of the kernel. Numbers of `nf_tables`
//! are in network byte order, those of routes in the machine's.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with, sockopt,
};

/// How long the kernel may take to answer; it answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The longest answer, bytes.
const ANSWER_BYTES: usize = 32 * 1024;
const HEADER_BYTES: usize = 16;
/// The protocol of routes and devices is number 0.
const ROUTE: Option<rustix::net::Protocol> = None;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_APPEND: u16 = 0x800;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = (NFNL_SUBSYS_NFTABLES << 8) | 3;
const NFT_MSG_NEWRULE: u16 = (NFNL_SUBSYS_NFTABLES << 8) | 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const NFPROTO_INET: u8 = 1;
/// The index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;
const RTN_UNICAST: u8 = 1;
const NESTED: u16 = 0x8000;

/// Where the addresses lie that a step cannot see: every destination but its own.
pub(super) struct Doors {
    /// Where name queries to [`Doors::resolver`], or to anybody, go.
    pub names_port: u16,
    /// Where TCP connections to anybody go.
    pub relay_port: u16,
    /// The name server that the step is told of.
    pub resolver: Ipv4Addr,
    /// The step's own address.
    pub own: Ipv4Addr,
}

/// In the network namespace of this thread: bring the loopback device up, give it an address
/// and a route to everywhere, so that there is a network to speak of.
pub(super) fn link_up(own: Ipv4Addr) -> io::Result<()> {
    let mut out = Messages::default();
    out.message(RTM_NEWLINK, NLM_F_ACK, |b| {
        b.bytes(&[0, 0, 0, 0]);
        b.u32(LOOPBACK);
        b.u32(1);
        b.u32(1);
    });
    out.message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, |b| {
        b.bytes(&[AF_INET, 32, 0, 0]);
        b.u32(LOOPBACK);
        b.attr(2, &own.octets());
        b.attr(1, &own.octets());
    });
    out.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, |b| {
        b.bytes(&[AF_INET, 0, 0, 0, 254, 4, 253, RTN_UNICAST]);
        b.u32(0);
        b.attr(4, &LOOPBACK.to_ne_bytes());
        b.attr(7, &own.octets());
    });
    exchange(&open(ROUTE)?, &out)
}

/// In the network namespace of this thread: lead name queries and TCP connections to the
/// engine's sockets.
pub(super) fn redirect(doors: &Doors) -> io::Result<()> {
    let mut out = Messages::default();
    let nft = |b: &mut Body| b.bytes(&[NFPROTO_INET, 0, 0, 0]);
    let batch = |b: &mut Body| b.bytes(&[0, 0, 0, NFNL_SUBSYS_NFTABLES as u8]);
    out.message(NFNL_MSG_BATCH_BEGIN, 0, batch);
    out.message(NFT_MSG_NEWTABLE, NLM_F_ACK | NLM_F_CREATE, |b| {
        nft(b);
        b.attr(1, b"portolan\0");
    });
    out.message(NFT_MSG_NEWCHAIN, NLM_F_ACK | NLM_F_CREATE, |b| {
        nft(b);
        b.attr(1, b"portolan\0");
        b.attr(3, b"out\0");
        b.nest(4, |b| {
            // Local output, where destinations are translated.
            b.attr(1, &3u32.to_be_bytes());
            b.attr(2, &(-100i32).to_be_bytes());
        });
        b.attr(7, b"nat\0");
    });
    let mut rule = |exprs: &[Expr<'_>]| {
        out.message(NFT_MSG_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND, |b| {
            nft(b);
            b.attr(1, b"portolan\0");
            b.attr(2, b"out\0");
            b.nest(4, |b| {
                for expr in exprs {
                    b.nest(1, |b| expr.write(b));
                    if matches!(expr, Expr::Lead(_)) {
                        b.nest(1, redir);
                    }
                }
            });
        });
    };
    let (udp, tcp) = ([17u8], [6u8]);
    let domain = 53u16.to_be_bytes();
    let (own, resolver) = (doors.own.octets(), doors.resolver.octets());
    rule(&[Expr::Family, Expr::Differs(&[AF_INET]), Expr::Return]);
    // The name server has an address of the loopback device, so it comes first.
    rule(&[
        Expr::To(4),
        Expr::Is(&resolver),
        Expr::Protocol,
        Expr::Is(&udp),
        Expr::Port,
        Expr::Is(&domain),
        Expr::Lead(doors.names_port),
    ]);
    rule(&[
        Expr::To(4),
        Expr::Is(&resolver),
        Expr::Protocol,
        Expr::Is(&tcp),
        Expr::Port,
        Expr::Is(&domain),
        Expr::Lead(doors.names_port),
    ]);
    rule(&[Expr::To(1), Expr::Is(&[127]), Expr::Return]);
    rule(&[Expr::To(4), Expr::Is(&own), Expr::Return]);
    for protocol in [&udp, &tcp] {
        rule(&[Expr::Protocol, Expr::Is(protocol), Expr::Port, Expr::Is(&domain), Expr::Lead(doors.names_port)]);
    }
    rule(&[Expr::Protocol, Expr::Is(&tcp), Expr::Lead(doors.relay_port)]);
    out.message(NFNL_MSG_BATCH_END, 0, batch);
    exchange(&open(Some(NETFILTER))?, &out)
}

/// Whether the host, as this thread sees it, would send a packet to `to` out to another
/// machine: not to itself, to everybody, or nowhere.
pub(super) fn leads_away(to: IpAddr) -> io::Result<bool> {
    let mut out = Messages::default();
    out.message(RTM_GETROUTE, 0, |b| match to {
        IpAddr::V4(ip) => {
            b.bytes(&[AF_INET, 32, 0, 0, 0, 0, 0, 0]);
            b.u32(0);
            b.attr(1, &ip.octets());
        }
        IpAddr::V6(ip) => {
            b.bytes(&[AF_INET6, 128, 0, 0, 0, 0, 0, 0]);
            b.u32(0);
            b.attr(1, &ip.octets());
        }
    });
    let socket = open(ROUTE)?;
    send(&socket, &out.bytes, SendFlags::empty())?;
    let mut buffer = vec![0u8; ANSWER_BYTES];
    let (n, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    let answer = &buffer[..n];
    let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
    match kind {
        Some(RTM_NEWROUTE) => Ok(answer.get(HEADER_BYTES + 7) == Some(&RTN_UNICAST)),
        _ => Err(refused(answer).unwrap_or(Errno::NETUNREACH).into()),
    }
}

fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_MAX))?;
    Ok(socket)
}

/// Send, and wait until every message that wants an answer has one.
fn exchange(socket: &OwnedFd, out: &Messages) -> io::Result<()> {
    send(socket.as_fd(), &out.bytes, SendFlags::empty())?;
    let mut left = out.answers;
    let mut buffer = vec![0u8; ANSWER_BYTES];
    let mut failed = None;
    while left > 0 && failed.is_none() {
        let (n, _) = recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..n];
        while rest.len() >= HEADER_BYTES {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let length = length.clamp(HEADER_BYTES, rest.len());
            if u16::from_ne_bytes([rest[4], rest[5]]) == NLMSG_ERROR {
                left = left.saturating_sub(1);
                failed = failed.or(refused(&rest[..length]));
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
    failed.map_or(Ok(()), |errno| Err(errno.into()))
}

/// The error in an answer, unless it says that all is well.
fn refused(answer: &[u8]) -> Option<Errno> {
    let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4)?;
    let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
    (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
}

#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    answers: usize,
}

impl Messages {
    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Body)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        let mut out = Body(std::mem::take(&mut self.bytes));
        body(&mut out);
        self.bytes = out.0;
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.answers += usize::from(flags & NLM_F_ACK != 0);
    }
}

struct Body(Vec<u8>);

impl Body {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_ne_bytes());
    }

    fn attr(&mut self, kind: u16, value: &[u8]) {
        self.wrapped(kind, |b| b.bytes(value));
    }

    fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Body)) {
        self.wrapped(kind | NESTED, inner);
    }

    fn wrapped(&mut self, kind: u16, inner: impl FnOnce(&mut Body)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        inner(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Use the port in register 1.
fn redir(b: &mut Body) {
    b.attr(1, b"redir\0");
    b.nest(2, |b| {
        b.attr(1, &1u32.to_be_bytes());
        b.attr(2, &1u32.to_be_bytes());
        // NF_NAT_RANGE_PROTO_SPECIFIED
        b.attr(3, &2u32.to_be_bytes());
    });
}

/// One expression of a rule. Everything goes through register 1.
enum Expr<'a> {
    /// Load the family of the packet.
    Family,
    /// Load its protocol.
    Protocol,
    /// Load that many bytes of its destination address.
    To(u32),
    /// Load its destination port.
    Port,
    /// Go on if what was loaded is this.
    Is(&'a [u8]),
    /// Go on if it is not.
    Differs(&'a [u8]),
    /// Leave the packet alone.
    Return,
    /// Send it to this port of this machine instead.
    Lead(u16),
}

impl Expr<'_> {
    fn write(&self, b: &mut Body) {
        let register = 1u32.to_be_bytes();
        let meta = |b: &mut Body, key: u32| {
            b.attr(1, b"meta\0");
            b.nest(2, |b| {
                b.attr(1, &register);
                b.attr(2, &key.to_be_bytes());
            });
        };
        let payload = |b: &mut Body, base: u32, offset: u32, length: u32| {
            b.attr(1, b"payload\0");
            b.nest(2, |b| {
                b.attr(1, &register);
                b.attr(2, &base.to_be_bytes());
                b.attr(3, &offset.to_be_bytes());
                b.attr(4, &length.to_be_bytes());
            });
        };
        let compare = |b: &mut Body, op: u32, value: &[u8]| {
            b.attr(1, b"cmp\0");
            b.nest(2, |b| {
                b.attr(1, &register);
                b.attr(2, &op.to_be_bytes());
                b.nest(3, |b| b.attr(1, value));
            });
        };
        match self {
            Expr::Family => meta(b, 15),
            Expr::Protocol => meta(b, 16),
            Expr::To(length) => payload(b, 1, 16, *length),
            Expr::Port => payload(b, 2, 2, 2),
            Expr::Is(value) => compare(b, 0, value),
            Expr::Differs(value) => compare(b, 1, value),
            Expr::Return => {
                b.attr(1, b"immediate\0");
                b.nest(2, |b| {
                    b.attr(1, &0u32.to_be_bytes());
                    b.nest(2, |b| b.nest(2, |b| b.attr(1, &(-5i32).to_be_bytes())));
                });
            }
            Expr::Lead(port) => {
                b.attr(1, b"immediate\0");
                b.nest(2, |b| {
                    b.attr(1, &register);
                    b.nest(2, |b| b.attr(1, &port.to_be_bytes()));
                });
            }
        }
    }
}
