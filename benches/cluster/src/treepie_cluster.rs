//! Three nodes of Treepie, each a process: this program, started once more.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use treepie_raft::{
    Node, NodeOptions,
    ids::NodeId,
    service::{Client, ClientOptions, Replicated, Server, ServerOptions, message::Admin},
    transport::Security,
};

use crate::{Call, Cluster, Operation, Process, Result};

const TREE: &str = "rows";
const TIMEOUT: Duration = Duration::from_secs(60);

/// The cluster.
pub struct Treepie {
    nodes: Vec<(u64, Process)>,
    addresses: Vec<String>,
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
            let out = child.stdout.take().ok_or("there is no pipe")?;
            BufReader::new(out).read_line(&mut line)?;
            cluster.nodes.push((id, Process(child)));
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

    fn client(&self) -> Result<Call> {
        let client = self.connect()?;
        Ok(Box::new(move |operation| {
            match operation {
                Operation::Put(key, value) => drop(client.put(TREE, key, value)?),
                Operation::Get(key) => {
                    client.get(TREE, key)?.value.ok_or("it is not there")?;
                }
            }
            Ok(())
        }))
    }

    fn kill_leader(&mut self) -> Result<()> {
        let leader = self.connect()?.status()?.leader.ok_or("nobody leads")?;
        self.nodes.retain(|(id, _)| *id != leader.0);
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
    let store = Arc::new(Replicated::new(Arc::new(node)));
    let _server = Server::start(listener, store, ServerOptions::new())?;
    println!("{address}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
