//! Fencing tokens, and their generations.

/// A number that grows with every exclusive lease of a key: what is written with a smaller one came from a
/// holder that has lost the lock (Kleppmann, "How to do distributed locking", 2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub i64);

/// The upper half of the tokens of a lock service that may lose its count, as the epoch is of ZooKeeper's
/// transaction numbers: what is counted after the loss is in a later generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Its number, from 0.
    pub number: i64,
    /// Whether it has just begun, so that there is no count in it yet.
    pub is_new: bool,
}

/// Who wants to know a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationRequest {
    /// The key that is locked.
    pub key: String,
    /// Where its tokens are counted.
    pub server: String,
    /// The number of the generation whose count has been lost there.
    pub lost: Option<i64>,
}

impl Generation {
    /// Less than all tokens of the generation, and more than those of all earlier ones.
    pub fn base(self) -> i64 {
        self.number << 32
    }

    /// The number of the first generation that is later than a token.
    pub fn after(token: i64) -> i64 {
        (token >> 32) + 1
    }
}
