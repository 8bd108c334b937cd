//! The `treepie` command.
fn main() {}
