//! The messages of etcd's JSON interface. Keys and values are base64, and numbers of 64 bits texts; what is
//! zero or empty is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ApiError;

/// A number of 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::lock::etcd) struct Number(pub(in crate::lock::etcd) i64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A key or a value. What is no UTF-8 is none of the lock's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::lock::etcd) struct Text(pub(in crate::lock::etcd) String);

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(self.0.as_bytes(), &BASE64))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = BASE64.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Ok(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

#[derive(Serialize)]
pub(super) struct Authenticate<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

/// What stands for a user and the password.
#[derive(Deserialize)]
pub(super) struct Token {
    pub(super) token: String,
}

#[derive(Serialize)]
pub(super) struct Grant {
    #[serde(rename = "ID")]
    pub(super) lease: Number,
    #[serde(rename = "TTL")]
    pub(super) seconds: u64,
}

#[derive(Serialize)]
pub(super) struct LeaseId {
    #[serde(rename = "ID")]
    pub(super) lease: Number,
}

#[derive(Deserialize)]
pub(super) struct LeaseAnswer {
    pub(super) header: Header,
    /// Zero where there is no such lease.
    #[serde(rename = "TTL", default)]
    pub(super) seconds: Number,
}

/// Which keys: one, or all from it to before another.
#[derive(Debug, Clone, Serialize)]
pub(in crate::lock::etcd) struct Range {
    key: Text,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<Text>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keys_only: bool,
}

impl Range {
    pub(in crate::lock::etcd) fn key(key: &str) -> Self {
        Self { key: key.into(), range_end: None, keys_only: false }
    }

    /// All keys that begin with `prefix`, which ends with a slash.
    pub(in crate::lock::etcd) fn prefix(prefix: &str) -> Self {
        // The character after the slash.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        Self { range_end: Some(Text(end)), ..Self::key(prefix) }
    }

    pub(in crate::lock::etcd) fn without_values(self) -> Self {
        Self { keys_only: true, ..self }
    }
}

/// Some operations if all conditions hold, and others if not.
#[derive(Debug, Serialize)]
pub(in crate::lock::etcd) struct Txn {
    pub(in crate::lock::etcd) compare: Vec<Compare>,
    pub(in crate::lock::etcd) success: Vec<Op>,
    pub(in crate::lock::etcd) failure: Vec<Op>,
}

/// A condition.
#[derive(Debug, Serialize)]
pub(in crate::lock::etcd) struct Compare {
    key: Text,
    target: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
}

impl Compare {
    /// That there is no such key.
    pub(in crate::lock::etcd) fn absent(key: &str) -> Self {
        let create_revision = Some(Number(0));
        Self { key: key.into(), target: "CREATE", result: "EQUAL", create_revision, value: None }
    }

    /// That a key is there and has this value.
    pub(in crate::lock::etcd) fn value(key: &str, value: &str) -> Self {
        let value = Some(value.into());
        Self { key: key.into(), target: "VALUE", result: "EQUAL", create_revision: None, value }
    }
}

/// A part of a transaction.
#[derive(Debug, Serialize)]
pub(in crate::lock::etcd) enum Op {
    #[serde(rename = "request_put")]
    Put {
        key: Text,
        value: Text,
        #[serde(skip_serializing_if = "Option::is_none")]
        lease: Option<Number>,
    },
    #[serde(rename = "request_delete_range")]
    Delete(Range),
    #[serde(rename = "request_range")]
    Range(Range),
}

impl Op {
    /// Writes a key, which ends with the lease.
    pub(in crate::lock::etcd) fn put(key: &str, value: &str, lease: Option<i64>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease: lease.map(Number) }
    }

    /// Deletes a key if it is there.
    pub(in crate::lock::etcd) fn delete(key: &str) -> Self {
        Self::Delete(Range::key(key))
    }
}

/// The number of a leader of the cluster; each has another.
pub(in crate::lock::etcd) type Term = Number;

/// Who answers, what its data have come to, and under which leader.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct Header {
    pub(in crate::lock::etcd) cluster_id: String,
    pub(in crate::lock::etcd) revision: Number,
    #[serde(rename = "raft_term")]
    pub(in crate::lock::etcd) term: Term,
}

/// A key as it was found.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct KeyValue {
    pub(in crate::lock::etcd) key: Text,
    pub(in crate::lock::etcd) value: Text,
    pub(in crate::lock::etcd) create_revision: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct RangeAnswer {
    pub(in crate::lock::etcd) header: Header,
    pub(in crate::lock::etcd) kvs: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct TxnAnswer {
    pub(in crate::lock::etcd) header: Header,
    pub(in crate::lock::etcd) succeeded: bool,
    responses: Vec<OpAnswer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpAnswer {
    response_range: Option<RangeAnswer>,
}

impl TxnAnswer {
    /// The keys that its part number `index` has found.
    pub(in crate::lock::etcd) fn listed(&self, index: usize) -> &[KeyValue] {
        let range = self.responses.get(index).and_then(|response| response.response_range.as_ref());
        range.map_or(&[], |range| &range.kvs)
    }
}

/// What a stream is asked for.
#[derive(Debug, Serialize)]
pub(in crate::lock::etcd) struct Watch {
    create_request: WatchRequest,
}

#[derive(Debug, Serialize)]
struct WatchRequest {
    #[serde(flatten)]
    range: Range,
    start_revision: Number,
    filters: [&'static str; 1],
}

impl Watch {
    /// The deletions in a range, from a revision on.
    pub(in crate::lock::etcd) fn deletions(range: Range, from: i64) -> Self {
        let start_revision = Number(from);
        Self { create_request: WatchRequest { range, start_revision, filters: ["NOPUT"] } }
    }
}

/// An element of a stream.
#[derive(Deserialize)]
pub(super) struct Streamed<T> {
    result: Option<T>,
    error: Option<Refusal>,
}

impl<T> Streamed<T> {
    pub(super) fn result(self) -> Result<T, ApiError> {
        let none = || Refusal { code: 0, message: "neither a result nor an error".into() };
        self.result.ok_or_else(|| self.error.unwrap_or_else(none).into())
    }
}

/// Why a request was refused.
#[derive(Deserialize)]
pub(super) struct Refusal {
    #[serde(default, alias = "grpc_code")]
    pub(super) code: i32,
    pub(super) message: String,
}

/// What has happened to keys.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct WatchAnswer {
    /// The stream is there.
    pub(in crate::lock::etcd) created: bool,
    /// It has come to its end.
    pub(in crate::lock::etcd) canceled: bool,
    /// What was before this revision is not kept any more.
    pub(in crate::lock::etcd) compact_revision: Number,
    pub(in crate::lock::etcd) events: Vec<Event>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::lock::etcd) struct Event {
    pub(in crate::lock::etcd) kv: KeyValue,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_asked_is_written_as_etcd_wants_it() {
        let txn = Txn {
            compare: vec![Compare::value("/s", "x"), Compare::absent("/s/k/1")],
            success: vec![Op::put("/s/k/1", "v", Some(4711)), Op::Range(Range::prefix("/s/k/"))],
            failure: vec![Op::delete("/s"), Op::Range(Range::key("/s").without_values())],
        };
        let expected = json!({
            "compare": [
                {"key": "L3M=", "target": "VALUE", "result": "EQUAL", "value": "eA=="},
                {"key": "L3Mvay8x", "target": "CREATE", "result": "EQUAL", "create_revision": "0"},
            ],
            "success": [
                {"request_put": {"key": "L3Mvay8x", "value": "dg==", "lease": "4711"}},
                {"request_range": {"key": "L3Mvay8=", "range_end": "L3MvazA="}},
            ],
            "failure": [
                {"request_delete_range": {"key": "L3M="}},
                {"request_range": {"key": "L3M=", "keys_only": true}},
            ],
        });
        assert_eq!(serde_json::to_value(&txn).unwrap(), expected);
        let watch = serde_json::to_value(Watch::deletions(Range::prefix("/s/"), 7)).unwrap();
        assert_eq!(watch["create_request"]["start_revision"], "7");
        assert_eq!(watch["create_request"]["filters"], json!(["NOPUT"]));
    }

    #[test]
    fn what_is_answered_is_read_as_etcd_writes_it() {
        let answer = json!({
            "header": {"cluster_id": "324952591200643719", "revision": "3", "raft_term": "2"},
            "succeeded": true,
            "responses": [
                {"response_put": {"header": {"revision": "3"}}},
                {"response_range": {"kvs": [{"key": "L3Mvay8x", "create_revision": "3", "value": "dg=="}]}},
                {"response_range": {"header": {"revision": "3"}}},
            ],
        });
        let answer: TxnAnswer = serde_json::from_value(answer).unwrap();
        assert!(answer.succeeded);
        let Header { cluster_id, revision, term } = &answer.header;
        assert_eq!((&**cluster_id, *revision, *term), ("324952591200643719", Number(3), Number(2)));
        assert_eq!((answer.listed(0).len(), answer.listed(2).len(), answer.listed(9).len()), (0, 0, 0));
        let found = &answer.listed(1)[0];
        assert_eq!((&*found.key.0, &*found.value.0, found.create_revision.0), ("/s/k/1", "v", 3));
        let ended: Streamed<LeaseAnswer> =
            serde_json::from_value(json!({"result": {"header": {}, "ID": "1"}})).unwrap();
        assert_eq!(ended.result().unwrap().seconds, Number(0));
        let error = json!({"error": {"grpc_code": 14, "message": "no leader"}});
        let error = serde_json::from_value::<Streamed<LeaseAnswer>>(error).unwrap().result();
        assert!(error.is_err_and(|error| error.is(14, "no leader")));
    }
}
