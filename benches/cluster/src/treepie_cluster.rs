//! Three nodes of Treepie, each a process: this program, started once more.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use treepie_raft::{
    Node, NodeOptions,
    ids::NodeId,
    service::{Client, ClientOptions, Replicated, Server, ServerOptions, message::Admin},
    transport::Security,
};

use crate::{Call, Cluster, Operation, Process, Result, measure::timed};

const TREE: &str = "rows";
const TIMEOUT: Duration = Duration::from_secs(60);

/// The cluster.
pub struct Treepie {
    nodes: Vec<Member>,
    addresses: Vec<String>,
}

/// A node, which does what it reads, and says what came of it.
struct Member {
    id: u64,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Process,
}

fn call(client: Client) -> Call {
    Box::new(move |operation| {
        match operation {
            Operation::Put(key, value) => drop(client.put(TREE, key, value)?),
            Operation::Get(key) => {
                client.get(TREE, key)?.value.ok_or("it is not there")?;
            }
        }
        Ok(())
    })
}

impl Treepie {
    /// Starts it in folders of `dir`.
    pub fn start(dir: &Path) -> Result<Treepie> {
        let mut cluster = Treepie { nodes: Vec::new(), addresses: Vec::new() };
        for id in 1..=3_u64 {
            let mut command = Command::new(env::current_exe()?);
            command.arg("node").arg(id.to_string()).arg(dir.join(id.to_string()));
            command.args(cluster.addresses.first());
            // The node ends when the pipe to it does.
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let mut line = String::new();
            let input = child.stdin.take().ok_or("there is no pipe")?;
            let mut output = BufReader::new(child.stdout.take().ok_or("there is no pipe")?);
            output.read_line(&mut line)?;
            cluster.nodes.push(Member { id, input, output, _process: Process(child) });
            cluster.addresses.push(line.trim().to_owned());
        }
        let client = cluster.connect()?;
        for id in [2, 3] {
            while client.admin(Admin::Promote { node: NodeId(id) }).is_err() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(cluster)
    }

    fn connect(&self) -> Result<Client> {
        Ok(Client::connect(&self.addresses, ClientOptions::new().timeout(TIMEOUT))?)
    }
}

impl Cluster for Treepie {
    fn name(&self) -> &'static str {
        "treepie"
    }

    fn clients(&self, count: usize, connections: usize) -> Result<Vec<Call>> {
        let connected: Result<Vec<Client>> = (0..connections).map(|_| self.connect()).collect();
        let connected = connected?;
        Ok((0..count).map(|at| call(connected[at % connections].clone())).collect())
    }

    fn embedded(&mut self, threads: usize, len: usize, time: Duration) -> Result<Option<[f64; 3]>> {
        let leader = self.connect()?.status()?.leader.ok_or("nobody leads")?;
        let node = self.nodes.iter_mut().find(|node| node.id == leader.0).ok_or("it is gone")?;
        writeln!(node.input, "{threads} {len} {}", time.as_secs_f64())?;
        let mut line = String::new();
        node.output.read_line(&mut line)?;
        let values: Vec<f64> =
            line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(Some(values.try_into().map_err(|_| "three numbers were expected")?))
    }

    fn kill_leader(&mut self) -> Result<()> {
        let leader = self.connect()?.status()?.leader.ok_or("nobody leads")?;
        self.nodes.retain(|node| node.id != leader.0);
        Ok(())
    }
}

/// The life of one node, until its standard input ends.
pub fn serve(id: u64, dir: &Path, member: Option<&str>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let options = NodeOptions::new(NodeId(id), "127.0.0.1:0", Security::Loopback)
        .label(address.clone())
        .found(member.is_none());
    let node = match member {
        None => Node::open(dir, options.engine(treepie::Options::new().create(true)))?,
        Some(member) => {
            let client = Client::connect([member], ClientOptions::new())?;
            let (status, members) = (client.status()?, client.members()?);
            let first = members.first().ok_or("it has no members")?;
            let place = (first.node, first.address.as_str());
            let node = Node::join(dir, options, status.cluster, place)?;
            let nodes = node.address()?.to_string();
            client.admin(Admin::AddLearner {
                node: NodeId(id),
                address: nodes,
                client_address: address.clone(),
            })?;
            node
        }
    };
    let node = Arc::new(node);
    let store = Arc::new(Replicated::new(Arc::clone(&node)));
    let _server = Server::start(listener, store, ServerOptions::new())?;
    println!("{address}");
    for line in std::io::stdin().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or("a word is missing");
        let (threads, len) = (word()?.parse()?, word()?.parse()?);
        let time = Duration::from_secs_f64(word()?.parse()?);
        let [rate, p50, p99] = puts(&node, threads, len, time)?;
        println!("{rate} {p50} {p99}");
    }
    Ok(())
}

/// What threads of this process put, as clients of the embedded database.
fn puts(node: &Node, threads: usize, len: usize, time: Duration) -> Result<[f64; 3]> {
    let (next, value) = (AtomicU64::new(1 << 32), vec![7; len]);
    let work = || -> Result<()> {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        node.write(|tx| tx.tree(TREE)?.insert(key, &value))?;
        Ok(())
    };
    timed((0..threads).map(|_| work).collect(), time)
}
