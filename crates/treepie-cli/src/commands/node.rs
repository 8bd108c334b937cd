//! `node`: takes part in a cluster, and serves clients, until a signal comes.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use serde::Serialize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use treepie_raft::{
    Node as RaftNode, NodeError, NodeOptions as RaftOptions,
    ids::NodeId,
    service::{Client, ClientOptions, Replicated, Server, ServerOptions, message::Admin},
    transport::Security,
};

use super::{changing, rebuilt::Rebuilding};
use crate::{
    arguments::client::{Node, Security as SecurityArguments},
    failure::{Failure, Result},
    output::Output,
};

/// What a node is told.
pub struct NodeOptions {
    /// Its number.
    pub id: NodeId,
    /// Folder of its database.
    pub dir: PathBuf,
    /// Where it listens for clients.
    pub listen: String,
    /// Where it listens for nodes.
    pub nodes: Option<String>,
    /// Members of a cluster to join, and where they listen for clients.
    pub peers: Vec<String>,
    /// How connections are protected.
    pub security: Security,
}

/// A node that serves.
pub struct RunningNode {
    server: Server,
    node: Arc<RaftNode>,
}

/// Starts a node: of the cluster that its database is in; where there is no database yet, of the cluster
/// of its peers, or of a new one.
pub fn start_node(options: NodeOptions) -> Result<RunningNode> {
    let NodeOptions { id, dir, listen, nodes, peers, security } = options;
    // The address before the folder: what cannot be served is not made.
    let listener = TcpListener::bind(&listen).map_err(Failure::io("listen on", &listen))?;
    let clients = listener.local_addr().map_err(Failure::io("listen on", &listen))?;
    security.check(&clients).map_err(|error| Failure::Use(error.to_string()))?;
    if clients.ip().is_unspecified() {
        let what = "others are told where this node listens: name an address that they can reach";
        return Err(Failure::Use(format!("{what}, instead of {clients}")));
    }
    let nodes = nodes.unwrap_or_else(|| next_port(&listen, clients).to_string());
    let raft = RaftOptions::new(id, nodes, security.clone())
        .label(clients.to_string())
        .engine(changing().create(true));
    let node = if peers.is_empty() {
        RaftNode::open(&dir, raft.found(true))?
    } else {
        with_peers(id, &dir, raft, &peers, clients)?
    };
    let node = Arc::new(node);
    let store = Arc::new(Replicated::new(Arc::clone(&node)));
    let options = ServerOptions::new().security(security);
    let server =
        Server::start(listener, store, options).map_err(Failure::io("serve on", &listen))?;
    Ok(RunningNode { server, node })
}

/// The port behind that of clients; any, where that is any.
fn next_port(listen: &str, mut address: SocketAddr) -> SocketAddr {
    let is_any = listen.ends_with(":0");
    address.set_port(if is_any { 0 } else { address.port().saturating_add(1) });
    address
}

/// Starts a node beside others. One without a database gets all pages from a member; one that is no
/// member asks the leader to be added as a learner.
fn with_peers(
    id: NodeId,
    dir: &std::path::Path,
    raft: RaftOptions,
    peers: &[String],
    clients: SocketAddr,
) -> Result<RaftNode> {
    let is_there = RaftNode::is_there(dir)?;
    let options = ClientOptions::new().security(raft.security().clone());
    let asked = Client::connect(peers, options).and_then(|client| {
        let (status, members) = (client.status()?, client.members()?);
        Ok((client, status, members))
    });
    let (client, status, members) = match asked {
        Ok(asked) => asked,
        // Its members find each other again, whoever is up first.
        Err(_) if is_there => return Ok(RaftNode::open(dir, raft)?),
        Err(error) => return Err(error.into()),
    };
    let is_member = members.iter().any(|member| member.node == id);
    let node = if is_there {
        RaftNode::open(dir, raft)?
    } else if is_member {
        let what =
            "is a member whose database is not here; remove it, and give this one a new number";
        return Err(Failure::Use(format!("node {id} {what}")));
    } else {
        let wanted = status.leader.unwrap_or(status.node);
        let found = members.iter().find(|member| member.node == wanted);
        let member = found
            .ok_or_else(|| Failure::Use(format!("node {wanted} is not a member; ask another")))?;
        RaftNode::join(dir, raft, status.cluster, (member.node, member.address.as_str()))?
    };
    if !is_member {
        let address = node.address()?.to_string();
        client.admin(Admin::AddLearner {
            node: id,
            address,
            client_address: clients.to_string(),
        })?;
    }
    Ok(node)
}

impl RunningNode {
    /// Where it listens for clients.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Where it listens for nodes.
    pub fn node_address(&self) -> String {
        self.node.address().map_or_else(|_| String::new(), |address| address.to_string())
    }

    /// Answers what is on its way, and closes the database.
    pub fn stop(self) -> Result<()> {
        let RunningNode { server, node } = self;
        drop(server);
        Ok(node.stop()?)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Failure {
        match error {
            NodeError::Engine(error) => error.into(),
            error => Failure::Node(error),
        }
    }
}

/// What is printed when clients can come.
#[derive(Serialize)]
struct Serving {
    node: u64,
    clients: String,
    nodes: String,
}

/// Runs a node.
pub fn run(arguments: &Node, output: &mut Output) -> Result<()> {
    // Before anything is begun: a signal that comes early is not lost.
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(Failure::io("wait for", "signals"))?;
    let security = security(&arguments.security)?;
    let rebuilding = match arguments.rebuild {
        Some(old) => Some(Rebuilding::begin(arguments, NodeId(old), &security)?),
        None => None,
    };
    let node = start_node(NodeOptions {
        id: NodeId(arguments.id),
        dir: arguments.dir.clone(),
        listen: arguments.listen.clone(),
        nodes: arguments.nodes.clone(),
        peers: arguments.peers.clone(),
        security,
    })?;
    if let Some(rebuilding) = rebuilding {
        rebuilding.finish(&node.node)?;
    }
    let serving =
        Serving { node: arguments.id, clients: node.address(), nodes: node.node_address() };
    output.either(&serving, |serving| {
        let Serving { node, clients, nodes } = serving;
        format!("node {node} serves clients on {clients}, and nodes on {nodes}")
    })?;
    output.flush()?;
    signals.forever().next();
    node.stop()
}

/// How connections are protected that arguments describe.
pub fn security(arguments: &SecurityArguments) -> Result<Security> {
    match (&arguments.ca, &arguments.cert, &arguments.key) {
        #[cfg(feature = "tls")]
        (Some(authority), Some(certificate), Some(key)) => {
            let tls = treepie_raft::transport::tls::Tls::load(authority, certificate, key);
            tls.map(Security::Tls).map_err(|error| Failure::Use(error.to_string()))
        }
        (None, ..) => Ok(Security::Loopback),
        _ => Err(Failure::Use("this build has no TLS".to_owned())),
    }
}
