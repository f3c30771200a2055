//! What the engine and its step process say to each other, over a socket pair that is the
//! step process's standard input. Environment values may be secret, so nothing of a step is
//! ever on a command line, in an environment or in a file that others can read.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest message, bytes: a step's arguments and environment. The kernel takes at most
/// 2 MiB of those in one program start.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Descriptors that go with a step: its root and its mounts. The kernel's limit is 253.
pub(super) const DESCRIPTORS_MAX: usize = 250;

/// Engine to step process, once.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run a step; with the root's descriptor and one for each bind.
    Run(Box<Job>),
    /// Make a user namespace and wait.
    Hold,
    /// Give a process in a new user namespace its user's subordinate ids.
    Map { pid: u32, uid: u32, gid: u32 },
}

/// A step, as the step process is told of it.
///
/// Not to be printed: it holds secrets.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub hostname: String,
    pub network: bool,
    /// With every capability and nothing hidden.
    pub insecure: bool,
    /// In a user namespace of its own, see [`Report::Unshared`].
    pub userns: bool,
    /// Under docker's filter of system calls.
    pub seccomp: bool,
    /// Whether programs may run with other rights than those of who starts them.
    pub new_privileges: bool,
    /// The runtime that makes the sandbox instead of this program itself.
    pub runtime: Option<String>,
    /// What runs the programs, when this machine cannot by itself.
    pub emulator: Option<super::Emulator>,
    /// No device can be opened but those of `/dev`, and none be made there: for machines
    /// where no cgroup says which devices are allowed.
    pub lock_devices: bool,
    pub mounts: Vec<JobMount>,
    /// Generated files: where they go and what they say.
    pub files: Vec<(String, String)>,
}

/// A mount; binds take the descriptors after the root's, in order.
#[derive(Serialize, Deserialize)]
pub(crate) enum JobMount {
    Bind {
        target: String,
        writable: bool,
    },
    Tmpfs {
        target: String,
        bytes_max: Option<u64>,
    },
    /// A file on the step process's own file system in memory, owned as the step sees it.
    Secret {
        target: String,
        value: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Step process to engine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// It is in a new user namespace, and waits for ids and [`MAPPED`].
    Unshared,
    /// A process got its ids, this many.
    Mapped(u64),
    /// The step's first process, as the engine sees it; it waits for [`GO`].
    Created(i32),
    /// It cannot be run.
    Failed(String),
    Exited(i32),
    Signaled(i32),
}

/// Engine to step process: the user namespace has its ids.
pub(super) const MAPPED: u8 = b'm';
/// Engine to step process: start the program.
pub(super) const GO: u8 = b'g';
/// Engine to step process: kill it. So does the end of the stream.
pub(super) const KILL: u8 = b'k';

/// Send a message, with descriptors.
pub(crate) fn send(socket: &UnixStream, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the step's arguments and environment are too long"));
    }
    let head = (body.len() as u32).to_le_bytes();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many mounts"));
    }
    let mut sent = sendmsg(socket, &[IoSlice::new(&head)], &mut ancillary, SendFlags::NOSIGNAL)?;
    while sent < head.len() {
        sent += rustix::net::send(socket, &head[sent..], SendFlags::NOSIGNAL)?;
    }
    (&mut &*socket).write_all(&body)
}

/// Receive a message and its descriptors; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0u8; 4];
    let mut descriptors = Vec::new();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut head)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received == 0 {
        return Ok(None);
    }
    (&mut &*socket).read_exact(&mut head[received..])?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message between engine and step is too long"));
    }
    let mut body = vec![0u8; length];
    (&mut &*socket).read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}
