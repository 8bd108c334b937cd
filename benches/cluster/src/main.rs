//! A cluster of Treepie beside one of etcd: the same work on both, in turns.

mod etcd;
mod measure;
mod treepie_cluster;

use std::{collections::BTreeMap, path::Path, process::Child, time::Duration};

use clap::{Parser, Subcommand};

use measure::{Figures, Turn, gap};

/// What fails ends the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// Result of everything here.
pub type Result<T> = std::result::Result<T, Failure>;

/// One operation of one client, and waiting for it.
pub type Call = Box<dyn FnMut(Operation<'_>) -> Result<()> + Send>;

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// A durable put.
    Put(&'a [u8], &'a [u8]),
    /// A linearizable get of a key that is there.
    Get(&'a [u8]),
}

/// A cluster of three nodes.
pub trait Cluster {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// Clients, each with a connection of its own, or all of them with so many.
    fn clients(&self, count: usize, connections: usize) -> Result<Vec<Call>>;
    /// Puts a second, and microseconds of the median and of the 99th percentile, by so many threads of the
    /// process that leads, if that can be.
    fn embedded(&mut self, threads: usize, len: usize, time: Duration) -> Result<Option<[f64; 3]>>;
    /// Kills the node that leads.
    fn kill_leader(&mut self) -> Result<()>;
}

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds: each cluster has one turn in each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of a turn
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Numbers of clients that put
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 256])]
    clients: Vec<usize>,
    /// Only rows whose name begins with one of these
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Only this cluster
    #[arg(long)]
    only: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// A node of Treepie, started by the bench
    #[command(hide = true)]
    Node {
        /// Its number.
        id: u64,
        /// Its folder.
        dir: String,
        /// Where a member listens for clients, to join.
        member: Option<String>,
    },
}

/// A process that is killed when this goes.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Command::Node { id, dir, member }) = &options.command {
        return treepie_cluster::serve(*id, Path::new(dir), member.as_deref());
    }
    let folder = tempfile::tempdir()?;
    let mut table: BTreeMap<String, BTreeMap<&'static str, Vec<f64>>> = BTreeMap::new();
    let mut order = Vec::new();
    for round in 0..options.rounds {
        for place in 0..2 {
            let dir = folder.path().join(format!("{round}-{place}"));
            let is_treepie = (round + place) % 2 == 0;
            if options.only.as_ref().is_some_and(|only| (only == "treepie") != is_treepie) {
                continue;
            }
            std::fs::create_dir(&dir)?;
            let mut cluster: Box<dyn Cluster> = if is_treepie {
                Box::new(treepie_cluster::Treepie::start(&dir)?)
            } else {
                Box::new(etcd::Etcd::start(&dir)?)
            };
            let figures = all(&mut *cluster, &options)?;
            for (row, value) in figures {
                if !order.contains(&row) {
                    order.push(row.clone());
                }
                table.entry(row).or_default().entry(cluster.name()).or_default().push(value);
            }
            drop(cluster);
            std::fs::remove_dir_all(&dir)?;
        }
    }
    print(&table, &order);
    Ok(())
}

fn all(cluster: &mut dyn Cluster, options: &Options) -> Result<Figures> {
    let time = Duration::from_secs_f64(options.seconds);
    let is_wanted = |row: &str| {
        options.rows.is_empty()
            || options.rows.iter().any(|wanted| row.starts_with(wanted.as_str()))
    };
    let mut turns = Vec::new();
    for &clients in &options.clients {
        turns.push(Turn::new(format!("put-{clients}"), clients, 150));
    }
    turns.push(Turn::new("put-256-on-8".to_owned(), 256, 150).on(8));
    turns.push(Turn::new("put-512k".to_owned(), 8, 512 << 10));
    if cluster.name() == "treepie" {
        turns.push(Turn::new("put-4m".to_owned(), 4, 4 << 20));
    }
    turns.push(Turn::new("get-256".to_owned(), 256, 150).reading());
    turns.push(Turn::new("get-256-on-8".to_owned(), 256, 150).reading().on(8));
    let mut figures = Figures::new();
    for turn in turns {
        if is_wanted(&turn.row) {
            figures.extend(turn.run(cluster, time)?);
        }
    }
    for &threads in &options.clients {
        let row = format!("embedded-{threads}");
        if is_wanted(&row)
            && let Some(values) = cluster.embedded(threads, 150, time)?
        {
            figures.extend(
                ["(/s)", "p50 (us)", "p99 (us)"]
                    .map(|name| format!("{row} {name}"))
                    .into_iter()
                    .zip(values),
            );
        }
    }
    if is_wanted("gap") {
        figures.push(("gap (ms)".to_owned(), gap(cluster)?));
    }
    Ok(figures)
}

fn print(table: &BTreeMap<String, BTreeMap<&'static str, Vec<f64>>>, order: &[String]) {
    println!("| row | treepie | etcd | treepie/etcd |");
    println!("|---|--:|--:|--:|");
    for row in order {
        let Some(figures) = table.get(row) else { continue };
        let median = |name| {
            let mut all: Vec<f64> = figures.get(name)?.clone();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied()
        };
        let (ours, theirs) = (median("treepie"), median("etcd"));
        let text = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
        println!(
            "| {row} | {} | {} | {} |",
            text(ours),
            text(theirs),
            ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        );
    }
}
