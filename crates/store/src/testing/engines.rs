//! More of what every metadata engine promises: values, errors that are caught, snapshots;
//! and what several servers on one database may count on.

use std::sync::mpsc;
use std::time::Duration;

use crate::meta::{Meta, NOTICE_BYTES_MAX, Notice, RowExt, Tx, Value, all, next_id, one};
use crate::{Error, Result};

/// How long something that must happen is waited for.
const WAIT: Duration = Duration::from_secs(60);

async fn write<T: Send + 'static>(meta: &Meta, f: impl FnOnce(&mut dyn Tx) -> Result<T> + Send + 'static) -> Result<T> {
    meta.write(f).await
}

async fn number(meta: &Meta, sql: &'static str) -> i64 {
    meta.read(move |tx| one(tx, sql, &[], |row| row.int(0))).await.map_err(|e: Error| e).unwrap().unwrap()
}

/// Numbers, texts and bytes come back as they were, and sort by bytes.
pub(super) async fn values_of_all_kinds(meta: &Meta) {
    let big: Vec<u8> = super::content(4 * 1024 * 1024, 7).to_vec();
    let texts = ["", "Ab", "aB", "ab", "a-b", "a_b", "é", "z", "日本", "\u{1F980}", "'\\\"?1$1"];
    let (sent, expected) = (big.clone(), big);
    write(meta, move |tx| {
        tx.execute("CREATE TABLE kinds (id BIGINT PRIMARY KEY, text TEXT, data BLOB, n BIGINT)", &[])?;
        for (id, text) in (0..).zip(texts) {
            tx.execute("INSERT INTO kinds (id, text) VALUES (?1, ?2)", &[id.into(), text.into()])?;
        }
        let sql = "INSERT INTO kinds (id, data, n) VALUES (?1, ?2, ?3)";
        tx.execute(sql, &[100.into(), sent.into(), i64::MAX.into()])?;
        tx.execute(sql, &[101.into(), Value::from(vec![0, 0, 255]), i64::MIN.into()])?;
        tx.execute(sql, &[102.into(), Value::from(Vec::new()), Value::Null])?;
        Ok(())
    })
    .await
    .unwrap();
    let mut sorted = texts.map(str::to_owned);
    sorted.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    meta.read(move |tx| {
        let by_text = "SELECT text FROM kinds WHERE text IS NOT NULL ORDER BY text";
        assert_eq!(all(tx, by_text, &[], |row| row.text(0))?, sorted);
        let after = "SELECT COUNT(*) FROM kinds WHERE text > ?1";
        assert_eq!(one(tx, after, &["Zz".into()], |row| row.int(0))?, Some(8));
        let rows = all(tx, "SELECT data, n FROM kinds WHERE id >= 100 ORDER BY id", &[], |row| {
            Ok((row.bytes(0)?, row.opt_int(1)?))
        })?;
        assert!(rows[0] == (expected, Some(i64::MAX)) && rows[1..] == [(vec![0, 0, 255], Some(i64::MIN)), (vec![], None)]);
        // What a query computes has another type than what it computes from.
        let computed = "SELECT COUNT(*), COALESCE(SUM(id), 0), MAX(n), MIN(n), 1, \
                        CASE WHEN EXISTS (SELECT 1 FROM kinds WHERE id = 101) THEN 1 ELSE 0 END FROM kinds WHERE id > 99";
        let row = one(tx, computed, &[], |row| (0..6).map(|i| row.int(i)).collect::<Result<Vec<_>>>())?;
        assert_eq!(row.unwrap(), [3, 303, i64::MAX, i64::MIN, 1, 1]);
        let none = "SELECT MAX(n), COALESCE(SUM(n), 0) FROM kinds WHERE id = -1";
        assert_eq!(one(tx, none, &[], |row| Ok((row.opt_int(0)?, row.int(1)?)))?, Some((None, 0)));
        let too_big = "SELECT SUM(n) FROM kinds WHERE id IN (100, 0) OR n = ?1";
        assert_eq!(one(tx, too_big, &[1.into()], |row| row.int(0))?, Some(i64::MAX));
        let part = "SELECT id FROM kinds WHERE substr(text, 1, ?2) = ?1 AND (id & 1) = 1 ORDER BY id DESC LIMIT ?3";
        assert_eq!(all(tx, part, &["a".into(), 1.into(), 5.into()], |row| row.int(0))?, [5, 3]);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    // Neither engine takes a NUL in a text, and the closure may go on.
    let gone_on = write(meta, |tx| {
        let insert = "INSERT INTO kinds (id, text) VALUES (?1, ?2)";
        let nul = tx.execute(insert, &[200.into(), "a\0b".into()]);
        assert!(matches!(nul, Err(Error::Unstorable(_))), "{nul:?}");
        tx.execute(insert, &[201.into(), "after".into()])
    });
    assert_eq!(gone_on.await.unwrap(), 1);
    assert_eq!(number(meta, "SELECT COUNT(*) FROM kinds WHERE id >= 200").await, 1);
}

/// A closure may catch errors and go on: what it did before and after stays, in its order,
/// and is done once.
pub(super) async fn caught_errors(meta: &Meta) {
    write(meta, |tx| {
        tx.execute("CREATE TABLE caught (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)", &[])?;
        tx.execute("INSERT INTO caught (id, n) VALUES (1, 0)", &[]).map(drop)
    })
    .await
    .unwrap();
    let add = |tx: &mut dyn Tx| {
        let sql = "UPDATE caught SET n = n + 1 WHERE id = 1 RETURNING n";
        one(tx, sql, &[], |row| row.int(0)).map(Option::unwrap)
    };
    let last = write(meta, move |tx| {
        assert_eq!(add(tx)?, 1);
        let insert = "INSERT INTO caught (id, n) VALUES (?1, ?2)";
        assert!(matches!(tx.execute(insert, &[1.into(), 1.into()]), Err(Error::Conflict(_))));
        assert_eq!(add(tx)?, 2);
        tx.execute(insert, &[2.into(), 2.into()])?;
        assert!(matches!(tx.execute("SELECT 1 FROM nowhere", &[]), Err(Error::Database(_))));
        assert!(matches!(tx.execute(insert, &[2.into(), 2.into()]), Err(Error::Conflict(_))));
        assert_eq!(next_id(tx, "caught")?, 1);
        assert!(matches!(tx.execute(insert, &[3.into(), Value::Null]), Err(Error::Database(_))));
        assert_eq!(next_id(tx, "caught")?, 2);
        let stopped =
            tx.query("SELECT id FROM caught ORDER BY id", &[], &mut |_| Err(Error::NotFound("enough".into())));
        assert!(matches!(stopped, Err(Error::NotFound(_))));
        let last = add(tx)?;
        // The last word is an error too.
        assert!(matches!(tx.execute(insert, &[1.into(), 1.into()]), Err(Error::Conflict(_))));
        Ok(last)
    });
    assert_eq!(last.await.unwrap(), 3);
    assert_eq!(number(meta, "SELECT n FROM caught WHERE id = 1").await, 3);
    assert_eq!(number(meta, "SELECT COUNT(*) FROM caught").await, 2);
    assert_eq!(write(meta, |tx| next_id(tx, "caught")).await.unwrap(), 3);
}

/// All queries of a read see one state, whatever is committed meanwhile.
pub(super) async fn one_snapshot(meta: &Meta) {
    write(meta, |tx| tx.execute("CREATE TABLE snapshot (id BIGINT PRIMARY KEY)", &[])).await.unwrap();
    let (looked, on_looked) = mpsc::channel();
    let (changed, on_changed) = mpsc::channel();
    let reader = {
        let meta = meta.clone();
        tokio::spawn(async move {
            let sql = "SELECT COUNT(*) FROM snapshot";
            meta.read(move |tx| {
                let before = one(tx, sql, &[], |row| row.int(0))?;
                looked.send(()).unwrap();
                on_changed.recv_timeout(WAIT).unwrap();
                Ok::<_, Error>((before, one(tx, sql, &[], |row| row.int(0))?))
            })
            .await
        })
    };
    tokio::task::spawn_blocking(move || on_looked.recv_timeout(WAIT).unwrap()).await.unwrap();
    write(meta, |tx| tx.execute("INSERT INTO snapshot (id) VALUES (1)", &[])).await.unwrap();
    changed.send(()).unwrap();
    assert_eq!(reader.await.unwrap().unwrap(), (Some(0), Some(0)));
    assert_eq!(number(meta, "SELECT COUNT(*) FROM snapshot").await, 1);
}

/// What several servers on one empty database may count on. `open` opens it once more.
pub async fn servers_suite(open: impl Fn() -> Result<Meta> + Sync) {
    // All at once on an empty database: one brings the schema up, the others wait.
    let servers: Vec<Meta> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..3).map(|_| scope.spawn(&open)).collect();
        opening.into_iter().map(|server| server.join().unwrap().unwrap()).collect()
    });
    assert!(servers.iter().all(Meta::is_shared));
    serial(&servers).await;
    told(&servers).await;
    for server in servers {
        server.close().await;
    }
}

/// Closures that look and then write lose nothing to each other, on whatever server.
async fn serial(servers: &[Meta]) {
    const EACH: i64 = 20;
    write(&servers[0], |tx| {
        tx.execute("CREATE TABLE serial (id BIGINT PRIMARY KEY, n BIGINT NOT NULL)", &[])?;
        tx.execute("INSERT INTO serial (id, n) VALUES (1, 0)", &[]).map(drop)
    })
    .await
    .unwrap();
    let mut tasks = Vec::new();
    for meta in servers.iter().cycle().take(servers.len() * 4) {
        let meta = meta.clone();
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..EACH {
                let id = write(&meta, |tx| {
                    let n = one(tx, "SELECT n FROM serial WHERE id = 1", &[], |row| row.int(0))?.unwrap();
                    tx.execute("UPDATE serial SET n = ?1 WHERE id = 1", &[(n + 1).into()])?;
                    next_id(tx, "serial")
                });
                let id = id.await.unwrap();
                // An answered write is seen by every later read, here and elsewhere.
                assert!(number(&meta, "SELECT n FROM serial WHERE id = 1").await >= id);
                ids.push(id);
            }
            ids
        }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.extend(task.await.unwrap());
    }
    ids.sort_unstable();
    let all = EACH * 4 * i64::try_from(servers.len()).unwrap();
    assert_eq!(ids, (1..=all).collect::<Vec<_>>(), "numbers without gaps, each once");
    for meta in servers {
        assert_eq!(number(meta, "SELECT n FROM serial WHERE id = 1").await, all);
    }
}

/// Notices reach the other servers, in order, and only those of transactions that came to be.
async fn told(servers: &[Meta]) {
    let longest = "é".repeat(NOTICE_BYTES_MAX / 2);
    let words = longest.clone();
    write(&servers[0], |tx| tx.notify("one")).await.unwrap();
    let undone: Result<()> = write(&servers[0], |tx| {
        tx.notify("never")?;
        Err(Error::NotFound("on purpose".into()))
    })
    .await;
    assert!(undone.is_err());
    write(&servers[0], move |tx| {
        let too_long = tx.notify(&"x".repeat(NOTICE_BYTES_MAX + 1));
        assert!(matches!(too_long, Err(Error::Unstorable(_))), "{too_long:?}");
        tx.notify("it's 'two' \\ $1 ?1")?;
        next_id(tx, "told")?;
        tx.notify(&words)
    })
    .await
    .unwrap();
    write(&servers[1], |tx| tx.notify("from the second")).await.unwrap();
    let next = async |meta: &Meta| match tokio::time::timeout(WAIT, meta.notice()).await.unwrap() {
        Notice::Told(text) => text,
        Notice::Missed => panic!("nothing was lost"),
    };
    let first = ["one".to_owned(), "it's 'two' \\ $1 ?1".to_owned(), longest];
    for text in &first {
        assert_eq!(&next(&servers[1]).await, text);
        assert_eq!(&next(&servers[2]).await, text);
    }
    assert_eq!(next(&servers[2]).await, "from the second");
    assert_eq!(next(&servers[0]).await, "from the second", "nobody hears itself");
}
