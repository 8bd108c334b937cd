//! Which databases this thread is writing to, so that a write inside a write is an error and not a
//! deadlock.

use std::cell::Cell;

use crate::{
    error::{Error, Result},
    sync::thread_local,
};

use super::core::Core;

thread_local! {
    /// Addresses of the cores that this thread writes to; nearly always none or one.
    static WRITING: Cell<[usize; 4]> = const { Cell::new([0; 4]) };
}

/// Notes that this thread writes to `core`.
///
/// # Errors
/// [`Error::Reentrant`], [`Error::Bound`].
pub fn enter(core: &Core) -> Result<()> {
    let address = std::ptr::from_ref(core).addr();
    let mut writing = WRITING.with(Cell::get);
    if writing.contains(&address) {
        return Err(Error::Reentrant);
    }
    let place = writing.iter_mut().find(|place| **place == 0).ok_or(Error::Bound {
        option: "write transactions of one thread",
        max: 4,
        hint: "end one of them first",
    })?;
    *place = address;
    WRITING.with(|cell| cell.set(writing));
    Ok(())
}

/// Notes that it does so no longer.
pub fn leave(core: &Core) {
    let address = std::ptr::from_ref(core).addr();
    WRITING.with(|writing| {
        writing.set(writing.get().map(|place| if place == address { 0 } else { place }));
    });
}

/// Whether this thread is inside a write transaction of `core`.
pub fn is_writing(core: &Core) -> bool {
    is_writing_at(std::ptr::from_ref(core).addr())
}

/// The same for the core at this address.
pub fn is_writing_at(address: usize) -> bool {
    WRITING.with(Cell::get).contains(&address)
}
