//! `node`: takes part in a cluster, and serves clients, until a signal comes.

use std::{
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use treepie::Options as EngineOptions;
use treepie_raft::{
    Node as RaftNode, NodeError, NodeOptions as RaftOptions,
    ids::{ClusterId, NodeId},
    service::{
        Client, ClientOptions, Replicated, Server, ServerOptions,
        message::{Admin, Member},
    },
    transport::{Identity, Security},
};

use super::{changing, rebuilt::Rebuilding};
use crate::{
    arguments::client::{Node, Security as SecurityArguments},
    failure::{Failure, Result},
    output::Output,
};

/// How long it may take until a cluster of one has elected its node, and has written that down.
const FOUNDING_MAX: Duration = Duration::from_secs(60);
/// How often a node that comes back asks where the others are, and how long it looks for a leader there.
const LOOKS_MAX: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

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
    /// Where clients find it, if not where it listens.
    pub advertise: Option<String>,
    /// Where nodes do.
    pub advertise_nodes: Option<String>,
    /// It makes a cluster of its own.
    pub found: bool,
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
    // The address before the folder: what cannot be served is not made.
    let listen = &options.listen;
    let listener = TcpListener::bind(listen).map_err(Failure::io("listen on", listen))?;
    let local = listener.local_addr().map_err(Failure::io("listen on", listen))?;
    options.security.check(&local).map_err(|error| Failure::Use(error.to_string()))?;
    let places = Places::new(&options, local)?;
    let mut raft = RaftOptions::new(options.id, places.nodes, options.security.clone())
        .label(&places.clients)
        .engine(changing().create(true));
    if let Some(address) = places.advertised_nodes {
        raft = raft.advertised(address);
    }
    let node = if options.peers.is_empty() {
        alone(&options, raft, None)?
    } else {
        with_peers(&options, raft, &places.clients)?
    };
    let node = Arc::new(node);
    let store = Arc::new(Replicated::new(Arc::clone(&node)));
    let serving = ServerOptions::new().security(options.security);
    let server = Server::start(listener, store, serving)
        .map_err(Failure::io("serve on", &options.listen))?;
    Ok(RunningNode { server, node })
}

/// Where a node is.
struct Places {
    /// Where clients find it.
    clients: String,
    /// Where it listens for nodes.
    nodes: String,
    /// Where these find it, if not there.
    advertised_nodes: Option<String>,
}

impl Places {
    fn new(options: &NodeOptions, local: SocketAddr) -> Result<Places> {
        let unreachable = |address: &str, option: &str| {
            let what =
                "others are told where this node listens: name an address that they can reach";
            Failure::Use(format!("{what}, instead of {address}, with {option}"))
        };
        if local.ip().is_unspecified() && options.advertise.is_none() {
            return Err(unreachable(&local.to_string(), "--listen or --advertise"));
        }
        let clients = options.advertise.clone().unwrap_or_else(|| local.to_string());
        let nodes = options.nodes.clone();
        let nodes = nodes.unwrap_or_else(|| next_port(&options.listen, local).to_string());
        let resolved = nodes.to_socket_addrs().map_err(Failure::io("listen on", &nodes))?;
        let resolved: Vec<SocketAddr> = resolved.collect();
        let is_any = resolved.iter().any(|address| address.ip().is_unspecified());
        let host = clients.rsplit_once(':').map_or("", |(host, _)| host);
        let port = resolved.first().map(SocketAddr::port).filter(|port| *port != 0);
        let advertised_nodes = match (&options.advertise_nodes, &options.advertise, port) {
            (Some(address), ..) => Some(address.clone()),
            (None, Some(_), Some(port)) => Some(format!("{host}:{port}")),
            _ if is_any => return Err(unreachable(&nodes, "--nodes or --advertise-nodes")),
            _ => None,
        };
        for address in [Some(&clients), advertised_nodes.as_ref()].into_iter().flatten() {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(Failure::Use(format!("\"{address}\" is no address like host:7001")));
            }
        }
        Ok(Places { clients, nodes, advertised_nodes })
    }
}

/// The port behind that of clients; any, where that is any.
fn next_port(listen: &str, mut address: SocketAddr) -> SocketAddr {
    let is_any = listen.ends_with(":0");
    address.set_port(if is_any { 0 } else { address.port().saturating_add(1) });
    address
}

/// Starts a node that knows by itself whom it belongs to, or that begins a cluster: only where it is
/// asked to, since a folder may be missing because a disk is not mounted.
fn alone(options: &NodeOptions, raft: RaftOptions, cluster: Option<ClusterId>) -> Result<RaftNode> {
    let (dir, found) = (&options.dir, options.found);
    let refuse = |what: &str| {
        let dir = dir.display();
        Failure::Use(format!("{what} {dir}: --found makes a cluster of it, --peers joins one"))
    };
    let is_there = RaftNode::is_there(dir)?;
    if !is_there && !found {
        return Err(refuse("there is no database in"));
    }
    let engine = if is_there { changing() } else { new_database(options)? };
    let database = engine.open(dir)?;
    let not_in_one = "it is in no cluster, the database in";
    if !found && !database.is_replicated() {
        database.close()?;
        return Err(refuse(not_in_one));
    }
    let lineage = database.lineage();
    let ours = ClusterId { database: lineage.database_id, epoch: lineage.epoch };
    if let Some(theirs) = cluster.filter(|theirs| *theirs != ours) {
        database.close()?;
        let what =
            format!("holds a database of another cluster, {ours}; that of the peers is {theirs}");
        return Err(Failure::Use(format!("{} {what}", dir.display())));
    }
    let node = RaftNode::start(database, raft.found(found))?;
    if found && !node.wait_for_members(FOUNDING_MAX) {
        let what = "the members could not be written down; see the log";
        return Err(Failure::Use(what.to_owned()));
    }
    if !found && node.members().is_empty() {
        // One that was being made when the process ended.
        node.stop()?;
        return Err(refuse(not_in_one));
    }
    Ok(node)
}

/// How the database of a new cluster is made: with the id that the node's certificate names, so that
/// certificates can be made before.
fn new_database(options: &NodeOptions) -> Result<EngineOptions> {
    let engine = changing().create(true);
    match options.security.identity() {
        Identity::Loopback => Ok(engine),
        Identity::Node { cluster, node } if *node == options.id && cluster.epoch == 0 => {
            Ok(engine.database_id(cluster.database))
        }
        identity => {
            let what = "a cluster that begins with an empty database has the epoch 0";
            let id = options.id;
            Err(Failure::Use(format!(
                "the certificate is {identity}, not that of node {id}; {what}"
            )))
        }
    }
}

/// Tells a node where others have moved while it was away. Who is asked may itself hear of that a little
/// later, so it is asked again while nobody is found who leads.
fn look_for_leader(node: &RaftNode, client: &Client, mut members: Vec<Member>) {
    for _ in 0..LOOKS_MAX {
        for member in &members {
            node.look_for(member.node, &member.address);
        }
        if node.wait_for_leader(LOOK_INTERVAL) {
            return;
        }
        let Ok(newer) = client.members() else { return };
        members = newer;
    }
}

/// Starts a node beside others. One without a database gets all pages from a member; one that is no
/// member asks the leader to be added as a learner.
fn with_peers(options: &NodeOptions, raft: RaftOptions, clients: &str) -> Result<RaftNode> {
    let (id, dir) = (options.id, &options.dir);
    let is_there = RaftNode::is_there(dir)?;
    let asking = ClientOptions::new().security(raft.security().clone());
    let asked = Client::connect(&options.peers, asking).and_then(|client| {
        let (status, members) = (client.status()?, client.members()?);
        Ok((client, status, members))
    });
    let (client, status, members) = match asked {
        Ok(asked) => asked,
        // Its members find each other again, whoever is up first.
        Err(_) if is_there => return alone(options, raft, None),
        Err(error) => return Err(error.into()),
    };
    let is_member = members.iter().any(|member| member.node == id);
    let node = if is_there {
        let node = alone(options, raft, Some(status.cluster))?;
        look_for_leader(&node, &client, members);
        node
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
        let (address, client_address) = (node.advertised_address(), clients.to_owned());
        client.admin(Admin::AddLearner { node: id, address, client_address })?;
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
        advertise: arguments.advertise.clone(),
        advertise_nodes: arguments.advertise_nodes.clone(),
        found: arguments.found,
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
