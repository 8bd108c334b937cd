//! What a backup may build on, and where it is written before anybody has the lock.

use treepie::{Lineage, ids::Lsn};

use super::{
    Entry, Kind, NewStream, Position, Repository, RepositoryError, chains::Chains, usable,
};

impl Repository {
    /// Where the newest full stream or increment of a lineage ends that can be restored: its files, and
    /// those of all that it builds on, are there, and no damage was left out of any of them. An increment
    /// on something else could not be restored.
    ///
    /// # Errors
    /// What the store says.
    pub fn newest_base(&self, lineage: &Lineage) -> Result<Option<Position>, RepositoryError> {
        let report = self.files()?;
        Ok(newest_base(&usable(self.manifest(), &report), lineage))
    }

    /// Begins a stream without the lock. It is a file that belongs to nobody until a
    /// [`RepositoryWriter`](super::RepositoryWriter) adds it; a prune leaves it alone until a day after
    /// its last write, or, where a store does not know that, after its first.
    ///
    /// # Errors
    /// What the store says.
    pub fn create(&self, kind: Kind, base: Lsn, last: Lsn) -> Result<NewStream, RepositoryError> {
        NewStream::begin(&**self.store(), kind, base, last)
    }
}

fn newest_base(entries: &[&Entry], lineage: &Lineage) -> Option<Position> {
    let whole = entries.iter().copied().filter(|entry| entry.stream.damage_count == 0);
    let chains = Chains::new(whole.clone());
    let branch = chains.branch(lineage)?;
    let reach = chains.search(branch, &[]);
    whole
        .filter(|entry| entry.is_snapshot() && entry.stream.lineage == *lineage)
        .filter(|entry| reach.has_base_of(branch, entry))
        .map(|entry| entry.stream.last)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::testing::{full, increment, lineage, records};

    #[test]
    fn only_a_state_that_can_be_restored_without_damage_is_a_base() {
        let main = lineage(0);
        let mut entries =
            vec![full(main, 10), increment(main, 10, 20), records(main, 20, 30), full(main, 40)];
        let base = |entries: &[Entry]| {
            let base = newest_base(&entries.iter().collect::<Vec<_>>(), &main);
            base.map(|base| base.lsn.0)
        };
        assert_eq!(base(&entries), Some(40));
        entries[3].stream.damage_count = 1;
        assert_eq!(base(&entries), Some(20));
        let on_damage = increment(main, 40, 50);
        entries.push(on_damage);
        assert_eq!(base(&entries), Some(20), "what builds on damage is damaged");
        entries.remove(0);
        assert_eq!(base(&entries), None, "nothing leads to it");
        assert_eq!(newest_base(&[], &main), None);
    }
}
