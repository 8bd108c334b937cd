//! Three nodes of etcd, each a process, at default settings but for room for large requests.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions};
use tokio::runtime::Runtime;

use crate::{Call, Cluster, Operation, Process, Result};

const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster.
pub struct Etcd {
    runtime: Runtime,
    nodes: Vec<Process>,
    clients: Vec<String>,
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl Etcd {
    /// Starts it in folders of `dir`.
    pub fn start(dir: &Path) -> Result<Etcd> {
        let clients: Result<Vec<_>> = (0..3).map(|_| free_address()).collect();
        let peers: Result<Vec<_>> = (0..3).map(|_| free_address()).collect();
        let (clients, peers) = (clients?, peers?);
        let all: Vec<String> = (0..3).map(|n| format!("n{n}=http://{}", peers[n])).collect();
        let mut nodes = Vec::new();
        for n in 0..3 {
            let (client, peer) = (format!("http://{}", clients[n]), format!("http://{}", peers[n]));
            let child = Command::new("etcd")
                .args(["--name", &format!("n{n}"), "--data-dir"])
                .arg(dir.join(n.to_string()))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
                .args(["--quota-backend-bytes", "8589934592", "--logger", "zap", "--log-outputs"])
                .arg("/dev/null")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            nodes.push(Process(child));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cluster = Etcd { runtime, nodes, clients };
        let begin = Instant::now();
        while cluster.leader().is_err() {
            if begin.elapsed() > PATIENCE {
                return Err("etcd has no leader".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    fn connect(&self, addresses: &[String]) -> Result<Client> {
        let addresses: Vec<String> = addresses.iter().map(|a| format!("http://{a}")).collect();
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(5));
        Ok(self.runtime.block_on(Client::connect(addresses, Some(options)))?)
    }

    /// Which node leads.
    fn leader(&self) -> Result<usize> {
        for (place, address) in self.clients.iter().enumerate() {
            let Ok(mut client) = self.connect(std::slice::from_ref(address)) else { continue };
            let Ok(status) = self.runtime.block_on(client.status()) else { continue };
            let own = status.header().map(|header| header.member_id());
            if status.leader() != 0 && own == Some(status.leader()) {
                return Ok(place);
            }
        }
        Err("nobody leads".into())
    }
}

impl Etcd {
    fn call(&self, mut client: Client) -> Call {
        let handle = self.runtime.handle().clone();
        let others: Vec<String> = self.clients.iter().map(|a| format!("http://{a}")).collect();
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(1));
        let mut is_lost = false;
        Box::new(move |operation| {
            if is_lost {
                client = handle.block_on(Client::connect(&others, Some(options.clone())))?;
            }
            let outcome: Result<()> = match operation {
                Operation::Put(key, value) => {
                    handle.block_on(client.put(key, value, None)).map(drop).map_err(Into::into)
                }
                Operation::Get(key) => match handle.block_on(client.get(key, None)) {
                    Ok(found) if found.count() == 1 => Ok(()),
                    Ok(_) => Err("it is not there".into()),
                    Err(error) => Err(error.into()),
                },
            };
            is_lost = outcome.is_err();
            outcome
        })
    }
}

impl Cluster for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn clients(&self, count: usize, connections: usize) -> Result<Vec<Call>> {
        // The leader first; the others are there for when it is gone.
        let mut addresses = self.clients.clone();
        if let Ok(leader) = self.leader() {
            addresses = vec![self.clients[leader].clone()];
        }
        let connected: Result<Vec<Client>> =
            (0..connections).map(|_| self.connect(&addresses)).collect();
        let connected = connected?;
        Ok((0..count).map(|at| self.call(connected[at % connections].clone())).collect())
    }

    fn embedded(&mut self, _: usize, _: usize, _: Duration) -> Result<Option<[f64; 3]>> {
        Ok(None)
    }

    fn kill_leader(&mut self) -> Result<()> {
        let leader = self.leader()?;
        drop(self.nodes.remove(leader));
        self.clients.remove(leader);
        Ok(())
    }
}
