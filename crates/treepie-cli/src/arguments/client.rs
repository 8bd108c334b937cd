//! Arguments of the commands that ask nodes, and of the node itself.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Notation;

/// How connections are protected.
#[derive(Clone, Debug, Args)]
pub struct Security {
    /// Without TLS, and so only within this machine
    #[arg(long, required_unless_present = "ca", conflicts_with_all = ["ca", "cert", "key_file"])]
    pub insecure_loopback: bool,
    /// Certificate of the cluster's own authority, PEM
    #[arg(long, value_name = "FILE", requires_all = ["cert", "key_file"])]
    pub ca: Option<PathBuf>,
    /// Certificate of this side, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    pub cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long = "key", id = "key_file", value_name = "FILE", requires = "ca")]
    pub key: Option<PathBuf>,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// Where nodes listen for clients; the first that answers says who leads
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', required = true)]
    pub at: Vec<String>,
    /// Milliseconds that it may take, with all that it takes to find the leader
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// How connections are protected.
    #[command(flatten)]
    pub security: Security,
}

/// How new the state must be that is read; with everything acknowledged, unless less is enough.
#[derive(Clone, Copy, Debug, Args)]
pub struct Freshness {
    /// With everything up to this LSN is enough
    #[arg(long, value_name = "LSN", conflicts_with = "stale")]
    pub at_least: Option<u64>,
    /// As of a moment that is at most this long ago is enough
    #[arg(long, value_name = "MS")]
    pub stale: Option<u64>,
}

/// One key of one tree.
#[derive(Debug, Args)]
pub struct RemotePlace {
    /// Name of the tree
    pub tree: String,
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// How the key is written.
    #[command(flatten)]
    pub notation: Notation,
    /// Whom to ask.
    #[command(flatten)]
    pub reach: Reach,
}

/// What a client asks for.
#[derive(Debug, Subcommand)]
pub enum Client {
    /// Print the value of a key
    Get(RemoteGet),
    /// Set the value of a key; makes the tree when it is missing
    Put(RemotePut),
    /// Remove a key
    Delete(RemotePlace),
    /// Set the value of a key if it has a certain value, or none
    Cas(RemoteCas),
    /// Print the entries of a tree in the order of their keys, as lines that `load` reads
    Scan(RemoteScan),
}

/// Arguments of `client get`.
#[derive(Debug, Args)]
pub struct RemoteGet {
    /// Which entry.
    #[command(flatten)]
    pub place: RemotePlace,
    /// How new it must be.
    #[command(flatten)]
    pub freshness: Freshness,
    /// Write the bytes of the value as they are, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// Arguments of `client put`.
#[derive(Debug, Args)]
pub struct RemotePut {
    /// Which entry.
    #[command(flatten)]
    pub place: RemotePlace,
    /// The value; `-` takes the bytes of standard input as they are
    #[arg(allow_hyphen_values = true)]
    pub value: String,
}

/// Arguments of `client cas`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 6, and changes nothing, where the key has another value.")]
pub struct RemoteCas {
    /// Which entry.
    #[command(flatten)]
    pub place: RemotePlace,
    /// The value; `-` takes the bytes of standard input as they are
    #[arg(allow_hyphen_values = true)]
    pub value: String,
    /// The value that the key must have
    #[arg(long, value_name = "V", allow_hyphen_values = true, required_unless_present = "absent")]
    pub expect: Option<String>,
    /// The key must have no value
    #[arg(long, conflicts_with = "expect")]
    pub absent: bool,
}

/// Arguments of `client scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Entries come in pages. Each page is as new as the first, and may be newer: only a page is of one
moment.")]
pub struct RemoteScan {
    /// Name of the tree
    pub tree: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    pub prefix: Option<String>,
    /// Only this key and those above
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Only keys below this one
    #[arg(long, value_name = "K", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// From the highest key down
    #[arg(long)]
    pub reverse: bool,
    /// Print at most this many entries
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// How keys and values are written.
    #[command(flatten)]
    pub notation: Notation,
    /// How new it must be.
    #[command(flatten)]
    pub freshness: Freshness,
    /// Whom to ask.
    #[command(flatten)]
    pub reach: Reach,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Whom to ask: each of them.
    #[command(flatten)]
    pub reach: Reach,
}

/// What is done with members.
#[derive(Debug, Subcommand)]
pub enum Member {
    /// List the members
    List {
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
    /// Add a node, which gets all data and does not vote
    Add {
        /// Number of the node, never used before
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        id: u64,
        /// Where it listens for nodes
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
        /// Where it listens for clients
        #[arg(long, value_name = "HOST:PORT")]
        client_address: String,
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
    /// Let a node that has caught up vote
    Promote {
        /// Number of the node
        #[arg(long)]
        id: u64,
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
    /// Let a node that has caught up take the vote of another, which is removed for good
    Replace {
        /// Number of the node that goes
        #[arg(long)]
        id: u64,
        /// Number of the node that takes its place
        #[arg(long)]
        with: u64,
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
    /// Say where a node is reached now; one that runs says so by itself
    Move {
        /// Number of the node
        #[arg(long)]
        id: u64,
        /// Where it listens for clients
        #[arg(long, value_name = "HOST:PORT", required_unless_present = "nodes")]
        listen: Option<String>,
        /// Where it listens for nodes
        #[arg(long, value_name = "HOST:PORT")]
        nodes: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
    /// Remove a node for good
    Remove {
        /// Number of the node
        #[arg(long)]
        id: u64,
        /// Whom to ask.
        #[command(flatten)]
        reach: Reach,
    },
}

/// Arguments of `transfer`.
#[derive(Debug, Args)]
pub struct Transfer {
    /// Number of the node that is to lead
    #[arg(long, value_name = "ID")]
    pub to: u64,
    /// Whom to ask.
    #[command(flatten)]
    pub reach: Reach,
}

/// Arguments of `node`.
#[derive(Debug, Args)]
#[command(after_help = "\
The first line that is printed says where it listens; with port 0 the system chooses one. The first
SIGINT or SIGTERM stops it in order.")]
pub struct Node {
    /// Number of this node
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// Folder of the database; it is made by `--found` and `--peers`
    #[arg(long, value_name = "FOLDER")]
    pub dir: PathBuf,
    /// Where to listen for clients
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// Where to listen for nodes; the next port when left out
    #[arg(long, value_name = "HOST:PORT")]
    pub nodes: Option<String>,
    /// Where clients find it, if not where it listens
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where other nodes find it, if not where it listens; the host of `--advertise` when left out
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_nodes: Option<String>,
    /// Make a new cluster of this node alone: of the database in the folder, or of an empty one. Its id is
    /// that of the certificate
    #[arg(long, conflicts_with = "peers")]
    pub found: bool,
    /// Members of a cluster to join, and where they listen for clients
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Number under which this node was a member before, and whose database is lost, damaged or not that of
    /// the cluster: it is removed, its folder put aside, and this node, of a new number, takes its place
    #[arg(long, value_name = "NUMBER", requires = "peers")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub rebuild: Option<u64>,
    /// How connections are protected.
    #[command(flatten)]
    pub security: Security,
}
