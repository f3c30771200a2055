//! How fast a server is there, and what it takes while nobody asks.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::servers::Server;
use super::{Options, median_of};

/// So long nobody asks before the memory is looked at.
const IDLE: Duration = Duration::from_secs(1);

/// Of one server.
struct Figures {
    name: &'static str,
    first_start_millis: f64,
    starts_millis: Vec<f64>,
    idle_mib: Vec<f64>,
}

/// Of both.
pub(super) struct Process(Vec<Figures>);

/// Start each server again in every round and let it idle.
pub(super) async fn measure(options: &Options, servers: &mut [Server; 2]) -> Result<Process> {
    let mut all: Vec<Figures> = servers
        .iter()
        .map(|server| Figures {
            name: server.name,
            first_start_millis: server.start_millis,
            starts_millis: Vec::new(),
            idle_mib: Vec::new(),
        })
        .collect();
    for round in 0..options.rounds {
        for (server, figures) in servers.iter_mut().zip(&mut all) {
            eprintln!("round {} of {}: start {}", round + 1, options.rounds, server.name);
            server.stop().await?;
            server.resume().await?;
            figures.starts_millis.push(server.start_millis);
            tokio::time::sleep(IDLE).await;
            figures.idle_mib.push(server.resident_mib()?);
        }
    }
    Ok(Process(all))
}

impl Process {
    /// Print the table; its rows for the file.
    pub(super) fn report(self) -> Vec<Value> {
        println!();
        println!("| server | first start, ms | start, ms | idle, MiB |");
        println!("|---|--:|--:|--:|");
        self.0
            .into_iter()
            .map(|Figures { name, first_start_millis, starts_millis, idle_mib }| {
                let (start, idle) = (median_of(starts_millis), median_of(idle_mib));
                println!("| {name} | {first_start_millis:.0} | {start:.0} | {idle:.0} |");
                json!({"process": name, "firstStartMs": first_start_millis, "startMs": start, "idleMib": idle})
            })
            .collect()
    }
}
