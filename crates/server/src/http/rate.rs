//! How often somebody may ask: rates by identity, and by address where nobody says who.
//!
//! Each identity has, for each class of request, one number: the time at which it would
//! have used up what it asked for so far (GCRA, the virtual scheduling of ATM Forum Traffic
//! Management 4.0; a token bucket without the tokens). A request moves it on by the
//! interval of its rate; one that would move it further ahead of the clock than the burst
//! allows is refused and told when to come again, and does not move it. That is one look
//! into a table and one compare-and-swap; without a limit, not even that.
//!
//! The table is bounded: an identity that was not seen for long is forgotten, which gives
//! it a full burst again and nothing more.

mod attempt;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use portolan_auth::access::Principal;
use portolan_service::{Error, Kind};
use quick_cache::sync::Cache;

use crate::settings::Settings;

pub use attempt::Attempt;

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Requests that read.
    Read,
    /// Requests that write.
    Write,
    /// Requests for tokens.
    Token,
    /// Sign-ins that failed.
    FailedSignIn,
}

impl Class {
    /// Every class, in the order of the counters.
    pub const ALL: [Class; 4] = [Class::Read, Class::Write, Class::Token, Class::FailedSignIn];

    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Class::Read => "read",
            Class::Write => "write",
            Class::Token => "token",
            Class::FailedSignIn => "failed_sign_in",
        }
    }
}

/// A limit in the form in which it is checked, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Limit {
    interval: u64,
    burst: u64,
}

impl Limit {
    /// `None` for no limit.
    fn new(per_min: u32, burst_secs: u32) -> Option<Limit> {
        let interval = 60_000_000_000u64.checked_div(u64::from(per_min))?;
        // At least one request may come at any time.
        Some(Limit { interval, burst: (u64::from(burst_secs) * 1_000_000_000).max(interval) })
    }
}

/// All rates, and who used up how much of them.
pub struct Rates {
    limits: [Option<Limit>; Class::ALL.len()],
    /// By a hash of class and identity under a key of this process; two identities with
    /// one hash would share a rate, and at 64 bits nobody can arrange for that.
    used: Cache<u64, Arc<AtomicU64>>,
    hash: RandomState,
    start: Instant,
    /// What stands before a password.
    budgets: attempt::Budgets,
    /// Where identities have signed in, and when.
    familiar: Cache<u64, u64>,
    limited_total: [AtomicU64; Class::ALL.len()],
}

impl Rates {
    /// As the settings have them.
    pub fn new(settings: &Settings) -> Rates {
        let burst = settings.rate_burst_secs.0;
        let limit = |per_min| Limit::new(per_min, burst);
        let remembered_max = usize::try_from(settings.rate_identities_max.0).unwrap_or(usize::MAX);
        Rates {
            limits: [
                limit(settings.rate_reads_per_min),
                limit(settings.rate_writes_per_min),
                limit(settings.rate_tokens_per_min),
                // Counted by `budgets`.
                None,
            ],
            used: Cache::new(remembered_max),
            budgets: attempt::Budgets::new(
                settings.rate_failed_sign_ins_per_min,
                settings.rate_failed_sign_ins_per_identity_per_min,
                burst,
            ),
            familiar: Cache::new(remembered_max),
            hash: RandomState::new(),
            start: Instant::now(),
            limited_total: Default::default(),
        }
    }

    /// Count a request of the data or control plane.
    ///
    /// Errors: `TOOMANYREQUESTS`.
    pub fn request(&self, reads: bool, principal: &Principal, peer: IpAddr) -> Result<(), Error> {
        let class = if reads { Class::Read } else { Class::Write };
        let Some(limit) = self.limits[class as usize] else { return Ok(()) };
        let key = match principal {
            Principal::System => return Ok(()),
            Principal::Anonymous => self.hash.hash_one((class as u8, network(peer))),
            known => self.hash.hash_one((class as u8, known)),
        };
        self.count(class, limit, key)
    }

    /// Count a request for a token.
    ///
    /// Errors: `TOOMANYREQUESTS`.
    pub fn token(&self, peer: IpAddr) -> Result<(), Error> {
        let Some(limit) = self.limits[Class::Token as usize] else { return Ok(()) };
        self.count(Class::Token, limit, self.hash.hash_one((Class::Token as u8, network(peer))))
    }

    /// How many requests were refused, by class.
    pub fn limited(&self, class: Class) -> u64 {
        self.limited_total[class as usize].load(Ordering::Relaxed)
    }

    /// Identities and addresses remembered.
    pub fn remembered(&self) -> usize {
        self.used.len()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn cell(&self, key: u64) -> Arc<AtomicU64> {
        match self.used.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::default())) {
            Ok(cell) => cell,
            Err(never) => match never {},
        }
    }

    fn count(&self, class: Class, limit: Limit, key: u64) -> Result<(), Error> {
        take(limit, &self.cell(key), self.now()).map_err(|wait| self.refuse(class, wait))
    }

    fn refuse(&self, class: Class, wait: u64) -> Error {
        self.limited_total[class as usize].fetch_add(1, Ordering::Relaxed);
        let secs = u32::try_from(wait.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1);
        let what = match class {
            Class::Read => "read requests",
            Class::Write => "write requests",
            Class::Token => "requests for tokens",
            Class::FailedSignIn => "failed sign-ins",
        };
        let message = format!("too many {what}; try again in {secs} seconds");
        Error::new(Kind::TooMany { retry_after_secs: secs }, "TOOMANYREQUESTS", message)
    }
}

/// What one client has at least for itself: an IPv4 address, or an IPv6 network of 64 bits.
pub(crate) fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip) & !u128::from(u64::MAX),
    }
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rates({} remembered)", self.remembered())
    }
}

/// The time to move on to when a request may come at `now`, else how long to wait.
fn check(limit: Limit, used: u64, now: u64) -> Result<u64, u64> {
    let next = used.max(now).saturating_add(limit.interval);
    match next.saturating_sub(now).checked_sub(limit.burst) {
        None | Some(0) => Ok(next),
        Some(over) => Err(over),
    }
}

fn take(limit: Limit, cell: &AtomicU64, now: u64) -> Result<(), u64> {
    let mut used = cell.load(Ordering::Relaxed);
    loop {
        let next = check(limit, used, now)?;
        match cell.compare_exchange_weak(used, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(other) => used = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: u64 = 1_000_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let limit = Limit::new(60, 10).unwrap();
        let cell = AtomicU64::new(0);
        let start = 1_000 * SEC;
        for _ in 0..10 {
            take(limit, &cell, start).unwrap();
        }
        assert_eq!(take(limit, &cell, start), Err(SEC));
        // Refused ones cost nothing: a second later there is room for one.
        assert_eq!(take(limit, &cell, start + SEC), Ok(()));
        assert_eq!(take(limit, &cell, start + SEC), Err(SEC));
        // And after a long pause for a burst, and no more.
        let later = start + 1_000 * SEC;
        assert_eq!((0..50).filter(|_| take(limit, &cell, later).is_ok()).count(), 10);
    }

    #[test]
    fn a_rate_below_one_in_a_burst_still_lets_one_through() {
        let limit = Limit::new(1, 1).unwrap();
        let cell = AtomicU64::new(0);
        assert_eq!(take(limit, &cell, 0), Ok(()));
        assert_eq!(take(limit, &cell, 0), Err(60 * SEC));
        assert!(Limit::new(0, 60).is_none());
    }

    fn rates(change: impl FnOnce(&mut Settings)) -> Rates {
        let mut settings = Settings::defaults().unwrap();
        change(&mut settings);
        Rates::new(&settings)
    }

    fn token(name: &str) -> Principal {
        Principal::Token { registry: "registry1".parse().unwrap(), name: name.to_owned() }
    }

    #[test]
    fn identities_and_classes_do_not_share() {
        let rates = rates(|s| {
            s.rate_reads_per_min = 2;
            s.rate_writes_per_min = 1;
        });
        let peer: IpAddr = [10, 0, 0, 1].into();
        let (a, b) = (token("a"), token("b"));
        assert!(rates.request(true, &a, peer).is_ok() && rates.request(true, &a, peer).is_ok());
        let refused = rates.request(true, &a, peer).unwrap_err();
        assert_eq!(refused.code, "TOOMANYREQUESTS");
        assert!(matches!(refused.kind, Kind::TooMany { retry_after_secs } if (1..=30).contains(&retry_after_secs)));
        assert!(rates.request(false, &a, peer).is_ok() && rates.request(false, &a, peer).is_err());
        assert!(rates.request(true, &b, peer).is_ok());
        // Nobody in particular goes by address, and not by that of somebody known.
        let nobody = Principal::Anonymous;
        assert!(rates.request(true, &nobody, peer).is_ok() && rates.request(true, &nobody, peer).is_ok());
        assert!(rates.request(true, &nobody, peer).is_err());
        assert!(rates.request(true, &nobody, [10, 0, 0, 2].into()).is_ok());
        assert_eq!((rates.limited(Class::Read), rates.limited(Class::Write)), (2, 1));
        assert!((0..100).all(|_| rates.request(true, &Principal::System, peer).is_ok()));
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_limit() {
        let rates = rates(|s| {
            s.rate_reads_per_min = 100;
            s.rate_identities_max = crate::settings::Positive(1_000);
        });
        for n in 0..50_000u32 {
            rates.request(true, &Principal::Anonymous, n.to_be_bytes().into()).unwrap();
        }
        assert!(rates.remembered() <= 1_000, "{}", rates.remembered());
    }

    #[test]
    fn many_threads_together_take_no_more_than_the_burst() {
        let rates = rates(|s| s.rate_reads_per_min = 60);
        let one = token("a");
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if rates.request(true, &one, [10, 0, 0, 1].into()).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // 60 at once, and one for each second that the test took.
        let secs = rates.start.elapsed().as_secs();
        let taken = taken.load(Ordering::Relaxed);
        assert!((60..=61 + secs).contains(&taken), "{taken}");
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
