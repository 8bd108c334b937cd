//! Requests ↔ trees: queries on a snapshot, and writes in a transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use treepie::{Error, Result, Snapshot, WriteTxn};

use super::{
    message::{
        Condition, ENTRIES_MAX, Effect, FOUND_LEN_MAX, FRAME_LEN_MAX, Found, OPERATIONS_MAX,
        OUTCOME_LEN_MAX, Operation, Outcome, PAGE_LEN_MAX, Page, Query, Scan, Unmet, Write,
    },
    refusal::Refusal,
    requests::{self, Once, Sweep, once},
};
use crate::wire::codec;

/// Bytes of a response beside a value or a page, at most.
const FRAME_SPARE: usize = 1024;

/// Looks into a snapshot.
///
/// # Errors
/// [`Refusal::NoTree`], [`Refusal::TooLarge`], [`Refusal::Fault`].
pub fn look(snapshot: &Snapshot, query: &Query) -> Result<Found, Refusal> {
    match query {
        Query::Get { tree, key } => {
            hide(tree).map_err(|_| Refusal::NoTree { name: tree.clone() })?;
            let value = snapshot.tree(tree)?.get(key)?;
            value.map_or(Ok(()), |value| fits(value.len()))?;
            Ok(Found::Value(value.map(<[u8]>::to_vec)))
        }
        Query::Scan(scan) => page(snapshot, scan).map(Found::Page),
    }
}

fn page(snapshot: &Snapshot, scan: &Scan) -> Result<Page, Refusal> {
    hide(&scan.tree).map_err(|_| Refusal::NoTree { name: scan.tree.clone() })?;
    let mut entries = snapshot.tree(&scan.tree)?.range((scan.from.clone(), scan.to.clone()));
    let entries_max = scan.entries_max.clamp(1, ENTRIES_MAX) as usize;
    let bytes_max = scan.bytes_max.min(PAGE_LEN_MAX) as usize;
    let (mut page, mut len) = (Page::default(), 0);
    loop {
        let next = if scan.reverse { entries.next_back() } else { entries.next() };
        let Some(entry) = next else { return Ok(page) };
        let (key, value) = entry?;
        len += key.len() + value.len();
        let is_full = page.entries.len() == entries_max || len > bytes_max;
        if is_full && !page.entries.is_empty() {
            page.has_more = true;
            return Ok(page);
        }
        fits(len)?;
        page.entries.push((key.to_vec(), value.to_vec()));
    }
}

fn fits(len: usize) -> Result<(), Refusal> {
    let max = FRAME_LEN_MAX - FRAME_SPARE;
    if len > max { Err(Refusal::TooLarge { len: len as u64, max: max as u64 }) } else { Ok(()) }
}

/// Refuses the tree that is the service's own.
fn hide(tree: &[u8]) -> Result<(), Refusal> {
    if tree == requests::TREE {
        return Err(Refusal::Invalid("this tree belongs to the service".to_owned()));
    }
    Ok(())
}

/// Runs a transaction, once where it has a request id. Says whether it was done before.
///
/// # Errors
/// A [`Refusal`], wrapped, and those of trees: nothing was changed.
pub fn change(txn: &mut WriteTxn<'_>, write: &Write, sweep: &Sweep) -> Result<(Outcome, bool)> {
    if write.operations.len() + write.conditions.len() > OPERATIONS_MAX {
        let what = format!("a transaction has at most {OPERATIONS_MAX} operations and conditions");
        return Err(Refusal::Invalid(what).into());
    }
    let Some(request) = &write.request else {
        let outcome = run(txn, write)?;
        encoded(&outcome)?;
        return Ok((outcome, false));
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let mut outcome = None;
    let once = once(txn, request, (sweep, now_ms), |txn| {
        let done = run(txn, write)?;
        let bytes = encoded(&done)?;
        outcome = Some(done);
        Ok(bytes)
    })?;
    match (once, outcome) {
        (Once::Done(_), Some(outcome)) => Ok((outcome, false)),
        (Once::Done(bytes) | Once::Repeated(bytes), _) => match codec::decode(&bytes) {
            Ok(outcome) => Ok((outcome, true)),
            Err(error) => {
                let what = format!("the outcome that was kept of this request is damaged: {error}");
                Err(Refusal::Fault(what).into())
            }
        },
    }
}

fn encoded(outcome: &Outcome) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let max = OUTCOME_LEN_MAX;
    match codec::encode(outcome, &mut bytes) {
        Ok(()) if bytes.len() <= max => Ok(bytes),
        _ => Err(Refusal::TooLarge { len: bytes.len() as u64, max: max as u64 }.into()),
    }
}

fn run(txn: &mut WriteTxn<'_>, write: &Write) -> Result<Outcome> {
    for (index, condition) in write.conditions.iter().enumerate() {
        if let Some(mut unmet) = unmet(txn, condition)? {
            unmet.index = u32::try_from(index).unwrap_or(u32::MAX);
            return Ok(Outcome::Unmet(unmet));
        }
    }
    let mut effects = Vec::with_capacity(write.operations.len());
    let mut found_len = 0;
    for operation in &write.operations {
        let effect = operate(txn, operation)?;
        if let Effect::Value(Some(value)) = &effect {
            found_len += value.len();
        }
        // Before the next value is copied: what cannot be sent is not gathered.
        if found_len > OUTCOME_LEN_MAX {
            let (len, max) = (found_len as u64, OUTCOME_LEN_MAX as u64);
            return Err(Refusal::TooLarge { len, max }.into());
        }
        effects.push(effect);
    }
    Ok(Outcome::Done(effects))
}

fn unmet(txn: &mut WriteTxn<'_>, condition: &Condition) -> Result<Option<Unmet>> {
    hide(&condition.tree)?;
    let tree = match txn.existing_tree(&condition.tree) {
        Ok(tree) => Some(tree),
        Err(Error::UnknownTree { .. }) => None,
        Err(error) => return Err(error),
    };
    let value = match &tree {
        Some(tree) => tree.get(&condition.key)?,
        None => None,
    };
    if value == condition.value.as_deref() {
        return Ok(None);
    }
    let found = value.filter(|value| value.len() <= FOUND_LEN_MAX).map(<[u8]>::to_vec);
    Ok(Some(Unmet { index: 0, exists: value.is_some(), found }))
}

fn operate(txn: &mut WriteTxn<'_>, operation: &Operation) -> Result<Effect> {
    let (Operation::Put { tree, .. }
    | Operation::Delete { tree, .. }
    | Operation::Get { tree, .. }
    | Operation::DeleteRange { tree, .. }) = operation;
    hide(tree)?;
    if let Operation::Put { tree, key, value } = operation {
        return Ok(Effect::Put(txn.tree(tree)?.insert(key, value)?));
    }
    // Where there is no tree there is nothing to remove or to read, and none is made.
    let mut tree = match txn.existing_tree(tree) {
        Ok(tree) => Some(tree),
        Err(Error::UnknownTree { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(match (operation, &mut tree) {
        (Operation::Get { key, .. }, Some(tree)) => {
            Effect::Value(tree.get(key)?.map(<[u8]>::to_vec))
        }
        (Operation::Get { .. }, None) => Effect::Value(None),
        (Operation::DeleteRange { from, to, .. }, Some(tree)) => {
            Effect::DeletedRange(tree.remove_range((from.clone(), to.clone()))?)
        }
        (Operation::DeleteRange { .. }, None) => Effect::DeletedRange(0),
        (Operation::Delete { key, .. }, Some(tree)) => Effect::Deleted(tree.remove(key)?),
        (Operation::Delete { .. } | Operation::Put { .. }, _) => Effect::Deleted(false),
    })
}
