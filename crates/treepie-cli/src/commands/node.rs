//! `node`: serves a database until a signal comes.

use std::{net::TcpListener, path::PathBuf, sync::Arc};

use serde::Serialize;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use treepie::Database;
use treepie_raft::{
    ids::NodeId,
    service::{Server, ServerOptions, Standalone},
    transport::Security,
};

use super::changing;
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
    /// The other nodes.
    pub peers: Vec<String>,
    /// How connections are protected.
    pub security: Security,
}

/// A node that serves.
pub struct RunningNode {
    server: Server,
    db: Database,
}

/// Starts a node: a database by itself, which serves clients as the one node of its cluster.
pub fn start_node(options: NodeOptions) -> Result<RunningNode> {
    let NodeOptions { id, dir, listen, peers, security } = options;
    if !peers.is_empty() {
        let what = "a node serves a database by itself; leave --peers out";
        return Err(Failure::Use(what.to_owned()));
    }
    // The address before the folder: what cannot be served is not made.
    let listener = TcpListener::bind(&listen).map_err(Failure::io("listen on", &listen))?;
    let address = listener.local_addr().map_err(Failure::io("listen on", &listen))?;
    security.check(&address).map_err(|error| Failure::Use(error.to_string()))?;
    let db = changing().create(true).open(&dir)?;
    let store = Arc::new(Standalone::new(db.clone(), id, address.to_string()));
    let options = ServerOptions::new().security(security);
    let server =
        Server::start(listener, store, options).map_err(Failure::io("serve on", &listen))?;
    Ok(RunningNode { server, db })
}

impl RunningNode {
    /// Where it listens for clients.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Answers what is on its way, and closes the database.
    pub fn stop(self) -> Result<()> {
        let RunningNode { server, db } = self;
        drop(server);
        Ok(db.close()?)
    }
}

/// What is printed when clients can come.
#[derive(Serialize)]
struct Serving {
    node: u64,
    clients: String,
}

/// Runs a node.
pub fn run(arguments: &Node, output: &mut Output) -> Result<()> {
    // Before anything is begun: a signal that comes early is not lost.
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(Failure::io("wait for", "signals"))?;
    let node = start_node(NodeOptions {
        id: NodeId(arguments.id),
        dir: arguments.dir.clone(),
        listen: arguments.listen.clone(),
        peers: arguments.peers.clone(),
        security: security(&arguments.security)?,
    })?;
    let serving = Serving { node: arguments.id, clients: node.address() };
    output.either(&serving, |serving| {
        format!("node {} serves clients on {}", serving.node, serving.clients)
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
