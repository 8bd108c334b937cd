//! The service over real sockets on loopback: requests, redirects, cut connections, hostile bytes, bounds.
#![allow(clippy::unwrap_used, reason = "a test that meets an unexpected `None` stops right there")]

#[path = "service/bounds.rs"]
mod bounds;
#[path = "service/cuts.rs"]
mod cuts;
#[path = "service/hostile.rs"]
mod hostile;
#[path = "service/proxy.rs"]
mod proxy;
#[path = "service/redirects.rs"]
mod redirects;
#[path = "service/requests.rs"]
mod requests;
#[path = "service/serving.rs"]
mod serving;
#[cfg(feature = "tls")]
#[path = "service/tls.rs"]
mod tls;
