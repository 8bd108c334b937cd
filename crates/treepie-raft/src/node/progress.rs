//! How far page streams are that this node sends.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use treepie_snapshot::Control;

use crate::ids::NodeId;

/// How far a page stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstallProgress {
    /// Bytes of pages that were sent.
    pub sent: u64,
    /// Bytes of pages in all; 0 where it is not known yet.
    pub total: u64,
    /// Bytes a second, lately.
    pub rate: u64,
}

/// Those that are being sent, at most one to each member.
#[derive(Debug, Default)]
pub(super) struct Installs(Mutex<BTreeMap<NodeId, InstallProgress>>);

/// One of them; it ends with this.
#[derive(Debug)]
pub(super) struct Install {
    all: Arc<Installs>,
    node: NodeId,
}

impl Installs {
    pub(super) fn begin(self: &Arc<Self>, node: NodeId) -> Install {
        self.0.lock().insert(node, InstallProgress::default());
        Install { all: Arc::clone(self), node }
    }

    pub(super) fn all(&self) -> BTreeMap<NodeId, InstallProgress> {
        self.0.lock().clone()
    }
}

impl Install {
    /// Has what is sent noted here.
    pub(super) fn watch(&self) -> Control {
        let (all, node) = (Arc::clone(&self.all), self.node);
        Control::new().progress(move |progress| {
            let sent = progress.bytes_done;
            let total = progress.bytes_total.unwrap_or_default();
            // One that has ended is not begun by what comes late.
            if let Some(install) = all.0.lock().get_mut(&node) {
                *install = InstallProgress { sent, total, rate: progress.rate };
            }
        })
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.node);
    }
}
