//! Sign-ins that fail: slowed by address and by identity, so that nobody guesses far, and
//! never so that somebody with the right password stays outside.
//!
//! Two budgets stand before a password: that of the client's address, over all identities it
//! tries, and that of the identity, over all addresses that try it. Each attempt takes from
//! both *before* the password is looked at (a thousand at once are a thousand), and a right
//! one gives back what it took. Then three rules keep the owner in:
//!
//! - Where an identity has signed in before, it is *familiar*: only its own failures from
//!   there count, whatever others do to its name or from its address.
//! - When the budget of an identity or of an address is used up, each pair of the two is
//!   still looked at now and then ([`SLOW_PER_MIN`]). Who knows the password needs one look.
//! - One that was right makes the place familiar.
//!
//! So a job that repeats a wrong secret shuts out neither its neighbours nor its own name
//! elsewhere, and a flood of guesses at a name from everywhere slows its owner by a minute at
//! most in a new place, and not at all in a known one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_service::{Error, Kind};

use super::{Class, Limit, Rates, network, take};

/// Attempts in a minute that one identity has from one address, when the budget of either is
/// used up.
const SLOW_PER_MIN: u32 = 2;
/// Attempts in a minute that an address whose budget is used up has over all identities.
const ADDRESS_SLOW_PER_MIN: u32 = 60;
/// How long a place stays familiar after a sign-in.
const FAMILIAR: Duration = Duration::from_secs(30 * 86_400);
/// How often a sign-in renews that.
const RENEWED: Duration = Duration::from_secs(3_600);

/// The budgets before a password.
pub(super) struct Budgets {
    address: Option<Limit>,
    identity: Option<Limit>,
    slow: Option<Limit>,
    address_slow: Option<Limit>,
}

impl Budgets {
    /// Rates in a minute; 0 for none.
    pub(super) fn new(address: u32, identity: u32, burst_secs: u32) -> Budgets {
        Budgets {
            address: Limit::new(address, burst_secs),
            identity: Limit::new(identity, burst_secs),
            slow: Limit::new(SLOW_PER_MIN, 60),
            address_slow: Limit::new(ADDRESS_SLOW_PER_MIN, 60),
        }
    }
}

/// What a budget is of; part of the key under which it is kept.
#[derive(Clone, Copy, Hash)]
enum Of {
    Address,
    Identity,
    Familiar,
    Slow,
    AddressSlow,
}

/// A sign-in that may be looked at. Dropping it counts it as failed.
#[must_use = "an attempt that is dropped counts as failed"]
#[derive(Debug)]
pub struct Attempt<'a> {
    rates: &'a Rates,
    /// Where this identity and this address are remembered together.
    pair: Option<u64>,
    taken: [Option<(Arc<AtomicU64>, u64)>; 3],
}

impl Attempt<'_> {
    /// What came of it: a wrong credential counts, anything else costs nothing.
    pub fn answered<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => self.succeeded(),
            Err(e) if e.kind == Kind::Unauthenticated => {}
            Err(_) => self.give_back(),
        }
        result
    }

    /// It was right: it costs nothing, and the identity is known there from now on.
    pub fn succeeded(self) {
        self.give_back();
        if let Some(pair) = self.pair {
            self.rates.make_familiar(pair);
        }
    }

    /// It was neither right nor wrong: nothing was looked at.
    pub fn give_back(&self) {
        for (cell, interval) in self.taken.iter().flatten() {
            // Others may have taken since; what is given back is what was taken.
            let _ =
                cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(*interval)));
        }
    }
}

impl Rates {
    /// Whether a password, secret or token from there is looked at. `who` is the identity
    /// that it is said to be of; `None` for what nobody can guess and everybody sends under
    /// one name.
    ///
    /// Errors: `TOOMANYREQUESTS`.
    pub fn attempt(&self, peer: IpAddr, who: Option<&str>) -> Result<Attempt<'_>, Error> {
        let budgets = &self.budgets;
        let mut attempt = Attempt { rates: self, pair: None, taken: [const { None }; 3] };
        if budgets.address.is_none() && budgets.identity.is_none() {
            return Ok(attempt);
        }
        let (net, now) = (network(peer), self.now());
        let Some(who) = who.map(str::to_lowercase) else {
            self.spend(&mut attempt, 0, budgets.address, (Of::Address, net, ""), now)?;
            return Ok(attempt);
        };
        let pair = self.key((Of::Familiar, net, &who));
        attempt.pair = Some(pair);
        if self.is_familiar(pair) {
            let limit = budgets.identity.or(budgets.address);
            self.spend(&mut attempt, 0, limit, (Of::Familiar, net, &who), now)?;
            return Ok(attempt);
        }
        let address = self.spend(&mut attempt, 0, budgets.address, (Of::Address, net, ""), now);
        let identity = self.spend(&mut attempt, 1, budgets.identity, (Of::Identity, 0, &who), now);
        if address.is_ok() && identity.is_ok() {
            return Ok(attempt);
        }
        let slow = match address.is_ok() {
            true => Ok(()),
            false => self.spend(&mut attempt, 0, budgets.address_slow, (Of::AddressSlow, net, ""), now),
        };
        match slow.and_then(|()| self.spend(&mut attempt, 2, budgets.slow, (Of::Slow, net, &who), now)) {
            Ok(()) => Ok(attempt),
            // Not looked at: it takes nothing.
            Err(e) => {
                attempt.give_back();
                Err(e)
            }
        }
    }

    fn key(&self, of: (Of, u128, &str)) -> u64 {
        use std::hash::BuildHasher as _;
        self.hash.hash_one(of)
    }

    fn spend(
        &self,
        attempt: &mut Attempt<'_>,
        at: usize,
        limit: Option<Limit>,
        of: (Of, u128, &str),
        now: u64,
    ) -> Result<(), Error> {
        let Some(limit) = limit else { return Ok(()) };
        let cell = self.cell(self.key(of));
        match take(limit, &cell, now) {
            Ok(()) => {
                attempt.taken[at] = Some((cell, limit.interval));
                Ok(())
            }
            Err(wait) => Err(self.refuse(Class::FailedSignIn, wait)),
        }
    }

    /// When the place became familiar is kept beside the budgets, under a key of its own.
    fn is_familiar(&self, pair: u64) -> bool {
        let now = self.now();
        self.familiar.get(&pair).is_some_and(|at| now.saturating_sub(at) < nanos(FAMILIAR))
    }

    fn make_familiar(&self, pair: u64) {
        let now = self.now();
        if self.familiar.get(&pair).is_none_or(|at| now.saturating_sub(at) > nanos(RENEWED)) {
            self.familiar.insert(pair, now);
        }
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn rates(address: u32, identity: u32) -> Rates {
        let mut settings = Settings::defaults().unwrap();
        settings.rate_failed_sign_ins_per_min = address;
        settings.rate_failed_sign_ins_per_identity_per_min = identity;
        Rates::new(&settings)
    }

    fn peer(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    /// How many wrong passwords out of `tries` are looked at.
    fn wrong(rates: &Rates, peer: IpAddr, who: &str, tries: usize) -> usize {
        (0..tries).filter(|_| rates.attempt(peer, Some(who)).is_ok()).count()
    }

    #[test]
    fn an_address_that_guesses_is_slowed_for_one_name_and_for_many() {
        let rates = rates(10, 1_000);
        assert_eq!(wrong(&rates, peer(1), "alice", 500), 10 + SLOW_PER_MIN as usize);
        // Every name in turn: no more than an address has when it is slow.
        let names = (0..500).filter(|n| rates.attempt(peer(1), Some(&format!("user{n}"))).is_ok()).count();
        assert_eq!(names, (ADDRESS_SLOW_PER_MIN - SLOW_PER_MIN) as usize);
        assert_eq!(wrong(&rates, peer(2), "bob", 5), 5, "another address");
    }

    #[test]
    fn a_name_that_is_guessed_at_from_everywhere_is_slowed_everywhere() {
        let rates = rates(1_000, 20);
        let looked_at: usize = (0..20).map(|n| wrong(&rates, peer(n), "alice", 50)).sum();
        // Its budget, and two for each address.
        assert!(looked_at <= 20 + 20 * SLOW_PER_MIN as usize, "{looked_at}");
        assert_eq!(wrong(&rates, peer(1), "bob", 5), 5, "another name");
        assert_eq!(wrong(&rates, peer(1), "ALICE", 5), 0, "the name in another case is the same");
    }

    #[test]
    fn the_owner_is_never_locked_out() {
        let rates = rates(10, 10);
        rates.attempt(peer(1), Some("alice")).unwrap().succeeded();
        for n in 0..50 {
            wrong(&rates, peer(n), "alice", 100);
        }
        // At home, where everybody guesses from too: she has a budget of her own, which others
        // there used up; elsewhere, at a place that nobody guesses from, she is looked at.
        rates.attempt(peer(99), Some("alice")).unwrap().succeeded();
        // There she is known now, however often she comes.
        for _ in 0..100 {
            rates.attempt(peer(99), Some("alice")).unwrap().succeeded();
        }
        // And a neighbour at an address that repeats a wrong secret for another name.
        wrong(&rates, peer(7), "job", 10_000);
        rates.attempt(peer(7), Some("carol")).unwrap().succeeded();
    }

    #[test]
    fn failures_in_a_familiar_place_are_counted_there_alone() {
        let rates = rates(10, 10);
        rates.attempt(peer(1), Some("alice")).unwrap().succeeded();
        assert_eq!(wrong(&rates, peer(1), "alice", 100), 10);
        assert_eq!(wrong(&rates, peer(1), "bob", 3), 3);
        assert_eq!(wrong(&rates, peer(2), "alice", 3), 3);
    }

    #[test]
    fn attempts_count_before_they_are_answered() {
        let rates = rates(10, 10);
        // A hundred at once, none answered yet.
        let under_way: Vec<_> = (0..100).filter_map(|_| rates.attempt(peer(1), Some("alice")).ok()).collect();
        assert_eq!(under_way.len(), 10 + SLOW_PER_MIN as usize);
        drop(under_way);
    }

    #[test]
    fn right_ones_cost_nothing() {
        let rates = rates(3, 3);
        for _ in 0..1_000 {
            rates.attempt(peer(1), Some("alice")).unwrap().succeeded();
            rates.attempt(peer(1), None).unwrap().succeeded();
        }
        assert_eq!((0..10).filter(|_| rates.attempt(peer(1), None).is_ok()).count(), 3);
    }
}
