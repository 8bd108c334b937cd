//! The transport over real sockets of this machine: what comes, who is refused, what a connection that
//! is cut, silent or damaged does, and that nothing waits for the wrong thing.

mod connections;
mod damage;
mod harness;
mod messages;
mod pages;
mod proxy;
mod refusals;
#[cfg(feature = "tls")]
mod tls;
