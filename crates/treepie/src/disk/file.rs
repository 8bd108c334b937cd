//! Real files.

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;
