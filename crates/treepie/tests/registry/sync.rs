//! What the registry takes from the engine's `sync`, on top of loom: all orders of its operations
//! are gone through, and all values that a weak memory may show it.
//!
//! Loom takes a sequentially consistent operation for an acquiring and releasing one, which it is
//! more than; its fences are whole. So each such operation stands between two fences here.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub use parking_lot::Mutex as LeafMutex;

/// Bugs that are planted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A new reader does not look at the visible LSN a second time: the engine's own bug.
    OneLook,
    /// A new reader does not tell the writer that it is there: the engine's own bug too.
    QuietReader,
    /// A version is changed in place by a writer that has not looked for readers after hiding it.
    TakenUnseen,
    /// No operation is sequentially consistent.
    WeakOrder,
    /// An epoch is closed before what was in it is taken out.
    EpochClosedEarly,
    /// Whoever takes something out does not ask who needs it.
    NobodyAsked,
}

static PLANTED: AtomicU8 = AtomicU8::new(u8::MAX);

/// Whether a bug is planted.
pub fn is_planted(bug: Planted) -> bool {
    PLANTED.load(Relaxed) == bug as u8
}

/// Plants a bug, or none.
pub fn plant(bug: Option<Planted>) {
    PLANTED.store(bug.map_or(u8::MAX, |bug| bug as u8), Relaxed);
}

/// A thread-local value of loom's threads.
macro_rules! local {
    ($(#[$attribute:meta])* static $name:ident: $kind:ty = const { $value:expr };) => {
        loom::thread_local! { $(#[$attribute])* static $name: $kind = $value; }
    };
}
pub(crate) use local as thread_local;

pub mod atomic {
    //! Atomics of loom.

    use loom::sync::atomic as weak;

    pub use loom::sync::atomic::{Ordering, fence};

    use super::{Planted, is_planted};

    /// Runs an operation between two fences, where its order asks for that.
    fn ordered<T>(order: Ordering, operation: impl FnOnce() -> T) -> T {
        let is_fenced = order == Ordering::SeqCst && !is_planted(Planted::WeakOrder);
        if is_fenced {
            fence(Ordering::SeqCst);
        }
        let result = operation();
        if is_fenced {
            fence(Ordering::SeqCst);
        }
        result
    }

    macro_rules! number {
        ($name:ident, $number:ty) => {
            /// As the one of the standard library.
            #[derive(Debug)]
            pub struct $name(weak::$name);

            #[allow(dead_code, reason = "one face for all")]
            impl $name {
                pub fn new(value: $number) -> $name {
                    $name(weak::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $number {
                    ordered(order, || self.0.load(order))
                }

                pub fn store(&self, value: $number, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub fn swap(&self, value: $number, order: Ordering) -> $number {
                    ordered(order, || self.0.swap(value, order))
                }

                pub fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    ordered(order, || self.0.fetch_add(value, order))
                }

                pub fn fetch_sub(&self, value: $number, order: Ordering) -> $number {
                    ordered(order, || self.0.fetch_sub(value, order))
                }

                pub fn fetch_max(&self, value: $number, order: Ordering) -> $number {
                    ordered(order, || self.0.fetch_max(value, order))
                }

                pub fn fetch_min(&self, value: $number, order: Ordering) -> $number {
                    ordered(order, || self.0.fetch_min(value, order))
                }

                pub fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    ordered(success, || self.0.compare_exchange(current, new, success, failure))
                }
            }
        };
    }

    number!(AtomicU32, u32);
    number!(AtomicU64, u64);
    number!(AtomicUsize, usize);
}
