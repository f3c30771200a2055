//! What every metadata engine promises.

use super::engines;
use crate::meta::{Meta, RowExt, Tx, Value, all, next_id, one};
use crate::{Error, Result};

async fn count(meta: &Meta, sql: &'static str) -> i64 {
    meta.read(move |tx| one(tx, sql, &[], |row| row.int(0))).await.map_err(|e: Error| e).unwrap().unwrap()
}

fn insert(tx: &mut dyn Tx, id: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO suite (id, text, data) VALUES (?1, ?2, ?3)",
        &[id.into(), "text".into(), Value::from(vec![0u8, 255])],
    )?;
    Ok(())
}

/// Run the suite. `open` opens the same database each time, after the last one was closed.
pub async fn meta_suite(open: impl Fn() -> Result<Meta>) {
    let meta = open().unwrap();
    meta.write(|tx| {
        tx.execute("CREATE TABLE suite (id BIGINT PRIMARY KEY, text TEXT, data BLOB)", &[])?;
        tx.execute("CREATE TABLE child (id BIGINT PRIMARY KEY REFERENCES suite (id))", &[])?;
        insert(tx, 1)
    })
    .await
    .unwrap();

    values(&meta).await;
    engines::values_of_all_kinds(&meta).await;
    engines::caught_errors(&meta).await;
    engines::one_snapshot(&meta).await;
    one_failing_among_many(&meta).await;
    conflicts(&meta).await;
    panics(&meta).await;
    reads_do_not_write(&meta).await;
    sequences(&meta).await;
    let written = durable(&meta, &open).await;

    let meta = open().unwrap();
    assert_eq!(count(&meta, "SELECT COUNT(*) FROM suite WHERE id >= 1000").await, written);
    meta.write(|tx| tx.execute("INSERT INTO migration (number, name, applied) VALUES (9999, 'later', 0)", &[]))
        .await
        .unwrap();
    meta.close().await;
    let refusal = open().map(drop).unwrap_err().to_string();
    assert!(refusal.contains("newer version") && refusal.contains("9999"), "{refusal}");
}

async fn values(meta: &Meta) {
    let found = meta
        .read(|tx| {
            all(tx, "SELECT id, text, data, NULL FROM suite", &[], |row| {
                assert!(matches!(row.text(0), Err(Error::Corrupt(_))), "a number is not text");
                assert!(matches!(row.int(3), Err(Error::Corrupt(_))), "NULL is not a number");
                Ok((row.int(0)?, row.text(1)?, row.bytes(2)?, row.opt_digest(3)?))
            })
        })
        .await
        .unwrap();
    assert_eq!(found, [(1, "text".to_owned(), vec![0, 255], None)]);
}

/// Closures that share a transaction do not share a fate.
async fn one_failing_among_many(meta: &Meta) {
    let jobs: Vec<_> = (100..200)
        .map(|id| {
            let meta = meta.clone();
            tokio::spawn(async move {
                meta.write(move |tx| {
                    insert(tx, id)?;
                    // Its own write is there for it to see, and gone with it.
                    assert!(one(tx, "SELECT id FROM suite WHERE id = ?1", &[id.into()], |r| r.int(0))?.is_some());
                    if id % 10 == 3 { Err(Error::NotFound(id.to_string())) } else { Ok(id) }
                })
                .await
            })
        })
        .collect();
    for (id, job) in (100..).zip(jobs) {
        match job.await.unwrap() {
            Ok(done) => assert_eq!(done, id),
            Err(Error::NotFound(what)) => assert!(what == id.to_string() && id % 10 == 3),
            Err(e) => panic!("{id}: {e}"),
        }
    }
    assert_eq!(count(meta, "SELECT COUNT(*) FROM suite WHERE id BETWEEN 100 AND 199").await, 90);
}

async fn conflicts(meta: &Meta) {
    let again = meta.write(|tx| insert(tx, 1)).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    let orphan = meta.write(|tx| tx.execute("INSERT INTO child (id) VALUES (77)", &[])).await;
    assert!(matches!(orphan, Err(Error::Conflict(_))), "{orphan:?}");
    let wrong: Result<u64> = meta.write(|tx| tx.execute("INSERT INTO nowhere VALUES (1)", &[])).await;
    assert!(matches!(wrong, Err(Error::Database(_))), "{wrong:?}");
    // A closure may catch a conflict and go on.
    let kept: Result<()> = meta
        .write(|tx| {
            assert!(matches!(insert(tx, 1), Err(Error::Conflict(_))));
            insert(tx, 2)
        })
        .await;
    kept.unwrap();
    assert_eq!(count(meta, "SELECT COUNT(*) FROM suite WHERE id = 2").await, 1);
}

async fn panics(meta: &Meta) {
    let fell: Result<()> = meta
        .write(|tx| {
            insert(tx, 3)?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(&fell, Err(Error::Database(what)) if what.contains("on purpose")), "{fell:?}");
    let fell: Result<()> = meta.read(|_| panic!("on purpose")).await;
    assert!(fell.is_err());
    assert_eq!(count(meta, "SELECT COUNT(*) FROM suite WHERE id = 3").await, 0);
}

async fn reads_do_not_write(meta: &Meta) {
    let refused: Result<()> = meta.read(|tx| insert(tx, 4)).await;
    assert!(matches!(refused, Err(Error::Database(_))), "{refused:?}");
    assert_eq!(count(meta, "SELECT COUNT(*) FROM suite WHERE id = 4").await, 0);
}

async fn sequences(meta: &Meta) {
    for expected in 1..4 {
        assert_eq!(meta.write(|tx| next_id(tx, "suite")).await.map_err(|e: Error| e).unwrap(), expected);
    }
    assert_eq!(meta.write(|tx| next_id(tx, "other")).await.map_err(|e: Error| e).unwrap(), 1);
}

/// Writes from many tasks and threads, all there after the store was closed and opened.
async fn durable(meta: &Meta, open: &impl Fn() -> Result<Meta>) -> i64 {
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let meta = meta.clone();
            tokio::spawn(async move {
                for i in 0..25 {
                    meta.write(move |tx| insert(tx, 1000 + n * 100 + i)).await.unwrap();
                }
            })
        })
        .collect();
    let thread = {
        let meta = meta.clone();
        tokio::task::spawn_blocking(move || {
            for i in 0..25 {
                meta.write_blocking(move |tx| insert(tx, 5000 + i)).unwrap();
                let sql = "SELECT COUNT(*) FROM suite WHERE id >= 5000";
                let seen: Result<Option<i64>> = meta.read_blocking(move |tx| one(tx, sql, &[], |row| row.int(0)));
                assert_eq!(seen.unwrap(), Some(i + 1), "a read after an answered write sees it");
            }
        })
    };
    for task in tasks {
        task.await.unwrap();
    }
    thread.await.unwrap();

    // What is queued when the store closes is either done or refused, never half.
    let late: Vec<_> = (6000..6050)
        .map(|id| {
            let meta = meta.clone();
            tokio::spawn(async move { meta.write(move |tx| insert(tx, id)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    meta.close().await;
    let mut done = 225;
    for task in late {
        match task.await.unwrap() {
            Ok(()) => done += 1,
            Err(e) => assert!(matches!(e, Error::Busy), "{e}"),
        }
    }
    let closed: Result<()> = meta.write(|tx| insert(tx, 7000)).await;
    assert!(matches!(closed, Err(Error::Busy)), "{closed:?}");
    open().unwrap().close().await;
    done
}
