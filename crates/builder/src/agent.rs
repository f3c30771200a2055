//! The socket of an ssh agent, as a step sees it.
//!
//! Behind the socket is a port, [`SshAgent`]: keys on the server, or a client far away. The
//! step may list keys and have something signed, and nothing else: it cannot add keys, remove
//! them or lock the agent (draft-miller-ssh-agent, the messages' numbers there). Messages,
//! connections and their number are bounded; everything ends when the step does.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::fsys;
use crate::ports::SshAgent;

/// The longest message, as OpenSSH's own agent has it.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Programs of a step that talk to an agent at once.
const CONNECTIONS_MAX: usize = 64;
/// `SSH_AGENT_FAILURE`
const FAILURE: u8 = 5;
/// `SSH_AGENTC_REQUEST_IDENTITIES`
const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`
const SIGN_REQUEST: u8 = 13;

/// A socket that is listened to. Dropping it ends every connection.
pub(crate) struct Agent {
    socket: PathBuf,
    troubles: Troubles,
    stop: Cancel,
    /// Wakes who listens.
    end: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Why there was no answer, each reason once.
type Troubles = Arc<Mutex<Vec<String>>>;
/// Reasons that are kept.
const TROUBLES_MAX: usize = 8;

/// Connections under way, to be cut at the end.
type Open = Arc<Mutex<Vec<Option<UnixStream>>>>;

impl Agent {
    /// Listen in `folder`, which nobody else uses, for `agent`. The socket gets these
    /// permission bits, owner and group.
    pub(crate) fn start(
        folder: &Path,
        agent: Arc<dyn SshAgent>,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<Agent> {
        // A socket's name may have 107 bytes, and folders can lie deep.
        let dir = fsys::open_root(folder)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/agent", dir.as_raw_fd()))?;
        let socket = folder.join("agent");
        rustix::fs::chown(&socket, fsys::uid(uid), fsys::gid(gid))?;
        rustix::fs::chmod(&socket, Mode::from_raw_mode(mode))?;
        let (end, ended) = UnixStream::pair()?;
        let stop = Cancel::new();
        let troubles = Troubles::default();
        let thread = std::thread::Builder::new().name("ssh-agent".to_owned()).spawn({
            let (stop, troubles) = (stop.clone(), troubles.clone());
            move || listen(&listener, &ended, &agent, &troubles, &stop)
        })?;
        Ok(Agent { socket, troubles, stop, end: Some(end), thread: Some(thread) })
    }

    /// Why programs got no answer so far.
    pub(crate) fn troubles(&self) -> Vec<String> {
        self.troubles.lock().clone()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        self.end = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of an ssh agent's socket panicked");
        }
    }
}

fn listen(listener: &UnixListener, ended: &UnixStream, agent: &Arc<dyn SshAgent>, troubles: &Troubles, stop: &Cancel) {
    let open: Open = Arc::default();
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "listen on an ssh agent's socket");
                    break;
                }
            }
            if !fds[1].revents().is_empty() {
                break;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            if count.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
                continue;
            }
            let Ok(cut) = stream.try_clone() else { continue };
            count.fetch_add(1, Ordering::SeqCst);
            let place = {
                let mut open = open.lock();
                let free = open.iter().position(Option::is_none);
                let place = free.unwrap_or_else(|| {
                    open.push(None);
                    open.len() - 1
                });
                open[place] = Some(cut);
                place
            };
            let (open, count) = (&open, &count);
            scope.spawn(move || {
                // It ends with the program at the other end, whatever that one did.
                let _ = serve(&stream, &**agent, troubles, stop);
                open.lock()[place] = None;
                count.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for stream in open.lock().iter().flatten() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    });
}

/// Answer one program until it goes.
fn serve(mut stream: &UnixStream, agent: &dyn SshAgent, troubles: &Troubles, stop: &Cancel) -> io::Result<()> {
    loop {
        let mut head = [0u8; 4];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head) as usize;
        if length == 0 || length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message to the ssh agent is too long"));
        }
        let mut message = vec![0u8; length];
        stream.read_exact(&mut message)?;
        let answer = match message.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => agent.ask(&message, stop).unwrap_or_else(|error| {
                let (why, mut troubles) = (error.to_string(), troubles.lock());
                if troubles.len() < TROUBLES_MAX && !troubles.contains(&why) && !stop.is_cancelled() {
                    troubles.push(why);
                }
                vec![FAILURE]
            }),
            _ => vec![FAILURE],
        };
        if answer.is_empty() || answer.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer of the ssh agent is too long"));
        }
        stream.write_all(&(answer.len() as u32).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with what it was asked.
    struct Echo;

    impl SshAgent for Echo {
        fn ask(&self, message: &[u8], _: &Cancel) -> io::Result<Vec<u8>> {
            Ok(message.to_vec())
        }
    }

    /// Never answers before it is stopped.
    struct Mute;

    impl SshAgent for Mute {
        fn ask(&self, _: &[u8], stop: &Cancel) -> io::Result<Vec<u8>> {
            let (send, receive) = crossbeam_channel::bounded::<()>(1);
            let _guard = stop.on_cancel(move || drop(send));
            let _ = receive.recv();
            Err(io::Error::other("stopped"))
        }
    }

    fn ask(stream: &mut UnixStream, message: &[u8]) -> io::Result<Vec<u8>> {
        stream.write_all(&(message.len() as u32).to_be_bytes())?;
        stream.write_all(message)?;
        let mut head = [0u8; 4];
        stream.read_exact(&mut head)?;
        let mut answer = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_lists_and_signs_and_does_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let agent = Agent::start(&deep, Arc::new(Echo), 0o640, (7, 8)).unwrap();
        use std::os::unix::fs::MetadataExt;
        let stat = std::fs::metadata(agent.socket()).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.gid()), (0o640, 7, 8));
        let fd = fsys::open_root(&deep).unwrap();
        let connect = || UnixStream::connect(format!("/proc/self/fd/{}/agent", fd.as_raw_fd())).unwrap();
        let mut stream = connect();
        assert_eq!(ask(&mut stream, &[11]).unwrap(), [11]);
        assert_eq!(ask(&mut connect(), &[13, 1, 2]).unwrap(), [13, 1, 2]);
        // Add a key, remove all, lock, add constrained, an extension.
        for kind in [17u8, 19, 22, 25, 27] {
            assert_eq!(ask(&mut stream, &[kind, 1, 2, 3]).unwrap(), [FAILURE]);
        }
        stream.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a message without an end ends the connection");
        drop(agent);
        assert!(
            UnixStream::connect(format!("/proc/self/fd/{}/agent", fd.as_raw_fd())).is_err(),
            "nobody listens any more"
        );
    }

    #[test]
    fn it_ends_while_somebody_waits_for_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::start(dir.path(), Arc::new(Mute), 0o600, (0, 0)).unwrap();
        let mut idle = UnixStream::connect(agent.socket()).unwrap();
        let mut asking = UnixStream::connect(agent.socket()).unwrap();
        asking.write_all(&[0, 0, 0, 1, 11]).unwrap();
        drop(agent);
        assert!(!matches!(idle.read(&mut [0]), Ok(1..)), "it is cut off");
        // The answer is a failure or none at all, but it does not wait.
        let _ = asking.read_to_end(&mut Vec::new());
    }
}
