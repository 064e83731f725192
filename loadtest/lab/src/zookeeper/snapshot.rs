//! The file in which a ZooKeeper server keeps its tree, to be changed while the server is down: for states
//! that it takes years to reach.

use std::io;
use std::path::{Path, PathBuf};

/// What ends a part of the file, after the part's checksum: a string of one slash.
const SEAL: &[u8] = b"\0\0\0\x01/";

/// The length of a checksum.
const CHECKSUM: usize = 8;

/// The length of the digest of the tree, which stands between two seals: a transaction, a version and a
/// number.
const DIGEST: usize = 20;

/// Of a node, what stands between its data's length and the number of changes to its children: its access
/// list, the transactions that made and changed it, the times of both, and its version.
const BEFORE_CHILDREN: usize = 5 * 8 + 4;

/// Sets the number of changes to a node's children, from which the next sequential child has its number, in
/// the latest snapshot under the data directory. The node must have no data.
pub(super) fn set_child_counter(data: &Path, node: &str, counter: i32) -> io::Result<()> {
    let path = latest(&data.join("version-2"))?;
    let mut snapshot = std::fs::read(&path)?;
    let mut name = u32::try_from(node.len()).expect("a path is short").to_be_bytes().to_vec();
    name.extend(node.as_bytes());
    // Its data has a length of zero.
    name.extend([0; 4]);
    let found = snapshot.windows(name.len()).position(|part| part == name);
    let found =
        found.ok_or_else(|| io::Error::other(format!("no empty node {node} in {}", path.display())))?;
    let at = found + name.len() + BEFORE_CHILDREN;
    let seals = seals(&snapshot)?;
    snapshot[at..at + 4].copy_from_slice(&counter.to_be_bytes());
    for seal in seals {
        let checksum = u64::from(adler32(&snapshot[..seal]));
        snapshot[seal..seal + CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }
    std::fs::write(path, snapshot)
}

/// The snapshot with the greatest transaction in its name.
fn latest(directory: &Path) -> io::Result<PathBuf> {
    let mut latest = None;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let zxid = name.strip_prefix("snapshot.").and_then(|zxid| u64::from_str_radix(zxid, 16).ok());
        latest = latest.max(zxid.map(|zxid| (zxid, entry.path())));
    }
    latest.map(|(_, path)| path).ok_or_else(|| io::Error::other("there is no snapshot"))
}

/// Where the checksums stand, in order; each is of all that comes before it.
fn seals(snapshot: &[u8]) -> io::Result<Vec<usize>> {
    let last = snapshot.len() - SEAL.len() - CHECKSUM;
    let before = last - DIGEST - SEAL.len() - CHECKSUM;
    let is_seal = |at: usize| {
        let checksum = u64::from(adler32(&snapshot[..at])).to_be_bytes();
        snapshot[at..].starts_with(&[&checksum, SEAL].concat())
    };
    let seals: Vec<_> = [before, last].into_iter().filter(|at| is_seal(*at)).collect();
    match seals.last() == Some(&last) {
        true => Ok(seals),
        false => Err(io::Error::other("the snapshot has another format")),
    }
}

/// The checksum of RFC 1950.
fn adler32(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }
}
