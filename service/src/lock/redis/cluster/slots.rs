//! Which node has which slot, and which slot has which key.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::sync::{Arc, RwLock};

use deadpool_redis::redis::{FromRedisValue as _, RedisResult, Value};

use crate::lock::redis::protocol::other;

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// Where a node listens: host and port.
pub(super) type Address = (String, u16);

/// The slots of a cluster, as far as they are known.
pub(super) struct Slots(RwLock<Vec<Option<Arc<Address>>>>);

impl Default for Slots {
    fn default() -> Self {
        Self(RwLock::new(vec![None; SLOTS]))
    }
}

impl Slots {
    /// Who has a slot.
    pub(super) fn node_of(&self, slot: u16) -> Option<Arc<Address>> {
        self.0.read().expect("nothing panics while it holds this")[usize::from(slot)].clone()
    }

    /// Notes that a node has a slot.
    pub(super) fn set(&self, slot: u16, node: Address) {
        if let Some(known) =
            self.0.write().expect("nothing panics while it holds this").get_mut(usize::from(slot))
        {
            *known = Some(Arc::new(node));
        }
    }

    /// Takes over the answer to `CLUSTER SLOTS` of a node at `host`.
    pub(super) fn take_over(&self, answer: &Value, host: &str) -> RedisResult<()> {
        let mut slots = vec![None; SLOTS];
        for (first, last, node) in ranges(answer, host)? {
            let node = Arc::new(node);
            let range = slots.iter_mut().take(usize::from(last) + 1).skip(usize::from(first));
            range.for_each(|slot| *slot = Some(Arc::clone(&node)));
        }
        if slots.iter().all(Option::is_none) {
            return Err(other("it knows of no node that has slots"));
        }
        *self.0.write().expect("nothing panics while it holds this") = slots;
        Ok(())
    }

    /// All nodes that have slots.
    pub(super) fn nodes(&self) -> Vec<Arc<Address>> {
        let slots = self.0.read().expect("nothing panics while it holds this");
        let mut nodes: Vec<_> = slots.iter().flatten().cloned().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The first slot that no node has.
    pub(super) fn gap(&self) -> Option<usize> {
        self.0.read().expect("nothing panics while it holds this").iter().position(Option::is_none)
    }
}

/// The first and the last slot of each range, and the primary that has it.
fn ranges(answer: &Value, host: &str) -> RedisResult<Vec<(u16, u16, Address)>> {
    let Value::Array(ranges) = answer else { return Ok(Vec::new()) };
    let range = |range: &Value| {
        let Value::Array(fields) = range else { return Ok(None) };
        let [first, last, Value::Array(primary), ..] = fields.as_slice() else { return Ok(None) };
        let [name, port, ..] = primary.as_slice() else { return Ok(None) };
        // A node that does not know its own name is where it was asked.
        let name =
            Option::<String>::from_redis_value_ref(name)?.filter(|name| !name.is_empty() && name != "?");
        let node = (name.unwrap_or_else(|| host.to_owned()), u16::from_redis_value_ref(port)?);
        Ok(Some((u16::from_redis_value_ref(first)?, u16::from_redis_value_ref(last)?, node)))
    };
    ranges.iter().filter_map(|value| range(value).transpose()).collect()
}

/// The slot of a lock's keys, which have its name in braces.
pub(super) fn slot_of(key: &str) -> u16 {
    // Up to the first closing brace. There is something before it, since no key is empty.
    let tag = key.split('}').next().unwrap_or_default();
    crc16(tag.as_bytes()) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_slot_that_redis_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("hello", 866), ("foo}x", 12_182)] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn the_answer_to_cluster_slots_is_taken_over() {
        let node =
            |name: Value, port| Value::Array(vec![name, Value::Int(port), Value::SimpleString("id".into())]);
        let name = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let range = |first, last, primary| {
            let replica = node(name("replica"), 1);
            Value::Array(vec![Value::Int(first), Value::Int(last), primary, replica])
        };
        let answer = Value::Array(vec![
            range(0, 5_460, node(name("a"), 6379)),
            range(5_461, 10_922, node(Value::Nil, 6380)),
            range(10_923, 16_382, node(name(""), 6381)),
        ]);
        let slots = Slots::default();
        slots.take_over(&answer, "asked").expect("an answer");
        let node_of = |slot| slots.node_of(slot).map(|node| (*node).clone());
        assert_eq!(node_of(0), Some(("a".into(), 6379)));
        assert_eq!(node_of(5_460), Some(("a".into(), 6379)));
        assert_eq!(node_of(5_461), Some(("asked".into(), 6380)));
        assert_eq!(node_of(16_382), Some(("asked".into(), 6381)));
        assert_eq!((node_of(16_383), slots.gap(), slots.nodes().len()), (None, Some(16_383), 3));
        slots.set(16_383, ("b".into(), 1));
        assert_eq!(slots.gap(), None);
    }
}
