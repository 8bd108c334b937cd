//! Large tables of atomics that begin as zeros and take memory only where they are touched.
//!
//! The allocator cannot promise that: once it has freed a block of some megabytes it hands such
//! sizes out of its heap, and fills them with zeros byte by byte, at every opening of a database.

#![allow(unsafe_code, reason = "a slice of an anonymous map")]

use std::{io, ops::Deref, sync::atomic::AtomicU64};

use memmap2::MmapMut;

use crate::sync::atomic::AtomicPtr;

/// What zeros are a valid value of; implemented here alone.
pub trait Zeros {}
impl<T> Zeros for AtomicPtr<T> {}
impl Zeros for AtomicU64 {}

/// A slice of zeros, at first.
#[derive(Debug)]
pub struct ZeroedSlice<T: Zeros + 'static> {
    /// Lives as long as `map`, which is why nobody gets it but by `deref`.
    items: &'static [T],
    _map: MmapMut,
}

impl<T: Zeros> ZeroedSlice<T> {
    /// `len` items.
    ///
    /// # Errors
    /// What the operating system says when no address space is left.
    pub fn new(len: usize) -> io::Result<ZeroedSlice<T>> {
        let mut map = MmapMut::map_anon((len * size_of::<T>()).max(1))?;
        assert!(align_of::<T>() <= 4096, "maps begin at a page of the machine");
        // SAFETY: the map is zeroed, aligned, and long enough; zeros are a `T`, by `Zeros`; nobody
        // else has the address, and `deref` lends the slice for no longer than `self` lives.
        let items = unsafe { std::slice::from_raw_parts(map.as_mut_ptr().cast::<T>(), len) };
        Ok(ZeroedSlice { items, _map: map })
    }
}

impl<T: Zeros> Deref for ZeroedSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn items_begin_as_zeros_and_keep_what_is_stored() {
        let slice = ZeroedSlice::<AtomicU64>::new(100_000).expect("address space");
        assert_eq!(slice.len(), 100_000);
        assert!(slice.iter().all(|item| item.load(Relaxed) == 0));
        slice[99_999].store(7, Relaxed);
        assert_eq!(slice[99_999].load(Relaxed), 7);
    }
}
