//! Who a certificate says that somebody is.
//!
//! A certificate names exactly one node or client of one cluster, as an alternative name of its subject,
//! of the type URI:
//!
//! ```text
//! treepie://cluster/<database id>/<epoch, hexadecimal>/node/<number>
//! treepie://cluster/<database id>/<epoch, hexadecimal>/client/<name>
//! ```

use std::fmt;

use crate::ids::{ClusterId, NodeId};

const PREFIX: &str = "treepie://cluster/";
/// Bytes of a client's name, at most.
pub const CLIENT_NAME_LEN_MAX: usize = 128;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// Somebody on this machine, without a certificate.
    Loopback,
    /// A node.
    Node {
        /// Its cluster.
        cluster: ClusterId,
        /// Its number.
        node: NodeId,
    },
    /// A client.
    Client {
        /// The cluster that it may use.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
}

impl Identity {
    /// What the URI of a certificate says; `None` when it is none of ours.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Identity> {
        let mut parts = uri.strip_prefix(PREFIX)?.split('/');
        let (database, epoch) = (parts.next()?, parts.next()?);
        let (role, name) = (parts.next()?, parts.next()?);
        // One spelling each: other ones could be taken for another name by somebody else.
        let identity = match role {
            "node" => Identity::Node {
                cluster: parse_cluster(database, epoch)?,
                node: NodeId(name.parse().ok()?),
            },
            "client" if is_name(name) => {
                Identity::Client { cluster: parse_cluster(database, epoch)?, name: name.to_owned() }
            }
            _ => return None,
        };
        let is_exact = parts.next().is_none() && identity.to_string() == uri;
        is_exact.then_some(identity)
    }

    /// Whether it is that node, or might be: on loopback nobody says.
    #[must_use]
    pub fn is_node(&self, wanted: ClusterId, number: NodeId) -> bool {
        match self {
            Identity::Loopback => true,
            Identity::Node { cluster, node } => *cluster == wanted && *node == number,
            Identity::Client { .. } => false,
        }
    }

    /// Whether it may use that cluster as a client: nodes may, too.
    #[must_use]
    pub fn may_use(&self, wanted: ClusterId) -> bool {
        match self {
            Identity::Loopback => true,
            Identity::Node { cluster, .. } | Identity::Client { cluster, .. } => *cluster == wanted,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Loopback => f.write_str("loopback"),
            Identity::Node { cluster, node } => write!(f, "{PREFIX}{cluster}/node/{node}"),
            Identity::Client { cluster, name } => write!(f, "{PREFIX}{cluster}/client/{name}"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=CLIENT_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn parse_cluster(database: &str, epoch: &str) -> Option<ClusterId> {
    let digits: String = database.chars().filter(|digit| *digit != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    let database = treepie::ids::DatabaseId(number.to_be_bytes());
    let epoch = u64::from_str_radix(epoch, 16).ok()?;
    Some(ClusterId { database, epoch })
}

#[cfg(test)]
mod tests {
    use treepie::ids::DatabaseId;

    use super::*;

    fn cluster() -> ClusterId {
        ClusterId { database: DatabaseId::from_random([0xab; 16]), epoch: 0x1f }
    }

    #[test]
    fn identity_is_read_as_it_is_written() {
        let node = Identity::Node { cluster: cluster(), node: NodeId(7) };
        let client = Identity::Client { cluster: cluster(), name: "app-1.eu".to_owned() };
        let uri = "treepie://cluster/abababab-abab-4bab-abab-abababababab/1f/node/7";
        assert_eq!(node.to_string(), uri);
        for identity in [node, client] {
            assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        }
    }

    #[test]
    fn other_spellings_and_other_names_are_no_identities() {
        let cluster = cluster().to_string();
        let upper = cluster.to_uppercase();
        for uri in [
            "treepie://cluster/".to_owned(),
            "treepie://cluster/x/1/node/1".to_owned(),
            format!("http://cluster/{cluster}/node/1"),
            format!("treepie://cluster/{upper}/node/1"),
            format!("treepie://cluster/{}/node/1", cluster.replace('-', "")),
            format!("treepie://cluster/{cluster}/node/01"),
            format!("treepie://cluster/{cluster}/node/+1"),
            format!("treepie://cluster/{cluster}/node/1/"),
            format!("treepie://cluster/{cluster}/node/"),
            format!("treepie://cluster/{cluster}/client/"),
            format!("treepie://cluster/{cluster}/client/a b"),
            format!("treepie://cluster/{cluster}/client/{}", "a".repeat(129)),
            format!("treepie://cluster/{cluster}/admin/1"),
        ] {
            assert_eq!(Identity::parse(&uri), None, "{uri}");
        }
    }

    #[test]
    fn client_is_no_node_and_another_cluster_is_none() {
        let other = ClusterId { epoch: 2, ..cluster() };
        let node = Identity::Node { cluster: cluster(), node: NodeId(7) };
        let client = Identity::Client { cluster: cluster(), name: "a".to_owned() };
        assert!(node.is_node(cluster(), NodeId(7)) && node.may_use(cluster()));
        assert!(!node.is_node(cluster(), NodeId(8)) && !node.is_node(other, NodeId(7)));
        assert!(!client.is_node(cluster(), NodeId(7)) && client.may_use(cluster()));
        assert!(!client.may_use(other) && !node.may_use(other));
        assert!(Identity::Loopback.is_node(cluster(), NodeId(7)));
    }
}
