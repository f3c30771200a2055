//! Small files of the data folder: keys, certificates, credentials.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Make a folder that only this user may enter, with its parents; a folder that is there
/// already is closed to others.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Put `bytes` at `path` with exactly `mode`: after a crash there is the old file or the
/// new one, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let new = folder.join(name);
    // What an earlier, interrupted attempt left may have another mode.
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// The whole of a file of at most `bytes_max` bytes; `None` when there is none.
pub(crate) fn read(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

/// The name that a server has by its data folder, for other servers on its database. It is
/// made once; a copy of the folder must not keep it.
pub(crate) fn name_of(data: &Path) -> io::Result<String> {
    let path = data.join("server.id");
    if let Some(name) = read(&path, 64)?
        && let Ok(name) = String::from_utf8(name)
        && let Ok(name) = uuid::Uuid::try_parse(name.trim())
    {
        return Ok(name.to_string());
    }
    let name = uuid::Uuid::new_v4().to_string();
    replace(&path, format!("{name}\n").as_bytes(), 0o600)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_replaced_whole_and_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        private_dir(&data).unwrap();
        assert_eq!(mode(&data), 0o700);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&data).unwrap();
        assert_eq!(mode(&data), 0o700);

        let file = data.join("key");
        fs::write(data.join("key.new"), "left over").unwrap();
        replace(&file, b"one", 0o600).unwrap();
        replace(&file, b"two", 0o600).unwrap();
        assert_eq!(read(&file, 3).unwrap().unwrap(), b"two");
        assert_eq!(mode(&file), 0o600);
        assert!(read(&file, 2).is_err());
        assert_eq!(read(&data.join("none"), 2).unwrap(), None);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }
}
