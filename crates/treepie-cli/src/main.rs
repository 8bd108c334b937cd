//! The `treepie` command.

#[allow(dead_code, reason = "the demonstration reads the table; its tests already do")]
mod unicode;

fn main() {}
