//! One process per store: a lock file that the kernel lets go of when its holder dies.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::{Error, Result};

/// How long to wait for a server that is just stopping.
const WAIT_SECS_MAX: u64 = 3;

/// Hold `path` locked for as long as the file returned is open, and write our process id
/// into it. `what` is named to whoever comes second.
pub(crate) fn hold(path: &Path, what: &Path) -> Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| Error::io(format!("open {}", path.display()), e))?;
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECS_MAX);
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // The number is a courtesy; without it the message still says enough.
                let _ = file.read_to_string(&mut holder);
                let who = match holder.trim() {
                    "" => "another process".to_owned(),
                    id => format!("process {id}"),
                };
                return Err(Error::Io {
                    what: format!(
                        "{} is in use by {who}: stop it first, or choose another data folder",
                        what.display()
                    ),
                    source: io::ErrorKind::ResourceBusy.into(),
                });
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::io(format!("lock {}", path.display()), e.into())),
        }
    }
    let note = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    note(&mut file).map_err(|e| Error::io(format!("write {}", path.display()), e))?;
    Ok(file)
}
