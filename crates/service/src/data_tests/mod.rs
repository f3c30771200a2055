//! The data plane over a real database and a real blob store, without HTTP.

mod checks;
mod faults;
mod fixture;
mod garbage;
mod gated;
mod lists;
mod locks;
mod pair;
mod push_pull;
mod reach;

#[test]
fn the_same_on_postgres() {
    // On a shared database a collection also waits for pushes at other servers, by the real
    // clock: what becomes of that is for `pair`, which starts PostgreSQL itself.
    let skip = ["garbage::", "a_preview_says_what_the_collector_then_does", "pair::"];
    portolan_testkit::postgres::again(&["data_tests::"], &skip);
}
