//! Versions that newer ones stand in front of: they are taken out when those are visible, unless a
//! reader needs them.

use std::ptr::NonNull;

use crate::{
    ids::{Lsn, PageId},
    sync::atomic::Ordering::{Relaxed, Release},
};

use super::{
    directory::Change,
    pool::Pool,
    version::{Node, lsn_of, node_at},
};

impl Change<'_> {
    /// Notes that a version stands in front of others, which are taken out when it is visible.
    pub(super) fn supersede(&mut self, page: PageId, lsn: Lsn) {
        match self.chains.superseded.back_mut() {
            Some((last, pages)) if *last == lsn => pages.push(page),
            _ => self.chains.superseded.push_back((lsn, vec![page])),
        }
    }

    /// Takes out what was superseded by versions that are visible by now, where no reader needs it.
    pub(super) fn prune_superseded(&mut self, pool: &Pool) {
        let visible = self.readers.visible();
        while self.chains.superseded.front().is_some_and(|(lsn, _)| *lsn <= visible) {
            let (_, pages) = self.chains.superseded.pop_front().expect("it is there");
            for page in pages {
                let head = self.directory.slot(page).map(|slot| slot.load(Relaxed));
                if let Some(front) = head.and_then(NonNull::new) {
                    self.prune(front, pool);
                }
            }
        }
    }

    /// Takes the versions behind `front` out that no reader has as its answer, now or later. Where the
    /// one behind is hidden and stays, it takes over what the one that goes has saved; one that has its
    /// bytes stays, because the hidden one is made of them.
    fn prune(&mut self, front: NonNull<Node>, pool: &Pool) {
        let mut chain = std::mem::take(&mut self.chains.walked);
        let mut node = Some(front);
        while let Some(at) = node {
            chain.push(at);
            node = NonNull::new(node_at(at).next.load(Relaxed));
        }
        let mut hidden_behind: Option<NonNull<Node>> = None;
        for pair in chain.windows(2).rev() {
            let (newer, node) = (pair[0], pair[1]);
            let (from, until) = (lsn_of(node), lsn_of(newer));
            let is_hidden = node_at(node).is_hidden();
            // Readers to come are at the visible LSN or above.
            let is_needed =
                until > self.readers.visible() || self.readers.need(from, until, u64::MAX);
            if is_needed || (hidden_behind.is_some() && !is_hidden) {
                hidden_behind = is_hidden.then_some(node);
                continue;
            }
            if let Some(behind) = hidden_behind {
                node_at(behind).absorb(node_at(node), pool);
            }
            node_at(newer).next.store(node_at(node).next.load(Relaxed), Release);
            self.unlink(node, from, until);
        }
        chain.clear();
        self.chains.walked = chain;
    }
}
