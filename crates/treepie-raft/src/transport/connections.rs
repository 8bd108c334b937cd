//! The sockets that are open, so that they can be closed from outside: a thread that waits in a read or
//! in a write sees its end at once.

use std::{
    collections::HashMap,
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use parking_lot::Mutex;

use super::TransportError;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u64, TcpStream>,
    next: u64,
    is_stopped: bool,
}

/// One of them is open as long as this is held.
#[derive(Debug)]
pub(super) struct Connection {
    all: Arc<Connections>,
    number: u64,
}

impl Connections {
    /// Takes a socket in.
    ///
    /// # Errors
    /// The transport was stopped, or the system has no more descriptors.
    pub(super) fn add(self: &Arc<Self>, socket: &TcpStream) -> Result<Connection, TransportError> {
        let socket = socket.try_clone()?;
        let mut state = self.state.lock();
        if state.is_stopped {
            return Err(TransportError::Stopped);
        }
        state.next += 1;
        let number = state.next;
        state.open.insert(number, socket);
        Ok(Connection { all: Arc::clone(self), number })
    }

    /// Ends one.
    pub(super) fn shut_down(&self, number: u64) {
        if let Some(socket) = self.state.lock().open.get(&number) {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends all of them, and takes no more in.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        for socket in state.open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }
}

impl Connection {
    /// Ends it.
    pub(super) fn shut_down(&self) {
        self.all.shut_down(self.number);
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.state.lock().open.remove(&self.number);
    }
}
