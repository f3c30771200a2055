//! A network of a step's own.
//!
//! The step's network namespace holds a loopback device and nothing else, and no packet ever
//! leaves it. Inside, every TCP connection and every name query is led to a socket of the
//! engine's ([`netlink`]); the engine, in the host's namespace, asks the [`Policy`] and then
//! makes the connection or asks the host's name servers ([`relay`], [`names`]) and carries the
//! bytes. So nothing is set up on the host that could be left behind or be in the way of its
//! firewall, it works for a server without root as well, and what a step may reach is decided
//! in one place, for addresses as for names. What is neither TCP nor a name query goes nowhere.
//!
//! The life of a [`Link`]: the sandbox stands and waits; a thread enters its namespace, opens
//! the sockets there and is gone; another one attends them until the link is dropped, which
//! ends every connection at once.

mod names;
mod netlink;
mod policy;
mod relay;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub(super) use names::resolv_conf;
#[cfg(feature = "fuzzing")]
pub use names::{NameQuery, read_query};
pub use policy::{Gate, Policy, Rule};

/// The name server that a step is told of; docker's, too, is there.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// A step's own address: of a network that is for examples only (RFC 5737), so that it is
/// nobody's.
const OWN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The address of the first of the server's doors, in the same network.
const GATES: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// Doors there is room for.
const GATES_MAX: usize = 200;
/// Connections of one step at one time.
const CONNECTIONS_MAX: usize = 512;
/// Name queries of one step at one time.
const QUERIES_MAX: usize = 64;
/// Refusals that a step's output tells of.
const NOTES_MAX: usize = 20;
/// Addresses whose names are remembered.
const NAMES_MAX: usize = 4_096;
/// Names remembered for one address.
const NAMES_OF_ONE_MAX: usize = 16;
/// The stack of a thread that carries bytes.
const STACK_BYTES: usize = 256 * 1024;

/// Whether this kernel can give steps networks of their own; if not, why. Takes a few
/// milliseconds.
pub fn probe() -> Result<(), String> {
    let tried = std::thread::spawn(|| {
        #[allow(unsafe_code, reason = "the call is unsafe only for what shares file descriptor tables")]
        // SAFETY: NEWNET leaves the descriptor table alone, and concerns this thread only.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|error| format!("a network namespace cannot be made: {error}"))?;
        sockets().map(drop).map_err(|error| error.to_string())
    });
    tried.join().unwrap_or_else(|_| Err("the attempt failed".to_owned()))
}

/// The network of a running step. Dropping it ends every connection.
pub(super) struct Link {
    /// Closed to end everything.
    stop: Option<OwnedFd>,
    notes: OwnedFd,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The engine's sockets in the step's namespace.
struct Sockets {
    relay: TcpListener,
    names: TcpListener,
    queries: UdpSocket,
}

/// What everyone who works for a link shares.
struct Shared {
    policy: Arc<Policy>,
    resolvers: Vec<SocketAddr>,
    /// Readable (hung up) once the link is dropped.
    stop: OwnedFd,
    notes: OwnedFd,
    told: Mutex<HashSet<String>>,
    /// Addresses that the step got as answers, and what it had asked for.
    names: Mutex<HashMap<IpAddr, Vec<String>>>,
    connections: AtomicUsize,
    pending: AtomicUsize,
}

impl Link {
    /// Give the process `pid`, which is in a network namespace of its own and waits, a
    /// network.
    pub(super) fn attach(pid: Pid, policy: &Arc<Policy>) -> io::Result<Link> {
        let namespace = File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero()))?;
        let inside = std::thread::Builder::new().name("step-net-setup".to_owned()).spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            sockets()
        })?;
        let sockets = inside.join().unwrap_or_else(|_| Err(io::Error::other("the attempt failed")))?;
        let (stop, stopper) = pipe_with(PipeFlags::CLOEXEC)?;
        let (notes, notes_in) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            policy: policy.clone(),
            resolvers: match &policy.name_servers[..] {
                [] => names::resolvers(),
                given => given.to_vec(),
            },
            stop,
            notes: notes_in,
            told: Mutex::default(),
            names: Mutex::default(),
            connections: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
        });
        let thread = spawn("step-net", move || serve(&sockets, &shared))?;
        Ok(Link { stop: Some(stopper), notes, thread: Some(thread) })
    }

    /// Becomes readable when there is something for the step's output to tell.
    pub(super) fn notes(&self) -> BorrowedFd<'_> {
        self.notes.as_fd()
    }

    /// What there is to tell, whole lines.
    pub(super) fn read_notes(&self) -> Vec<u8> {
        let mut buffer = vec![0u8; 16 * 1024];
        let n = rustix::io::read(&self.notes, &mut buffer[..]).unwrap_or(0);
        buffer.truncate(n);
        buffer
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the network of a step failed");
        }
    }
}

/// In the step's namespace: make the network and open the engine's sockets.
fn sockets() -> io::Result<Sockets> {
    let failed = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    netlink::link_up(OWN).map_err(failed("set the step's loopback device up"))?;
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let names = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let names_port = names.local_addr()?.port();
    let queries = UdpSocket::bind((Ipv4Addr::LOCALHOST, names_port))?;
    relay.set_nonblocking(true)?;
    names.set_nonblocking(true)?;
    queries.set_nonblocking(true)?;
    let doors = netlink::Doors { names_port, relay_port: relay.local_addr()?.port(), resolver: RESOLVER, own: OWN };
    netlink::redirect(&doors).map_err(failed("redirect connections (does the kernel have nf_tables with nat?)"))?;
    // As in docker: a step's programs need no privilege to listen on any port.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    Ok(Sockets { relay, names, queries })
}

/// Accept until told to stop.
fn serve(sockets: &Sockets, shared: &Arc<Shared>) {
    let mut packet = vec![0u8; names::MESSAGE_BYTES_MAX];
    loop {
        let mut fds = [
            PollFd::new(&shared.stop, PollFlags::IN),
            PollFd::new(&sockets.relay, PollFlags::IN),
            PollFd::new(&sockets.names, PollFlags::IN),
            PollFd::new(&sockets.queries, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return tracing::error!(%error, "attend a step's network"),
        }
        let [stop, relay, names, queries] = fds.map(|fd| !fd.revents().is_empty());
        if stop {
            return;
        }
        if relay && let Ok((client, _)) = sockets.relay.accept() {
            work(shared, &shared.connections, CONNECTIONS_MAX, client, relay::carry);
        }
        if names && let Ok((client, _)) = sockets.names.accept() {
            work(shared, &shared.pending, QUERIES_MAX, client, names::answer_stream);
        }
        if queries && let Ok((n, from)) = sockets.queries.recv_from(&mut packet) {
            let (query, socket) = (packet[..n].to_vec(), sockets.queries.try_clone());
            work(shared, &shared.pending, QUERIES_MAX, (query, from, socket), |shared, (query, from, socket)| {
                if let (Some(answer), Ok(socket)) = (names::answer(shared, &query, false), socket) {
                    let _ = socket.send_to(&answer, from);
                }
            });
        }
    }
}

/// Have a thread do something, unless too many do already.
fn work<T: Send + 'static>(
    shared: &Arc<Shared>,
    count: &AtomicUsize,
    most: usize,
    thing: T,
    f: impl FnOnce(&Shared, T) + Send + 'static,
) {
    if count.fetch_add(1, Ordering::SeqCst) >= most {
        count.fetch_sub(1, Ordering::SeqCst);
        shared.note("the step has too many connections at one time; one was refused".to_owned());
        return;
    }
    let queries = std::ptr::eq(count, &raw const shared.pending);
    let mine = shared.clone();
    let spawned = spawn("step-net-io", move || {
        f(&mine, thing);
        let count = if queries { &mine.pending } else { &mine.connections };
        count.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        count.fetch_sub(1, Ordering::SeqCst);
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(f)
}

impl Shared {
    /// Tell the step's output, each thing once.
    fn note(&self, text: String) {
        let mut told = self.told.lock();
        if told.len() < NOTES_MAX && told.insert(text.clone()) {
            // A full pipe loses it, which nobody minds.
            let _ = rustix::io::write(&self.notes, format!("[network] {text}\n").as_bytes());
        }
    }

    fn remember(&self, ip: IpAddr, name: &str) {
        let mut names = self.names.lock();
        if names.len() >= NAMES_MAX && !names.contains_key(&ip) {
            names.clear();
        }
        let of_one = names.entry(ip).or_default();
        if of_one.len() < NAMES_OF_ONE_MAX && !of_one.iter().any(|known| known == name) {
            of_one.push(name.to_owned());
        }
    }

    fn names_of(&self, ip: IpAddr) -> Vec<String> {
        self.names.lock().get(&ip).cloned().unwrap_or_default()
    }

    /// Wait until `fd` is ready. False when time is up or the link is gone.
    fn wait(&self, fd: BorrowedFd<'_>, flags: PollFlags, timeout: std::time::Duration) -> bool {
        let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
        loop {
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::from_borrowed_fd(fd, flags)];
            match poll(&mut fds, Some(&timeout)) {
                Err(Errno::INTR) => {}
                Ok(n) if n > 0 => return fds[0].revents().is_empty(),
                _ => return false,
            }
        }
    }
}

/// The address of a gate, by its number.
fn gate_address(index: usize) -> Option<Ipv4Addr> {
    let index = u32::try_from(index).ok().filter(|_| index < GATES_MAX)?;
    Some(Ipv4Addr::from(u32::from(GATES) + index))
}

/// The gate at an address.
fn gate_at(policy: &Policy, ip: IpAddr, port: u16) -> Option<&Gate> {
    policy.gates.iter().enumerate().find_map(|(index, gate)| {
        let here = gate_address(index).map(IpAddr::V4) == Some(ip);
        // All doors of one name are at the address of the first.
        let name = &gate.name;
        here.then(|| policy.gates.iter().find(|gate| gate.name == *name && gate.port == port)).flatten()
    })
}
