//! The thread that accepts connections, and the threads that serve them.

use std::{
    net::{TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    PageStream,
    handshake::{meet, refuse},
    receiver,
    tcp::Shared,
};
use crate::wire::{Lane, Refusal};

/// How long nothing is accepted after the system could not: it has no more descriptors, say.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until the transport is stopped, which connects once more to end the waiting.
pub(super) fn run(shared: &Arc<Shared>, listener: &TcpListener) {
    for accepted in listener.incoming() {
        if shared.connections.is_stopped() {
            break;
        }
        match accepted {
            Ok(stream) => serve(shared, stream),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

fn serve(shared: &Arc<Shared>, stream: TcpStream) {
    let guard = Accepted::new(shared);
    if guard.count > shared.options.connections_max {
        // Nothing is said: whoever opens so many connections is not owed a thread.
        tracing::warn!(count = guard.count, "there are too many connections");
        return;
    }
    let inner = Arc::clone(shared);
    shared.spawn("treepie accepted", move || {
        let guard = guard;
        serve_one(&inner, stream);
        drop(guard);
    });
}

fn serve_one(shared: &Arc<Shared>, stream: TcpStream) {
    let from = stream.peer_addr().map_or_else(|error| error.to_string(), |at| at.to_string());
    let mut met = match meet(shared, stream) {
        Ok(met) => met,
        Err(error) => {
            if !shared.connections.is_stopped() {
                tracing::warn!(%from, %error, "a connection is not welcome");
            }
            return;
        }
    };
    tracing::debug!(%from, node = met.hello.from.0, lane = met.hello.lane.name(), "accepted");
    match met.hello.lane {
        Lane::Urgent | Lane::Bulk => receiver::run(shared, met),
        Lane::Pages => {
            let node = met.hello.from;
            let timeout = shared.options.idle_timeout;
            if met.reader.get_mut().set_timeouts(timeout, timeout).is_err() {
                return refuse(met.reader.get_mut(), Refusal::Stopping);
            }
            shared.handler.pages(PageStream::new(node, met));
        }
    }
}

/// One connection more.
struct Accepted {
    shared: Arc<Shared>,
    count: usize,
}

impl Accepted {
    fn new(shared: &Arc<Shared>) -> Accepted {
        let count = shared.accepted.fetch_add(1, Relaxed) + 1;
        Accepted { shared: Arc::clone(shared), count }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.shared.accepted.fetch_sub(1, Relaxed);
    }
}
