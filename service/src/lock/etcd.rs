//! The lock in etcd: a key for each attempt, on a lease of its own; the key that was created first has the
//! lock, and each of the others watches the last one that keeps it out. It is the queue of ZooKeeper's
//! recipe (Hunt et al., "ZooKeeper: wait-free coordination", 2010, §2.4), on etcd's leases and revisions.
//!
//! - The lease's number is made from the attempt's owner. So a grant whose reply was lost is known when it is
//!   asked for again, and to revoke the lease is to release whatever the attempt has: the lock, or its place.
//!   What is carried out later than that fails, since its lease is gone.
//! - A key is created, and the queue read, in one transaction: an uncontended cycle is three requests (grant,
//!   create, revoke).
//! - Who looks again extends its lease and reads the queue at the same time. So does who renews, and finds
//!   out whether the key is still there.
//! - The fencing token is the key's creation revision, which grows with everything that the cluster does. A
//!   cluster whose data was lost, or that has come back with older data, would begin anew. So the upper half
//!   of a token is a generation, which is kept with the orders: see [`data`].
//! - The client is a plain one of HTTP: etcd has a JSON interface beside gRPC.

mod api;
mod data;
mod queue;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::api::{Access, Api, ApiError, Compare, Op, REQUEST, Range, Term, Txn};
use self::data::{Data, KnownData};
use self::queue::{Queue, Turn};
use self::watch::Watches;
use super::leased::{Attempt, Backend, BackendError, Claim, LeasedLock, Step, Wakeups};
use super::{ConnectError, Generation, Holder, LockError, LockState, TokenGenerations};
use crate::config::{EtcdSection, LeaseTime};
use crate::telemetry::LockMetrics;

/// What etcd is called in errors.
const NAME: &str = "etcd";

/// How many leases are looked after in one request; a transaction has 128 parts at most.
const RENEWED_AT_ONCE: usize = 100;

/// How many attempts are under way at the same time.
const ATTEMPTS: usize = 32;

/// How long an attempt that fails with the connection, or for want of a leader, is made again; and of a
/// lease, which is reckoned from before its beginning, how much at the most.
const HEALS: Duration = Duration::from_secs(1);
const HEALS_IN_LEASE: u32 = 4;

/// How long to wait before it is made again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often one attempt begins anew because the server has other data than before.
const DATA_LOST: usize = 3;

/// Of a lease, how long a waiter waits for an announcement at the most before it looks again, and by that
/// keeps its place.
const LOOKS: u32 = 3;

/// The longest pause between two looks while announcements do not come.
const UNANNOUNCED: Duration = Duration::from_millis(100);

/// Connects to etcd. Fails where the server cannot be reached.
pub(super) async fn connect(
    config: &EtcdSection,
    holder: &str,
    generations: Arc<dyn TokenGenerations>,
    metrics: &LockMetrics,
) -> Result<LeasedLock, ConnectError> {
    let (authorities, access) = (config.authorities()?, Arc::new(Access::of(config)?));
    let unavailable = |error: EtcdError| {
        let why = match &error {
            EtcdError::Api(error) => access.explained(error),
            error => error.to_string(),
        };
        let reason = format!("{} (lock.etcd.url): {why}", authorities.join(", "));
        LockError::Unavailable { dependency: NAME, reason }
    };
    let backend = EtcdBackend::connect(config, &access, generations, metrics.clone()).await;
    let backend = backend.map_err(unavailable)?;
    let lease = LeaseTime::For(backend.lease);
    Ok(LeasedLock::new(Arc::new(backend), lease, true, holder, metrics))
}

struct EtcdBackend {
    /// For the lock.
    api: Api,
    /// So that those who wait for their turn to ask can be abandoned without having asked.
    attempts: Semaphore,
    /// For the renewal of leases, so that it never waits behind the lock.
    renewals: Api,
    /// For everything else.
    aside: Arc<Api>,
    /// What the locks' keys begin with.
    prefix: String,
    /// What the server grants.
    lease: Duration,
    data: KnownData,
    generations: Arc<dyn TokenGenerations>,
    watches: Arc<Watches>,
    watching: JoinHandle<()>,
    metrics: LockMetrics,
}

/// Why etcd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum EtcdError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("its leader has changed")]
    LeaderChanged,
    #[error("where the generations of fencing tokens are kept: {0}")]
    Generations(String),
    #[error("it loses its data over and over")]
    DataLost,
}

impl EtcdError {
    /// Whether the same may succeed soon.
    fn may_heal(&self) -> bool {
        match self {
            Self::Api(error) => error.may_heal(),
            Self::LeaderChanged => true,
            Self::Generations(_) | Self::DataLost => false,
        }
    }
}

impl EtcdBackend {
    async fn connect(
        config: &EtcdSection,
        access: &Arc<Access>,
        generations: Arc<dyn TokenGenerations>,
        metrics: LockMetrics,
    ) -> Result<Self, EtcdError> {
        let seconds = config.lease.as_secs() + u64::from(config.lease.subsec_nanos() > 0);
        let (api, aside) = (Api::new(access, REQUEST), Arc::new(Api::new(access, REQUEST)));
        // It may grant more than is asked for.
        let probe = lease_of(Uuid::new_v4());
        let mut granted = api.grant(probe, seconds).await;
        for _next in 1..access.servers() {
            if granted.is_err() {
                granted = api.grant(probe, seconds).await;
            }
        }
        let granted = granted?.unwrap_or(seconds);
        api.revoke(probe).await?;
        let watches = Arc::new(Watches::new(&config.prefix, metrics.watch_notifications.clone()));
        let watching = Arc::clone(&watches).follow(Arc::clone(&aside), metrics.round_trips.clone());
        let lease = Duration::from_secs(granted);
        let backend = Self {
            api,
            attempts: Semaphore::new(ATTEMPTS),
            // So that there is time for another server.
            renewals: Api::new(access, REQUEST.min(lease / 2)),
            aside,
            prefix: config.prefix.clone(),
            lease,
            data: KnownData::default(),
            generations,
            watches,
            watching: tokio::spawn(watching),
            metrics,
        };
        backend.data().await?;
        Ok(backend)
    }

    /// What the keys of a lock begin with.
    fn directory(&self, key: &str) -> String {
        format!("{}/{key}/", self.prefix)
    }

    /// The key of a claim.
    fn place(&self, claim: &Claim) -> String {
        format!("{}{}", self.directory(&claim.key), queue::name_of(lease_of(claim.owner)))
    }

    /// Which data the server has; asks it where that is not known.
    async fn data(&self) -> Result<Arc<Data>, EtcdError> {
        if let Some(data) = self.data.known() {
            return Ok(data);
        }
        let mark = Uuid::new_v4().to_string();
        let find_or_mark = Txn {
            compare: vec![Compare::absent(&self.prefix)],
            success: vec![Op::put(&self.prefix, &mark, None)],
            failure: vec![Op::Range(Range::key(&self.prefix))],
        };
        self.metrics.round_trips.inc();
        let marked = self.api.txn(&find_or_mark).await?;
        let found = marked.listed(0).first().map(|mark| mark.value.0.clone());
        Ok(self.data.learnt(&marked.header, found.unwrap_or(mark)))
    }

    /// The generation in which the tokens of `key` are counted in `data`.
    async fn generation(&self, key: &Arc<str>, data: &Data) -> Result<Generation, EtcdError> {
        if let Some(generation) = data.generation(key) {
            return Ok(generation);
        }
        let generation = self.generations.generation(key, &data.name(), None).await;
        let generation = generation.map_err(EtcdError::Generations)?;
        data.counts_in(key, generation);
        Ok(generation)
    }

    /// Grants the lease, or extends the one that an earlier attempt was granted, the reply to which was lost.
    async fn begin_lease(&self, lease: i64) -> Result<Option<Term>, EtcdError> {
        self.metrics.round_trips.inc();
        if self.api.grant(lease, self.lease.as_secs()).await?.is_some() {
            return Ok(None);
        }
        self.metrics.round_trips.inc();
        Ok(self.api.keep_alive(&[lease]).await?[0])
    }

    /// The lock, or a place in its queue: creates the claim's key where it is not there yet.
    async fn create(&self, claim: &Claim) -> Result<Attempt, EtcdError> {
        for _ in 0..DATA_LOST {
            if let Some(attempt) = self.create_in_known_data(claim).await? {
                return Ok(attempt);
            }
        }
        Err(EtcdError::DataLost)
    }

    /// `None` where the server has other data than was known.
    async fn create_in_known_data(&self, claim: &Claim) -> Result<Option<Attempt>, EtcdError> {
        let data = self.data().await?;
        let generation = self.generation(&claim.key, &data).await?;
        let lease = lease_of(claim.owner);
        let extended = self.begin_lease(lease).await?;
        let (directory, place) = (self.directory(&claim.key), self.place(claim));
        let value = queue::value_of(claim.mode, generation, &claim.holder);
        let queue = || Op::Range(Range::prefix(&directory));
        let create = Txn {
            compare: vec![Compare::value(&self.prefix, &data.mark), Compare::absent(&place)],
            success: vec![Op::put(&place, &value, Some(lease)), queue()],
            failure: vec![Op::Range(Range::key(&self.prefix)), queue()],
        };
        let asked = self.data.asks();
        self.watches.looks(claim, self.data.revision());
        self.metrics.round_trips.inc();
        let created = match self.api.txn(&create).await {
            // It ended meanwhile, or with the data.
            Err(error) if error.is_no_lease() => return Ok(None),
            created => created?,
        };
        is_kept(extended, extended.is_some(), created.header.term)?;
        let is_marked =
            created.succeeded || created.listed(0).first().is_some_and(|mark| mark.value.0 == data.mark);
        let is_older = !data.is_of(&created.header) || self.data.is_older(asked, &created.header);
        if is_marked && !is_older {
            self.metrics.listings.inc();
            return Ok(self.outcome(claim, &Queue::of(&directory, created.listed(1))));
        }
        if is_marked {
            self.replace(&data, &place).await?;
        }
        self.data.forget(&data);
        // The server announces nothing of what it has lost.
        self.watches.wake_all();
        Ok(None)
    }

    /// Marks data that are older than what was known as others, also for those who do not notice, and takes
    /// back the key that was created in them.
    async fn replace(&self, data: &Data, place: &str) -> Result<(), EtcdError> {
        tracing::warn!("etcd has lost data, and with it its count of fencing tokens");
        let replace = Txn {
            compare: vec![Compare::value(&self.prefix, &data.mark)],
            success: vec![Op::put(&self.prefix, &Uuid::new_v4().to_string(), None), Op::delete(place)],
            failure: vec![Op::delete(place)],
        };
        self.metrics.round_trips.inc();
        self.api.txn(&replace).await?;
        Ok(())
    }

    /// The lock, or the place in its queue that the claim has, if it still has one.
    async fn look(&self, claim: &Claim) -> Result<Option<Attempt>, EtcdError> {
        let directory = self.directory(&claim.key);
        let (leases, range) = ([lease_of(claim.owner)], Range::prefix(&directory));
        let asked = self.data.asks();
        self.watches.looks(claim, self.data.revision());
        self.metrics.round_trips.inc();
        let (kept, listed) = tokio::join!(self.api.keep_alive(&leases), self.api.range(&range));
        let (kept, listed) = (kept?[0], listed?);
        // Otherwise the place is gone with the lease, or is not what it was.
        let has_place =
            is_kept(kept, true, listed.header.term)? && !self.data.is_older(asked, &listed.header);
        if !has_place {
            return Ok(None);
        }
        self.metrics.listings.inc();
        Ok(self.outcome(claim, &Queue::of(&directory, &listed.kvs)))
    }

    /// What the queue means for a claim; `None` where it does not stand in it.
    fn outcome(&self, claim: &Claim, queue: &Queue) -> Option<Attempt> {
        match queue.turn(lease_of(claim.owner), claim.mode) {
            Turn::Absent => None,
            Turn::Now { token } => {
                self.watches.waits_for(claim, None);
                Some(Attempt::Acquired(token, None))
            }
            Turn::After { predecessor, ahead } => {
                self.watches.waits_for(claim, Some(predecessor));
                Some(Attempt::Waits { ahead })
            }
        }
    }

    async fn try_attempt(&self, claim: &Claim, step: Step) -> Result<Attempt, EtcdError> {
        if step == Step::Again
            && let Some(attempt) = self.look(claim).await?
        {
            return Ok(attempt);
        }
        self.create(claim).await
    }

    /// Extends leases, and sees whether the keys are there that are on them.
    async fn renew_some(&self, claims: &[Arc<Claim>]) -> Result<Vec<Result<bool, EtcdError>>, EtcdError> {
        let leases: Vec<_> = claims.iter().map(|claim| lease_of(claim.owner)).collect();
        let places = claims.iter().map(|claim| Op::Range(Range::key(&self.place(claim)).without_values()));
        let places = Txn { compare: Vec::new(), success: places.collect(), failure: Vec::new() };
        self.metrics.round_trips.inc();
        let (kept, there) = tokio::join!(self.renewals.keep_alive(&leases), self.renewals.txn(&places));
        let (kept, there) = (kept?, there?);
        let is_there = |index: usize| !there.listed(index).is_empty();
        let kept = kept.into_iter().enumerate();
        Ok(kept.map(|(index, kept)| is_kept(kept, is_there(index), there.header.term)).collect())
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    async fn attempt(self: Arc<Self>, claim: Arc<Claim>, step: Step) -> Result<Attempt, BackendError> {
        let _permit = self.attempts.acquire().await.map_err(failed)?;
        if claim.is_abandoned.load(Ordering::Acquire) {
            self.watches.forget(&claim);
            return Err(BackendError::Busy("the one who has asked has gone".into()));
        }
        let give_up = Instant::now() + HEALS.min(self.lease / HEALS_IN_LEASE);
        let mut is_first = true;
        let attempt = loop {
            match self.try_attempt(&claim, step).await {
                // Its reply may be lost: asked again, the same owner finds the same lease and the same key.
                Err(error) if error.may_heal() && (is_first || Instant::now() < give_up) => {
                    is_first = false;
                    sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
                }
                attempt => break attempt,
            }
        };
        if !matches!(attempt, Ok(Attempt::Waits { .. })) {
            self.watches.forget(&claim);
        }
        attempt.map_err(failed)
    }

    async fn renew(&self, claims: &[Arc<Claim>]) -> Vec<Result<bool, BackendError>> {
        let mut renewed = Vec::with_capacity(claims.len());
        for claims in claims.chunks(RENEWED_AT_ONCE) {
            match self.renew_some(claims).await {
                Ok(some) => renewed.extend(some.into_iter().map(|kept| kept.map_err(failed))),
                Err(error) => renewed.extend(vec![Err(failed(error)); claims.len()]),
            }
        }
        renewed
    }

    async fn release(&self, claim: &Arc<Claim>, _: Option<&str>) -> Result<(), BackendError> {
        self.watches.forget(claim);
        self.metrics.round_trips.inc();
        self.api.revoke(lease_of(claim.owner)).await.map_err(failed)
    }

    async fn state(&self, key: &str) -> Result<LockState, BackendError> {
        let directory = self.directory(key);
        let listed = self.aside.range(&Range::prefix(&directory)).await.map_err(failed)?;
        let queue = Queue::of(&directory, &listed.kvs);
        let holders = queue.holders().iter().map(|contender| Holder {
            key: key.into(),
            mode: contender.mode,
            token: Some(contender.token),
            replica: Some(contender.holder.clone()),
            expired: false,
        });
        let waiting = (queue.len() - queue.holders().len()) as u64;
        Ok(LockState { holders: holders.collect(), waiting })
    }

    fn wakeups(&self) -> &Arc<Wakeups> {
        self.watches.wakeups()
    }

    fn pause(&self, _ahead: u32) -> Duration {
        let longest = self.lease / LOOKS;
        // Without announcements, there is nothing but to look.
        let longest = if self.watches.are_heard() { longest } else { longest.min(UNANNOUNCED) };
        longest.mul_f64(rand::random_range(0.5..1.0))
    }

    fn name(&self) -> &'static str {
        NAME
    }

    fn late_write_window(&self) -> Duration {
        // A key is not created after its lease was revoked, unless a late grant comes in between.
        REQUEST
    }

    async fn close(&self) {
        self.watching.abort();
        self.api.close();
        self.renewals.close();
        self.aside.close();
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// The number of an owner's lease: as random as the owner.
fn lease_of(owner: Uuid) -> i64 {
    let (_, low) = owner.as_u64_pair();
    // Zero would let the server choose, and the bits of the variant are not all zero.
    (low & i64::MAX.cast_unsigned()).cast_signed().max(1)
}

/// Whether a claim still has its lease, which was `extended` in this term, and its key, as the cluster
/// answered in another. An error where the two are not the same.
fn is_kept(extended: Option<Term>, is_there: bool, answered: Term) -> Result<bool, EtcdError> {
    match extended {
        Some(term) if is_there && term != answered => Err(EtcdError::LeaderChanged),
        extended => Ok(extended.is_some() && is_there),
    }
}

fn failed(error: impl std::fmt::Display) -> BackendError {
    BackendError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::api::Number;
    use super::*;

    #[test]
    fn every_owner_has_a_lease_of_its_own() {
        let owners = (0..1_000).map(|_| Uuid::new_v4());
        let leases: std::collections::HashSet<_> = owners.map(lease_of).collect();
        assert_eq!(leases.len(), 1_000);
        assert!(leases.iter().all(|lease| *lease > 0));
        assert_eq!((lease_of(Uuid::nil()), lease_of(Uuid::max())), (1, i64::MAX));
    }

    #[test]
    fn a_lease_is_kept_by_the_leader_under_whom_the_cluster_answers() {
        let (old, new) = (Number(2), Number(3));
        assert!(is_kept(Some(new), true, new).is_ok_and(|is_kept| is_kept));
        assert!(matches!(is_kept(Some(old), true, new), Err(EtcdError::LeaderChanged)));
        for (extended, is_there) in [(None, true), (None, false), (Some(old), false), (Some(new), false)] {
            assert!(is_kept(extended, is_there, new).is_ok_and(|is_kept| !is_kept), "it is gone");
        }
    }
}
