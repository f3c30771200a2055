//! Carrying a step's connections.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::{Shared, gate_at, netlink};

/// How long the other side may take to answer a connection.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 64 * 1024;

/// One connection of the step's, from its beginning to its end.
pub(super) fn carry(shared: &Shared, client: TcpStream) {
    let Ok(to) = sockopt::ip_original_dst(client.as_fd()) else { return reset(&client) };
    let to = SocketAddr::V4(to);
    let upstream = match open(shared, to) {
        Ok(upstream) => upstream,
        Err(why) => {
            let names = shared.names_of(to.ip());
            let name = names.first().map(|name| format!("{name} at ")).unwrap_or_default();
            shared.note(format!("no connection to {name}{to}: {why}"));
            return reset(&client);
        }
    };
    if client.set_nonblocking(true).is_err() || pump(shared, &client, &upstream).is_err() {
        reset(&client);
        reset(&upstream);
    }
}

/// Connect to where the step meant to, if it may.
fn open(shared: &Shared, to: SocketAddr) -> Result<TcpStream, String> {
    let target = match gate_at(&shared.policy, to.ip(), to.port()) {
        Some(gate) => gate.to,
        None => {
            // No route at all is what connecting will say.
            let away = netlink::leads_away(to.ip()).unwrap_or(false);
            shared.policy.decide(to.ip(), to.port(), &shared.names_of(to.ip()), away)?;
            to
        }
    };
    dial(shared, target).map_err(|error| error.to_string())
}

/// A connection in the host's network.
pub(super) fn dial(shared: &Shared, to: SocketAddr) -> io::Result<TcpStream> {
    let family = match to.ip() {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &to) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            if !shared.wait(socket.as_fd(), PollFlags::OUT, CONNECT_MAX) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    Ok(TcpStream::from(socket))
}

/// Close so that the other side sees that something went wrong.
fn reset(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
    let _ = stream.shutdown(Shutdown::Read);
}

/// One direction.
struct Way {
    buffer: Box<[u8]>,
    at: usize,
    end: usize,
    /// The reading side has ended; `done` once the writing side was told.
    ended: bool,
    done: bool,
    /// The reading side has hung up altogether.
    hung: bool,
}

impl Way {
    fn new() -> Way {
        Way { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), at: 0, end: 0, ended: false, done: false, hung: false }
    }

    fn full(&self) -> bool {
        self.at < self.end
    }

    /// Move what can be moved without waiting.
    fn step(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        if !self.full() && !self.ended {
            match from.read(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => (self.at, self.end) = (0, n),
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.full() {
            match to.write(&self.buffer[self.at..self.end]) {
                Ok(n) => self.at += n,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.full() && !self.done {
            to.shutdown(Shutdown::Write)?;
            self.done = true;
        }
        Ok(())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Both directions until both have ended, or the link is gone.
fn pump(shared: &Shared, a: &TcpStream, b: &TcpStream) -> io::Result<()> {
    let (mut forth, mut back) = (Way::new(), Way::new());
    while !(forth.done && back.done) {
        let wants = |read: &Way, write: &Way| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !read.full() && !read.ended);
            flags.set(PollFlags::OUT, write.full());
            flags
        };
        let (of_a, of_b) = (wants(&forth, &back), wants(&back, &forth));
        // A side that hung up says so again and again; it is asked only when something is
        // wanted of it. What it had sent before is still on its way.
        let sides = [(a, of_a, &forth), (b, of_b, &back)];
        let asked = sides.iter().filter(|(_, wanted, way)| !wanted.is_empty() || !(way.full() || way.hung));
        let asked: Vec<_> = asked.collect();
        let mut fds = vec![PollFd::new(&shared.stop, PollFlags::IN)];
        fds.extend(asked.iter().map(|(side, wanted, _)| PollFd::new(*side, *wanted)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !fds[0].revents().is_empty() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut hung = [false; 2];
        for (fd, (side, wanted, _)) in fds[1..].iter().zip(&asked) {
            if wanted.is_empty() && fd.revents().contains(PollFlags::ERR) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if fd.revents().contains(PollFlags::HUP) {
                hung[usize::from(std::ptr::eq(*side, b))] = true;
            }
        }
        forth.hung |= hung[0];
        back.hung |= hung[1];
        forth.step(a, b)?;
        back.step(b, a)?;
    }
    Ok(())
}
