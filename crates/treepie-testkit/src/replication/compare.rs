//! Operations of the model in a transaction, and what they lead to in a snapshot.

use std::sync::Arc;

use treepie::{Error, Snapshot, WriteTxn};

use crate::{
    model::{Model, State},
    workload::Op,
};

/// Does in a transaction what the model does.
pub(super) fn apply(tx: &mut WriteTxn<'_>, ops: &[Op]) -> treepie::Result<()> {
    for op in ops {
        match op {
            Op::CreateTree { tree } => {
                tx.tree(tree)?;
            }
            Op::DropTree { tree } => {
                tx.drop_tree(tree)?;
            }
            Op::Clear { tree } => tx.tree(tree)?.clear()?,
            Op::Insert { tree, key, value } => {
                tx.tree(tree)?.insert(key, value)?;
            }
            Op::Remove { tree, key } => {
                tx.tree(tree)?.remove(key)?;
            }
        }
    }
    Ok(())
}

/// Compares a snapshot with what the model has at its LSN, trees of the engine aside.
pub(super) fn compare(snapshot: &Snapshot, model: &Model) -> Result<(), String> {
    let text = |error: Error| error.to_string();
    let lsn = snapshot.lsn();
    let expected = model.at(lsn.0).ok_or_else(|| format!("the model has no LSN {lsn}"))?;
    let mut found = State::default();
    for info in snapshot.trees().map_err(text)? {
        if info.name.starts_with(b"$") {
            continue;
        }
        let tree = snapshot.tree(&info.name).map_err(text)?;
        let entries = tree.iter().map(|entry| {
            let (key, value) = entry?;
            Ok((key.to_vec(), Arc::from(value)))
        });
        let entries = entries.collect::<treepie::Result<_>>().map_err(text)?;
        found.set_tree(&info.name, entries);
    }
    match found.difference(expected) {
        Some(what) => Err(format!("LSN {lsn}: {what}")),
        None => Ok(()),
    }
}
