//! A database's file, by what it is and not by what it is called.
//!
//! SQLite knows a file by its path: beside each path stands a write-ahead log, and every new connection opens
//! what has the path then. So two things go wrong without a word. A file that is reached under two names (a
//! hard link, a container that mounts the one file) has two logs, and each side sells what the other has
//! sold. A file that is deleted or replaced goes on existing for those who have it open: what they confirm is
//! gone with them, and whoever comes later has another shop.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;

/// A database's file that is open, and the files beside it that SQLite makes.
#[derive(Debug)]
pub(crate) struct DatabaseFile {
    parts: Vec<Part>,
    /// For as long as there is a connection, no process removes the log.
    keeper: Mutex<Option<SqliteConnection>>,
}

/// A file, and what was found there when it was opened.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    id: FileId,
}

impl DatabaseFile {
    /// Makes sure that the file is there, and that no process has it open under another name; before anything
    /// else opens it.
    pub(crate) fn claim(options: &SqliteConnectOptions) -> io::Result<()> {
        let path = options.get_filename();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = std::fs::File::options().read(true).append(true).create(true).open(path).map_err(named)?;
        let path = path.canonicalize().map_err(named)?;
        claims::claim(file, &path).map_err(named)
    }

    /// Opens the file, which must have been [claimed](Self::claim) and be in write-ahead mode.
    pub(crate) async fn open(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let mut keeper = options.connect().await?;
        // The log is there from the first read on.
        sqlx::query("select count(*) from sqlite_schema").execute(&mut keeper).await?;
        let path = options.get_filename().canonicalize()?;
        let mut parts = Vec::new();
        for suffix in ["", "-wal", "-shm"] {
            let mut path = path.clone().into_os_string();
            path.push(suffix);
            let path = PathBuf::from(path);
            parts.push(Part { id: FileId::of(&path)?, path });
        }
        Ok(Self { parts, keeper: Mutex::new(Some(keeper)) })
    }

    /// Whether what is open is still what has the name: to be asked before anything is read or written, and
    /// again before it is said that something was.
    pub(crate) fn check(&self) -> io::Result<()> {
        for Part { path, id } in &self.parts {
            let name = path.file_name().unwrap_or_default().display();
            match FileId::of(path) {
                Ok(found) if found == *id => {}
                Ok(_) => {
                    return Err(io::Error::other(format!(
                        "{name} was replaced; what is open is another file, and a restart opens the new one"
                    )));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(io::Error::other(format!("{name} was deleted or moved away")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the connection that keeps the log.
    pub(crate) async fn close(&self) {
        if let Some(keeper) = self.keeper.lock().await.take() {
            // An error leaves the log for whoever opens the file next.
            keeper.close().await.ok();
        }
    }
}

/// What distinguishes two files, whatever they are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    #[cfg(unix)]
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// Only whether it is there.
    #[cfg(not(unix))]
    fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|_| Self { device: 0, inode: 0 })
    }
}

/// Who has a file open under which name: a lock on the file itself, which the kernel keeps for all processes,
/// in all containers, and which ends with its process. Each name has a byte of its own, far beyond the file's
/// end and what SQLite locks; all who use the same name share its lock, and there must be none on any other.
#[cfg(target_os = "linux")]
mod claims {
    use std::collections::HashMap;
    use std::fs::File;
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, OnceLock};

    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    use super::FileId;

    /// Where the bytes of the names begin, and how many there are.
    const BEGIN: i64 = 1 << 60;
    const NAMES: i64 = 1 << 40;

    /// The claims of this process, by what is claimed.
    type Claims = HashMap<FileId, (PathBuf, File)>;

    /// Claims a file that was opened under this name.
    pub(super) fn claim(file: File, path: &Path) -> io::Result<()> {
        // Never given up, nor is a file ever closed: a process that closes any handle of a file loses all of
        // SQLite's locks on it (POSIX; sqlite.org/howtocorrupt, 2.2).
        static CLAIMS: OnceLock<Mutex<Claims>> = OnceLock::new();
        let claims = CLAIMS.get_or_init(Mutex::default);
        let mut claims = claims.lock().expect("nothing panics while it holds this");
        let id = FileId::of(path)?;
        let is_known = match claims.get(&id) {
            Some((known, _)) if known == path => true,
            // Deleted since, and its number given to another.
            Some((known, _)) if FileId::of(known).ok() != Some(id) => false,
            Some((known, _)) => {
                std::mem::forget(file);
                return Err(in_use(&format!("as {}", known.display())));
            }
            None => false,
        };
        if is_known {
            std::mem::forget(file);
            return Ok(());
        }
        let place = BEGIN + place(path)?;
        let held = lock(&file, place);
        let others = held.and_then(|()| {
            Ok(is_locked(&file, BEGIN, place)? || is_locked(&file, place + 1, BEGIN + NAMES)?)
        });
        match others {
            Ok(false) => drop(claims.insert(id, (path.into(), file)).map(std::mem::forget)),
            Ok(true) => {
                unlock(&file, place)?;
                std::mem::forget(file);
                return Err(in_use("by another process"));
            }
            // The file system knows no such locks.
            Err(error) => {
                tracing::debug!(%error, "the file cannot be claimed");
                std::mem::forget(file);
            }
        }
        Ok(())
    }

    fn in_use(how: &str) -> io::Error {
        io::Error::other(format!(
            "the file is open under another name already ({how}), which has a write-ahead log of its own: \
             with both, what one sells is unknown to the other. Use one name; in a container, mount the \
             directory, not the file"
        ))
    }

    /// The byte of a name: of the directory it is in, by what that is, and its last part.
    fn place(path: &Path) -> io::Result<i64> {
        let directory = FileId::of(path.parent().unwrap_or(Path::new("/")))?;
        let mut hasher = DefaultHasher::new();
        (directory, path.file_name()).hash(&mut hasher);
        Ok(i64::try_from(hasher.finish() % NAMES.unsigned_abs()).expect("less than the number of names"))
    }

    fn lock(file: &File, place: i64) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, place, place + 1)))?;
        Ok(())
    }

    fn unlock(file: &File, place: i64) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, place, place + 1)))?;
        Ok(())
    }

    /// Whether another process has locked any of the bytes.
    fn is_locked(file: &File, from: i64, to: i64) -> io::Result<bool> {
        if from == to {
            return Ok(false);
        }
        let mut found = range(libc::F_WRLCK, from, to);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
        Ok(i32::from(found.l_type) != libc::F_UNLCK)
    }

    fn range(kind: i32, from: i64, to: i64) -> libc::flock {
        libc::flock {
            l_type: i16::try_from(kind).expect("there are three kinds"),
            l_whence: i16::try_from(libc::SEEK_SET).expect("a small number"),
            l_start: from,
            l_len: to - from,
            l_pid: 0,
        }
    }
}

/// Elsewhere it is not known.
#[cfg(not(target_os = "linux"))]
mod claims {
    pub(super) fn claim(file: std::fs::File, _: &std::path::Path) -> std::io::Result<()> {
        std::mem::forget(file);
        Ok(())
    }
}
