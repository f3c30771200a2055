//! The data plane over a real database and a real blob store, without HTTP.

mod checks;
mod faults;
mod fixture;
mod garbage;
mod gated;
mod lists;
mod locks;
mod pair;
mod people;
mod push_pull;
mod reach;

#[test]
fn the_same_on_postgres() {
    // On a shared database a collection also waits for pushes at other servers, by the real
    // clock: tests that collect are for `pair`, which starts PostgreSQL itself.
    let skip = ["garbage::", "faults::", "::orphans_are_no_problem", "::a_preview_says", "pair::", "people::"];
    portolan_testkit::postgres::again(&["data_tests::"], &skip);
}
