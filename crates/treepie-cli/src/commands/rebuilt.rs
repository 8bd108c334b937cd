//! `node --rebuild`: a node whose database is of no use any more comes back under a new number.
//!
//! The old number leaves the cluster, its folder is put aside, and the new number joins as any other does;
//! it gets a vote if the old one had one. Each step looks at what is there: cut off, the command is given
//! again as it was, also after the node was rebuilt.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use treepie::{
    disk::{Disk, LockError, RealDisk},
    ids::Lsn,
};
use treepie_raft::{
    Node as RaftNode,
    ids::NodeId,
    service::{Client, ClientOptions, message::Admin},
    transport::Security,
};

use crate::{
    arguments::client::Node,
    failure::{Failure, Result},
};

/// How often the new number asks for its vote, and how long it catches up in between.
const PROMOTIONS_MAX: u32 = 20;
const CATCH_UP_MAX: Duration = Duration::from_secs(30);

/// A node that comes back under a new number.
pub struct Rebuilding {
    client: Client,
    id: NodeId,
    /// The old number had one.
    gets_vote: bool,
}

impl Rebuilding {
    /// Removes the old number, and puts its folder aside.
    pub fn begin(arguments: &Node, old: NodeId, security: &Security) -> Result<Rebuilding> {
        let id = NodeId(arguments.id);
        if id == old {
            let what = "a number is never used again: give the node a new one with --id";
            return Err(Failure::Use(what.to_owned()));
        }
        let options = ClientOptions::new().security(security.clone());
        let client = Client::connect(&arguments.peers, options)?;
        let members = client.members()?;
        let is_rebuilt = members.iter().any(|member| member.node == id);
        let gone = members.iter().find(|member| member.node == old);
        let gets_vote = gone.is_some_and(|member| member.is_voter);
        if !is_rebuilt {
            // Before anything is changed in the cluster: somebody may still run on it.
            put_aside(&arguments.dir, old)?;
        }
        if gone.is_some() {
            client.admin(Admin::Remove { node: old })?;
        }
        Ok(Rebuilding { client, id, gets_vote })
    }

    /// Gives the new number the vote that the old one had.
    pub fn finish(self, node: &RaftNode) -> Result<()> {
        if !self.gets_vote {
            return Ok(());
        }
        let mut tries = 0;
        loop {
            let committed = Lsn(self.client.status()?.committed);
            // What it lacks for its vote shows in the answer.
            drop(node.read_at_least(committed, CATCH_UP_MAX));
            tries += 1;
            match self.client.admin(Admin::Promote { node: self.id }) {
                Ok(_) => return Ok(()),
                Err(error) if tries == PROMOTIONS_MAX => return Err(error.into()),
                Err(_) => {}
            }
        }
    }
}

/// Renames the folder of the old number, unless that was done. Nobody may have it open.
fn put_aside(dir: &Path, old: NodeId) -> Result<()> {
    let mut aside = dir.as_os_str().to_owned();
    aside.push(format!(".node-{}", old.0));
    let aside = PathBuf::from(aside);
    // What is in the folder by then are the pages of the new number.
    if aside.exists() || !dir.exists() {
        return Ok(());
    }
    let lock = match RealDisk.lock(&dir.join("lock")) {
        Ok(lock) => lock,
        Err(LockError::Held(_)) => {
            let what = "somebody has the database open; end that node first";
            return Err(Failure::Use(format!("{}: {what}", dir.display())));
        }
        Err(LockError::Io(source)) => return Err(Failure::io("lock", dir)(source)),
    };
    fs::rename(dir, &aside).map_err(Failure::io("put aside", dir))?;
    drop(lock);
    Ok(())
}
