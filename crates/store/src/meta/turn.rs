//! Whose turn it is: runs that wait, in the order in which workers take them.
//!
//! Registries take turns, and in a registry those who ordered: the next run belongs to the
//! registry with the fewest runs under way, of several the one that was served longest ago;
//! the same again among its callers; then the oldest first. So somebody with a thousand runs
//! makes nobody else wait for more than the runs under way.
//!
//! Writing transactions are serial, in one server and over all of them, so counting and
//! taking in one of them is exact.

use std::collections::HashMap;

use portolan_types::{RunId, Timestamp};

use super::run::{self, RunRow};
use super::{RowExt, Tx, all, one};
use crate::Result;

/// Runs that are looked at at one time; the queue is not longer.
const WAITING_MAX: usize = 10_000;

/// How many runs may be under way at one time; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TurnLimits {
    /// On all machines together.
    pub total_max: u64,
    /// Of one registry.
    pub registry_max: u64,
}

/// Of whom a run is: a registry and a caller in it.
type Who = (i64, String);

/// A run that waits.
#[derive(Clone, Debug)]
struct Waiting {
    who: Who,
    seq: u64,
    created: Timestamp,
    told: Option<u64>,
    /// Somebody has its log in hand.
    telling: bool,
}

/// What decides whose turn it is.
#[derive(Clone, Debug, Default)]
struct Standing {
    running: HashMap<Who, u64>,
    registry_running: HashMap<i64, u64>,
    served: HashMap<Who, Timestamp>,
    registry_served: HashMap<i64, Timestamp>,
    total: u64,
}

/// What is known of a run beside its row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// How often a worker took it.
    pub attempts: u64,
    /// Whether its image is being stored.
    pub storing: bool,
    /// The worker that has it, or had it last.
    pub worker: Option<String>,
}

/// Note for whom a run is. Goes with [`run::insert`].
pub fn insert(tx: &mut dyn Tx, registry: i64, seq: u64, caller: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO run_turn (registry, seq, caller, attempts, storing, worker, telling, told) \
         VALUES (?1, ?2, ?3, 0, 0, NULL, NULL, NULL) ON CONFLICT (registry, seq) DO NOTHING",
        &[registry.into(), seq.into(), caller.into()],
    )?;
    Ok(())
}

/// What is known of a run.
pub fn get(tx: &mut dyn Tx, registry: i64, seq: u64) -> Result<Turn> {
    let sql = "SELECT attempts, storing, worker FROM run_turn WHERE registry = ?1 AND seq = ?2";
    let found = one(tx, sql, &[registry.into(), seq.into()], |row| {
        Ok(Turn { attempts: row.uint(0)?, storing: row.bool(1)?, worker: row.opt_text(2)? })
    })?;
    Ok(found.unwrap_or_default())
}

/// How many runs of a registry wait.
pub fn queued(tx: &mut dyn Tx, registry: i64) -> Result<u64> {
    let sql = "SELECT COUNT(*) FROM run WHERE finished IS NULL AND status = 'Queued' AND registry = ?1";
    Ok(one(tx, sql, &[registry.into()], |row| row.uint(0))?.unwrap_or(0))
}

/// Give the run whose turn it is to `owner` until `lease_until`: `Queued` → `Started`.
/// `worker` is what people call the owner. With it comes what was known of the run before,
/// this attempt counted. `None` when none waits, or the limits are reached.
pub fn claim(
    tx: &mut dyn Tx,
    owner: &str,
    worker: &str,
    limits: TurnLimits,
    now: Timestamp,
    lease_until: Timestamp,
) -> Result<Option<(RunRow, Turn)>> {
    let mut waiting = waiting(tx, now)?;
    waiting.retain(|run| !run.telling);
    let standing = standing(tx, &waiting)?;
    let Some(next) = standing.next(waiting.iter().enumerate(), limits) else { return Ok(None) };
    let Waiting { who: (registry, caller), seq, .. } = waiting.swap_remove(next);
    let Some(row) = run::take(tx, registry, seq, owner, now, lease_until)? else { return Ok(None) };
    insert(tx, registry, seq, &caller)?;
    let mut before = get(tx, registry, seq)?;
    before.attempts += 1;
    tx.execute(
        "UPDATE run_turn SET attempts = attempts + 1, storing = 0, worker = ?3, telling = NULL \
         WHERE registry = ?1 AND seq = ?2",
        &[registry.into(), seq.into(), worker.into()],
    )?;
    tx.execute(
        "INSERT INTO turn_served (registry, caller, served) VALUES (?1, ?2, ?3) ON CONFLICT (registry, caller) \
         DO UPDATE SET served = excluded.served",
        &[registry.into(), (&caller).into(), now.into()],
    )?;
    Ok(Some((row, before)))
}

/// Note that the image of a run is going to be stored. False when `owner` has it no more:
/// then it must not be.
pub fn storing(tx: &mut dyn Tx, registry: i64, seq: u64, owner: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM run WHERE registry = ?1 AND seq = ?2 AND lease_owner = ?3 AND finished IS NULL";
    if one(tx, sql, &[registry.into(), seq.into(), owner.into()], |row| row.int(0))?.is_none() {
        return Ok(false);
    }
    let sql = "UPDATE run_turn SET storing = 1 WHERE registry = ?1 AND seq = ?2";
    tx.execute(sql, &[registry.into(), seq.into()])?;
    Ok(true)
}

/// Put a run back into the queue that `owner` has, or had: `Started`, `Running` → `Queued`.
/// With `forgiven` this attempt does not count.
pub fn requeue(
    tx: &mut dyn Tx,
    registry: i64,
    seq: u64,
    owner: Option<&str>,
    forgiven: bool,
    now: Timestamp,
) -> Result<bool> {
    let done = run::requeue(tx, registry, seq, owner, now)?;
    if done && forgiven {
        let sql = "UPDATE run_turn SET attempts = attempts - 1 WHERE registry = ?1 AND seq = ?2 AND attempts > 0";
        tx.execute(sql, &[registry.into(), seq.into()])?;
    }
    Ok(done)
}

/// Forget what was known of a run. Goes with [`run::finish`].
pub fn remove(tx: &mut dyn Tx, registry: i64, seq: u64) -> Result<()> {
    let sql = "DELETE FROM run_turn WHERE registry = ?1 AND seq = ?2";
    tx.execute(sql, &[registry.into(), seq.into()])?;
    Ok(())
}

/// Forget who was served before `before`, and what is known of runs that are no more.
pub fn prune(tx: &mut dyn Tx, before: Timestamp) -> Result<()> {
    tx.execute("DELETE FROM turn_served WHERE served < ?1", &[before.into()])?;
    let sql = "DELETE FROM run_turn WHERE NOT EXISTS (SELECT 1 FROM run r WHERE r.registry = run_turn.registry \
               AND r.seq = run_turn.seq AND r.finished IS NULL)";
    tx.execute(sql, &[])?;
    Ok(())
}

/// A run whose place in the queue is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its registry.
    pub registry: i64,
    /// Its number there.
    pub seq: u64,
    /// How many runs are before it.
    pub before: u64,
}

impl Told {
    /// The run's id.
    pub fn id(&self) -> RunId {
        RunId::nth(self.seq)
    }
}

/// Runs that waited since `since`, and have come to another place in the queue than was told:
/// at most `limit`. With `mark` their logs belong to the caller until `until`, or until
/// [`was_told`]: no worker takes them.
pub fn to_tell(
    tx: &mut dyn Tx,
    now: Timestamp,
    since: Timestamp,
    until: Timestamp,
    limit: usize,
    mark: bool,
) -> Result<Vec<Told>> {
    let waiting = waiting(tx, now)?;
    let order = standing(tx, &waiting)?.order(&waiting);
    let mut told = Vec::new();
    for (before, index) in order.into_iter().enumerate() {
        let run = &waiting[index];
        let before = before as u64;
        let closer = run.told.is_none_or(|told| before < told);
        if run.telling || !closer || run.created > since || told.len() >= limit {
            continue;
        }
        let (registry, seq) = (run.who.0, run.seq);
        if !mark {
            told.push(Told { registry, seq, before });
            continue;
        }
        insert(tx, registry, seq, &run.who.1)?;
        let sql = "UPDATE run_turn SET telling = ?3, told = ?4 WHERE registry = ?1 AND seq = ?2";
        tx.execute(sql, &[registry.into(), seq.into(), until.into(), before.into()])?;
        told.push(Told { registry, seq, before });
    }
    Ok(told)
}

/// The logs of these runs may be written by others again.
pub fn was_told(tx: &mut dyn Tx, runs: &[Told]) -> Result<()> {
    for run in runs {
        let sql = "UPDATE run_turn SET telling = NULL WHERE registry = ?1 AND seq = ?2";
        tx.execute(sql, &[run.registry.into(), run.seq.into()])?;
    }
    Ok(())
}

/// The runs that wait, oldest first.
fn waiting(tx: &mut dyn Tx, now: Timestamp) -> Result<Vec<Waiting>> {
    let sql = "SELECT r.registry, COALESCE(t.caller, ''), r.seq, r.created, t.told, t.telling FROM run r \
               LEFT JOIN run_turn t ON t.registry = r.registry AND t.seq = r.seq \
               WHERE r.finished IS NULL AND r.status = 'Queued' ORDER BY r.created, r.registry, r.seq LIMIT ?1";
    all(tx, sql, &[WAITING_MAX.into()], |row| {
        Ok(Waiting {
            who: (row.int(0)?, row.text(1)?),
            seq: row.uint(2)?,
            created: row.time(3)?,
            told: row.opt_int(4)?.and_then(|n| u64::try_from(n).ok()),
            telling: row.opt_time(5)?.is_some_and(|until| until > now),
        })
    })
}

/// How those who have runs stand.
fn standing(tx: &mut dyn Tx, waiting: &[Waiting]) -> Result<Standing> {
    let mut standing = Standing::default();
    let sql = "SELECT r.registry, COALESCE(t.caller, ''), COUNT(*) FROM run r \
               LEFT JOIN run_turn t ON t.registry = r.registry AND t.seq = r.seq \
               WHERE r.finished IS NULL AND r.status IN ('Started', 'Running') \
               GROUP BY r.registry, COALESCE(t.caller, '') LIMIT ?1";
    for (who, count) in all(tx, sql, &[WAITING_MAX.into()], |row| Ok(((row.int(0)?, row.text(1)?), row.uint(2)?)))? {
        standing.total += count;
        *standing.registry_running.entry(who.0).or_default() += count;
        standing.running.insert(who, count);
    }
    let mut asked: Vec<&Who> = waiting.iter().map(|run| &run.who).collect();
    asked.sort();
    asked.dedup();
    for who in asked {
        let sql = "SELECT served FROM turn_served WHERE registry = ?1 AND caller = ?2";
        if let Some(served) = one(tx, sql, &[who.0.into(), (&who.1).into()], |row| row.time(0))? {
            standing.served.insert(who.clone(), served);
        }
    }
    let mut registries: Vec<i64> = waiting.iter().map(|run| run.who.0).collect();
    registries.sort_unstable();
    registries.dedup();
    for registry in registries {
        let sql = "SELECT MAX(served) FROM turn_served WHERE registry = ?1";
        if let Some(Some(served)) = one(tx, sql, &[registry.into()], |row| row.opt_time(0))? {
            standing.registry_served.insert(registry, served);
        }
    }
    Ok(standing)
}

impl Standing {
    /// Whose turn it is, by the number that comes with the run.
    fn next<'w>(&self, waiting: impl Iterator<Item = (usize, &'w Waiting)>, limits: TurnLimits) -> Option<usize> {
        let reached = |count: u64, max: u64| max > 0 && count >= max;
        if reached(self.total, limits.total_max) {
            return None;
        }
        let registry_running = |registry: i64| self.registry_running.get(&registry).copied().unwrap_or(0);
        let may = |run: &(usize, &Waiting)| !reached(registry_running(run.1.who.0), limits.registry_max);
        // Nobody was ever served before the beginning of time.
        let never = Timestamp(i64::MIN);
        waiting
            .filter(may)
            .min_by_key(|(_, run)| {
                let registry = run.who.0;
                (
                    registry_running(registry),
                    self.registry_served.get(&registry).copied().unwrap_or(never),
                    self.running.get(&run.who).copied().unwrap_or(0),
                    self.served.get(&run.who).copied().unwrap_or(never),
                    run.created,
                    run.seq,
                )
            })
            .map(|(index, _)| index)
    }

    /// The order in which all would be taken, if each ended before the next begins: indexes
    /// into `waiting`.
    fn order(mut self, waiting: &[Waiting]) -> Vec<usize> {
        let mut order = Vec::with_capacity(waiting.len());
        // The oldest run of each is the next one of his; then the one after it.
        let mut lines: HashMap<&Who, std::collections::VecDeque<usize>> = HashMap::new();
        for (index, run) in waiting.iter().enumerate() {
            lines.entry(&run.who).or_default().push_back(index);
        }
        let mut clock = i64::MAX - waiting.len() as i64;
        while !lines.is_empty() {
            let heads = lines.values().filter_map(|line| line.front()).map(|index| (*index, &waiting[*index]));
            let Some(next) = self.next(heads, TurnLimits::default()) else { break };
            let who = &waiting[next].who;
            if let Some(line) = lines.get_mut(who) {
                line.pop_front();
                if line.is_empty() {
                    lines.remove(who);
                }
            }
            clock += 1;
            self.served.insert(who.clone(), Timestamp(clock));
            self.registry_served.insert(who.0, Timestamp(clock));
            order.push(next);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(runs: &[(i64, &str)]) -> Vec<Waiting> {
        runs.iter()
            .enumerate()
            .map(|(n, (registry, caller))| Waiting {
                who: (*registry, (*caller).to_owned()),
                seq: n as u64,
                created: Timestamp(n as i64),
                told: None,
                telling: false,
            })
            .collect()
    }

    #[test]
    fn registries_and_those_in_them_take_turns() {
        let runs = waiting(&[(1, "a"), (1, "a"), (1, "a"), (1, "b"), (2, "c"), (2, "c"), (3, "d")]);
        assert_eq!(Standing::default().order(&runs), [0, 4, 6, 3, 5, 1, 2]);
        assert_eq!(Standing::default().order(&[]), [0; 0]);
    }

    #[test]
    fn who_has_more_under_way_waits() {
        let runs = waiting(&[(1, "a"), (2, "b"), (2, "c")]);
        let mut standing = Standing::default();
        let mut run = |registry: i64, caller: &str| {
            standing.total += 1;
            *standing.registry_running.entry(registry).or_default() += 1;
            *standing.running.entry((registry, caller.to_owned())).or_default() += 1;
            standing.clone()
        };
        let one = run(1, "a");
        assert_eq!(one.next(runs.iter().enumerate(), TurnLimits::default()), Some(1));
        let two = run(2, "b");
        let tie = "the registries have one each: of all callers c alone has none";
        assert_eq!(two.next(runs.iter().enumerate(), TurnLimits::default()), Some(2), "{tie}");
        let three = run(1, "x");
        assert_eq!(
            three.next(runs.iter().enumerate(), TurnLimits::default()),
            Some(2),
            "b has one under way, c has none"
        );
        let limits = |total_max, registry_max| TurnLimits { total_max, registry_max };
        assert_eq!(three.next(runs.iter().enumerate(), limits(3, 0)), None);
        assert_eq!(three.next(runs.iter().enumerate(), limits(4, 1)), None);
        assert_eq!(three.next(runs.iter().enumerate(), limits(4, 2)), Some(2));
    }
}
