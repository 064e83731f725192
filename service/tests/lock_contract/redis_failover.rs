//! Redis whose primary is replaced: by an operator, behind one address, and by sentinels.

use std::time::Duration;

use lab::{Proxy, Redis, RedisSentinels};
use order_service::lock::{Lease, Lock, LockError, Mode};
use tokio::time::Instant;

use crate::backend::{Backend, KEY, after};

/// How long it may take until the lock is had from the next primary.
const HEALED: Duration = Duration::from_secs(10);

async fn take(lock: &dyn Lock) -> Result<Lease, LockError> {
    lock.acquire(KEY, Mode::Exclusive, after(1_000)).await
}

/// Acquires as soon as it is possible, and returns the token.
pub async fn until_healed(lock: &dyn Lock) -> i64 {
    let give_up = Instant::now() + HEALED;
    loop {
        match take(lock).await {
            Ok(lease) => {
                let token = lease.token().expect("a token").0;
                lease.release().await;
                return token;
            }
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_server_is_left_for_the_one_that_its_address_leads_to() {
    let (first, second) =
        (Redis::start().await.expect("it starts"), Redis::start().await.expect("it starts"));
    let proxy = Proxy::start(&first.address()).await.expect("the proxy starts");
    let url = format!("redis://{}", proxy.address());
    let backend = Backend::of_redis("redis behind a name", &[("lock.redis.url", url.as_str())]).await;
    let lock = backend.participant().await;
    let mut last = until_healed(&*lock).await;
    for (old, new) in [(&first, &second), (&second, &first)] {
        // Its connections stay, and lead to what is a replica now.
        old.demote(new).await.expect("it is demoted");
        let pinged = lock.try_out(after(2_000)).await.expect_err("nothing can be written").to_string();
        assert!(pinged.contains("READONLY"), "{pinged}");
        for _ in 0..2 {
            match take(&*lock).await {
                Err(LockError::Unavailable { reason, .. }) => {
                    assert!(reason.contains("READONLY") && reason.contains("replica"), "{reason}");
                }
                taken => panic!("{taken:?} from a replica"),
            }
        }
        let pinged = lock.try_out(after(2_000)).await.expect_err("nothing can be written").to_string();
        assert!(pinged.contains("READONLY"), "{pinged}");
        let refused = backend.refused(&[]).await;
        assert!(refused.contains("READONLY"), "{refused}");
        new.promote().await.expect("it is promoted");
        proxy.lead_to(&new.address());
        let token = until_healed(&*lock).await;
        assert!(token > last, "{token} after {last}");
        last = token;
        lock.try_out(after(2_000)).await.expect("it answers");
        backend.assert_free(&*lock).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_that_sentinels_name_is_followed() {
    let mut sentinels = RedisSentinels::start("shop").await.expect("they start");
    let url = sentinels.url();
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.sentinel", "shop")];
    let backend = Backend::of_redis("redis with sentinels", &keys).await;
    let (lock, other) = (backend.participant().await, backend.participant().await);
    let mut last = until_healed(&*lock).await;
    let held = take(&*other).await.expect("a lease");
    // One sentinel may be gone, and the one that is asked first at that.
    sentinels.kill_sentinel(0).await.expect("it is killed");
    sentinels.servers()[0].kill().await.expect("it is killed");
    for lock in [&lock, &other] {
        let token = until_healed(&**lock).await;
        assert!(token > last, "{token} after {last}");
        last = token;
    }
    // Its lock was lost with the server, or came over to the replica, and was renewed or ended since.
    held.release().await;
    let waiting = tokio::spawn(async move { other.acquire(KEY, Mode::Exclusive, after(5_000)).await });
    waiting.await.expect("it lives").expect("a lease").release().await;
    backend.assert_free(&*lock).await;
}

/// Its connections stay, and it takes whatever it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_stands_still_is_left_for_the_one_that_sentinels_name() {
    let mut sentinels = RedisSentinels::start("shop").await.expect("they start");
    let url = sentinels.url();
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.sentinel", "shop")];
    let backend = Backend::of_redis("redis with sentinels", &keys).await;
    let lock = backend.participant().await;
    let last = until_healed(&*lock).await;
    sentinels.servers()[0].pause().expect("it is stopped");
    let token = until_healed(&*lock).await;
    assert!(token > last, "{token} after {last}");
    sentinels.servers()[0].resume().expect("it goes on");
    backend.assert_free(&*lock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_do_not_name_a_primary_are_refused_with_the_reason() {
    let sentinels = RedisSentinels::start("shop").await.expect("they start");
    let url = sentinels.url();
    let keys = [("lock.redis.url", url.as_str()), ("lock.redis.sentinel", "shop")];
    let backend = Backend::of_redis("redis with sentinels", &keys).await;
    let unknown = backend.refused(&[("lock.redis.sentinel", "market")]).await;
    assert!(unknown.contains("no primary \"market\""), "{unknown}");
    let no_sentinel = backend.refused(&[("lock.redis.sentinel", "")]).await;
    assert!(no_sentinel.starts_with("lock.redis.sentinel: "), "{no_sentinel}");
    for number in 0..3 {
        let user = ["ACL", "SETUSER", "default", "resetpass", ">watchword"];
        sentinels.command(number, &user).await.expect("a password");
    }
    let without = backend.refused(&[]).await;
    assert!(without.contains("NOAUTH") || without.contains("uthentication"), "{without}");
    let wrong = backend.refused(&[("lock.redis.sentinel_password", "other")]).await;
    assert!(!wrong.contains("other") && wrong.contains("127.0.0.1"), "{wrong}");
    let with = [keys.as_slice(), &[("lock.redis.sentinel_password", "watchword")]].concat();
    let backend = Backend::of_redis("redis with sentinels", &with).await;
    backend.assert_free(&*backend.participant().await).await;
}
