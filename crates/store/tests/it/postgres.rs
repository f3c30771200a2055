//! What only PostgreSQL can do to us: go away, lose an answer, refuse, be somebody else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use portolan_store::meta::{Meta, Notice, PostgresConfig, RowExt as _, all, one};
use portolan_store::testing::servers_suite;
use portolan_store::{Error, Result};
use portolan_testkit::postgres::{Cluster, Durability, PASSWORD, database};

const WAIT: Duration = Duration::from_secs(120);

fn config(url: impl Into<String>) -> PostgresConfig {
    PostgresConfig { readers: 2, ..PostgresConfig::new(url) }
}

async fn ids(meta: &Meta) -> BTreeSet<i64> {
    let found = meta.read(|tx| all(tx, "SELECT id FROM kept", &[], |row| row.int(0))).await;
    found.map_err(|e: Error| e).unwrap().into_iter().collect()
}

async fn insert(meta: &Meta, id: i64) -> Result<()> {
    meta.write(move |tx| tx.execute("INSERT INTO kept (id) VALUES (?1)", &[id.into()]).map(drop)).await
}

async fn make_table(meta: &Meta) {
    let sql = "CREATE TABLE kept (id BIGINT PRIMARY KEY)";
    meta.write(|tx| tx.execute(sql, &[])).await.map_err(|e: Error| e).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers() {
    let config = config(database());
    servers_suite(|| Meta::open_postgres(&config)).await;
}

/// The database crashes and restarts under load, again and again: what was acknowledged is
/// there, what was refused is not, and the servers go on by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_crash_of_the_database() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(Durability::Real)).await.unwrap();
    let config = config(cluster.database());
    let servers = [Meta::open_postgres(&config).unwrap(), Meta::open_postgres(&config).unwrap()];
    make_table(&servers[0]).await;
    let (kept, refused) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Mutex::new(BTreeSet::new())));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for n in 0..8 {
        let meta = servers[n % 2].clone();
        let (kept, refused, stop) = (kept.clone(), refused.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            for id in (i64::try_from(n).unwrap() * 1_000_000).. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match insert(&meta, id).await {
                    Ok(()) => drop(kept.lock().insert(id)),
                    Err(Error::Busy) => {
                        refused.lock().insert(id);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        }));
    }
    for round in 0..4 {
        let before = kept.lock().len();
        let grown = async {
            while kept.lock().len() < before + 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(WAIT, grown).await.expect("the servers go on");
        if round < 3 {
            tokio::task::block_in_place(|| {
                if round == 1 {
                    cluster.stop()
                } else {
                    cluster.kill()
                }
                cluster.resume();
            });
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    for server in &servers {
        assert_eq!(tokio::time::timeout(WAIT, server.notice()).await.unwrap(), Notice::Missed);
        let (found, kept, refused) = (ids(server).await, kept.lock().clone(), refused.lock().clone());
        assert_eq!(kept.difference(&found).count(), 0, "acknowledged and gone");
        assert_eq!(refused.intersection(&found).count(), 0, "refused and there");
        assert_eq!(found.len(), kept.len());
        println!("{} acknowledged, {} refused, 3 restarts", kept.len(), refused.len());
        server.close().await;
    }
}

/// A way to the database that breaks when `COMMIT` comes by.
struct Proxy {
    port: u16,
    cut: Arc<AtomicU8>,
}

/// `COMMIT` does not reach the database.
const BEFORE: u8 = 1;
/// It does, and its answer does not come back.
const AFTER: u8 = 2;

impl Proxy {
    fn start(to: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, cut) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU8::new(0)));
        let shared = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
                let mute = Arc::new(AtomicBool::new(false));
                let (mut from, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let muted = mute.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        if muted.load(Ordering::SeqCst) || back.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = back.shutdown(Shutdown::Both);
                });
                let cut = shared.clone();
                std::thread::spawn(move || pump(client, server, &cut, &mute));
            }
        });
        Proxy { port, cut }
    }
}

fn pump(mut client: TcpStream, mut server: TcpStream, cut: &AtomicU8, mute: &AtomicBool) {
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = client.read(&mut buffer) {
        // Not the COMMITTED of the isolation level.
        if buffer[..n].windows(8).any(|w| w == b"; COMMIT") {
            match cut.swap(0, Ordering::SeqCst) {
                BEFORE => break,
                // The other direction ends when the answer comes.
                AFTER => mute.store(true, Ordering::SeqCst),
                _ => {}
            }
        }
        if server.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_looked_up() {
    let cluster = Cluster::start(Durability::Fast);
    let proxy = Proxy::start(cluster.port());
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let url =
        cluster.tcp_url("sslmode=disable").replace(&format!(":{}/", cluster.port()), &format!(":{}/", proxy.port));
    let meta = Meta::open_postgres(&PostgresConfig { password_file: Some(password), ..config(url) }).unwrap();
    make_table(&meta).await;

    proxy.cut.store(AFTER, Ordering::SeqCst);
    insert(&meta, 1).await.expect("it was committed, and that can be found out");
    assert_eq!(proxy.cut.swap(BEFORE, Ordering::SeqCst), 0, "it was cut");
    let lost = insert(&meta, 2).await;
    assert!(matches!(lost, Err(Error::Busy)), "{lost:?}");
    assert_eq!(proxy.cut.load(Ordering::SeqCst), 0, "it was cut");
    insert(&meta, 3).await.unwrap();
    assert_eq!(ids(&meta).await, [1, 3].into());
    meta.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why_and_no_password() {
    let cluster = Cluster::start(Durability::Fast);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hush-hush").unwrap();
    let refusal = |config: PostgresConfig| {
        let why = Meta::open_postgres(&config).map(drop).unwrap_err().to_string();
        assert!(!why.contains("hush"), "{why}");
        why
    };
    let why = refusal(PostgresConfig { password_file: Some(password), ..config(cluster.tcp_url("")) });
    assert!(why.contains("password authentication failed"), "{why}");
    let why = refusal(config(cluster.url("").replace("/postgres?", "/nothing?")));
    assert!(why.contains("\"nothing\" does not exist"), "{why}");
    let why = refusal(config(cluster.url("options=-csearch_path%3Dnowhere")));
    assert!(why.contains("no schema"), "{why}");
    cluster.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    let why = refusal(config(cluster.url("").replace("/postgres?", "/latin?")));
    assert!(why.contains("LATIN1") && why.contains("UTF8"), "{why}");

    // One that is not there yet is waited for, and not without end.
    cluster.stop();
    let gone = PostgresConfig { wait: Duration::ZERO, ..config(cluster.url("")) };
    let why = refusal(gone.clone());
    assert!(why.contains("connect to the database") && why.contains("/postgres"), "{why}");
    let opening = std::thread::spawn(move || Meta::open_postgres(&PostgresConfig { wait: WAIT, ..gone }));
    cluster.resume();
    opening.join().unwrap().unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_asked_for_and_checked() {
    let cluster = Cluster::start(Durability::Fast);
    let make = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        rcgen::generate_simple_self_signed(names).unwrap()
    };
    let (own, other) = (make(&["127.0.0.1"]), make(&["127.0.0.1"]));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let root = |path: &std::path::Path| path.to_str().unwrap().replace('/', "%2F");
    let (trusted, untrusted) = (file("own", &own.cert.pem()), file("other", &other.cert.pem()));
    let password = file("password", PASSWORD);
    let with = |query: &str| PostgresConfig {
        password_file: Some(password.clone()),
        wait: Duration::ZERO,
        ..config(cluster.tcp_url(query))
    };
    let why = Meta::open_postgres(&with("sslmode=require")).map(drop).unwrap_err().to_string();
    assert!(why.contains("TLS"), "no TLS there yet: {why}");
    cluster.put("server.crt", &own.cert.pem());
    cluster.put("server.key", &own.signing_key.serialize_pem());
    cluster.sql("ALTER SYSTEM SET ssl = on");
    cluster.stop();
    cluster.resume();

    let encrypted = "SELECT COUNT(*) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
    let verify = format!("sslmode=verify-full&sslrootcert={}", root(&trusted));
    for (query, expected) in [("sslmode=disable", 0), ("", 1), ("sslmode=require", 1), (verify.as_str(), 1)] {
        let meta = Meta::open_postgres(&with(query)).unwrap();
        let found: Result<Option<i64>> = meta.read(move |tx| one(tx, encrypted, &[], |row| row.int(0))).await;
        assert_eq!(found.unwrap(), Some(expected), "{query}");
        meta.close().await;
    }
    let strange = with(&format!("sslmode=verify-full&sslrootcert={}", root(&untrusted)));
    let mut misnamed = with(&verify);
    misnamed.url = misnamed.url.expose().replace("127.0.0.1", "localhost").into();
    for config in [strange, misnamed, with("sslmode=verify-full")] {
        let why = Meta::open_postgres(&config).map(drop).unwrap_err().to_string();
        assert!(why.contains("certificate"), "{why}");
    }
}

/// Whatever the server's default is, and for more statements than are kept prepared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_set_up() {
    let meta = Meta::open_postgres(&config(database())).unwrap();
    // The shared cluster has it off.
    let sql = "SELECT current_setting('synchronous_commit')";
    let set: Result<Option<String>> = meta.write(move |tx| one(tx, sql, &[], |row| row.text(0))).await;
    assert_eq!(set.unwrap().as_deref(), Some("on"));
    let level = "SELECT current_setting('transaction_isolation')";
    let set: Result<Option<String>> = meta.read(move |tx| one(tx, level, &[], |row| row.text(0))).await;
    assert_eq!(set.unwrap().as_deref(), Some("repeatable read"));
    for _ in 0..2 {
        let sums: Result<Vec<Option<i64>>> = meta
            .write(|tx| (0..300).map(|n| one(tx, &format!("SELECT {n} + 0 AS a{n}"), &[], |row| row.int(0))).collect())
            .await;
        assert!(sums.unwrap().into_iter().eq((0..300).map(Some)));
    }
    meta.close().await;
}
