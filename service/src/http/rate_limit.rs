//! How many requests one client may send: a token bucket for each address, kept as one moment (GCRA, the
//! generic cell rate algorithm of ATM Forum, Traffic Management Specification 4.0, 4.4.2).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

/// The most clients that are remembered in each of the two tables.
const CLIENTS: usize = 32 * 1024;

/// What a request bears that came too soon: how long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Throttled(pub Duration);

/// The limit of each client.
pub struct RateLimit {
    /// How long one request takes to be forgotten.
    interval: Duration,
    /// How far ahead of its time a client may be.
    slack: Duration,
    clients: Mutex<Clients>,
}

/// When each client will be where it began. When the newer table is full it becomes the older one, which is
/// forgotten: whoever comes from very many addresses gets a new burst for some of them, and no more memory.
#[derive(Default)]
struct Clients {
    newer: HashMap<IpAddr, Instant>,
    older: HashMap<IpAddr, Instant>,
}

impl RateLimit {
    /// So many requests per second, at least one, and so many at once after a quiet time.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, slack: interval * burst.saturating_sub(1), clients: Mutex::default() }
    }

    /// Counts a request of a client that comes now; an error says when it may come again, and it is not
    /// counted.
    pub fn admit(&self, client: IpAddr, now: Instant) -> Result<(), Throttled> {
        let client = network(client);
        let mut clients = self.clients.lock().expect("nothing panics while it holds this");
        let known = clients.newer.get(&client).or_else(|| clients.older.get(&client));
        let due = known.map_or(now, |due| now.max(*due));
        let ahead = due - now;
        if ahead > self.slack {
            return Err(Throttled(ahead - self.slack));
        }
        if clients.newer.len() >= CLIENTS && !clients.newer.contains_key(&client) {
            clients.older = std::mem::take(&mut clients.newer);
        }
        clients.newer.insert(client, due + self.interval);
        Ok(())
    }
}

/// What one client has: an address of IPv4, or a network of IPv6, of which it may take any address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_burst_is_admitted_and_then_so_many_per_second() {
        let limit = RateLimit::new(10, 3);
        let begun = Instant::now();
        let at = |ms| limit.admit(client(1), begun + Duration::from_millis(ms)).map_err(|wait| wait.0);
        assert_eq!([at(0), at(0), at(0)], [Ok(()); 3]);
        assert_eq!(at(0), Err(Duration::from_millis(100)));
        assert_eq!(at(60), Err(Duration::from_millis(40)));
        assert_eq!([at(100), at(250)], [Ok(()); 2]);
        assert_eq!(at(260), Err(Duration::from_millis(40)));
        // Quiet for long is not saved up beyond the burst.
        assert_eq!([at(60_000), at(60_000), at(60_000)], [Ok(()); 3]);
        assert!(at(60_000).is_err());
        assert!(limit.admit(client(2), begun).is_ok());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_mapped_address_is_one_of_ipv4() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
    }

    #[test]
    fn no_number_of_clients_takes_more_than_two_tables() {
        let limit = RateLimit::new(1, 1);
        let now = Instant::now();
        for number in 0..5 * CLIENTS as u32 {
            assert!(limit.admit(client(number), now).is_ok());
        }
        let clients = limit.clients.lock().unwrap();
        assert!(clients.newer.len() <= CLIENTS && clients.older.len() <= CLIENTS);
        drop(clients);
        // The latest are remembered.
        assert!(limit.admit(client(5 * CLIENTS as u32 - 1), now).is_err());
    }

    proptest! {
        #[test]
        fn in_any_time_no_more_is_admitted_than_the_rate_and_the_burst(
            rate in 1_u32..50, burst in 1_u32..20, pauses in prop::collection::vec(0_u64..500, 1..200),
        ) {
            let limit = RateLimit::new(rate, burst);
            let begun = Instant::now();
            let (mut now, mut admitted) = (begun, 0_u32);
            for pause in pauses {
                now += Duration::from_millis(pause);
                admitted += u32::from(limit.admit(client(1), now).is_ok());
                let most = (now - begun).as_secs_f64() * f64::from(rate) + f64::from(burst);
                prop_assert!(f64::from(admitted) <= most + 0.01, "{admitted} of {most}");
            }
        }
    }
}
