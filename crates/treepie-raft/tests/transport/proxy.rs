//! A network in the way: it passes bytes on, cuts connections, is silent, or flips bits.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};

/// Connections to one node go through here.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    target: String,
    open: Vec<TcpStream>,
    is_silent: bool,
    /// So many bytes further on, one bit is flipped.
    flip: Option<(u64, u8)>,
    passed: u64,
    is_stopped: bool,
}

impl Proxy {
    pub fn new(target: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = State { target: target.to_owned(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let inner = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || inner.accept(&listener)));
        Proxy { address, shared, accepting }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Connections go elsewhere from now on.
    pub fn set_target(&self, target: &str) {
        target.clone_into(&mut self.shared.state.lock().target);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for stream in self.shared.state.lock().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes bytes, and passes none on; or does again. What was held back is lost.
    pub fn set_silent(&self, is_silent: bool) {
        self.shared.state.lock().is_silent = is_silent;
        self.shared.changed.notify_all();
    }

    /// Flips a bit of the byte that is so many bytes further on, on its way to the target.
    pub fn flip(&self, after: u64, bit: u8) {
        self.shared.state.lock().flip = Some((after, bit));
    }

    /// Whether that is still to be done.
    pub fn is_to_flip(&self) -> bool {
        self.shared.state.lock().flip.is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state.lock().is_stopped = true;
        self.shared.changed.notify_all();
        self.cut();
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming().flatten() {
            let mut state = self.state.lock();
            if state.is_stopped {
                break;
            }
            let Ok(target) = TcpStream::connect(&state.target) else { continue };
            for (from, to, is_forth) in [(&stream, &target, true), (&target, &stream, false)] {
                let from = from.try_clone().expect("a descriptor");
                let to = to.try_clone().expect("a descriptor");
                let _ = from.set_nodelay(true);
                let inner = Arc::clone(self);
                state.open.push(from.try_clone().expect("a descriptor"));
                thread::spawn(move || inner.pass(from, to, is_forth));
            }
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, is_forth: bool) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let mut state = self.state.lock();
            while state.is_silent && !state.is_stopped {
                self.changed.wait(&mut state);
            }
            if is_forth {
                state.flip_in(&mut buffer[..count]);
            }
            drop(state);
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

impl State {
    fn flip_in(&mut self, bytes: &mut [u8]) {
        self.passed += bytes.len() as u64;
        let Some((after, bit)) = &mut self.flip else { return };
        match usize::try_from(*after).ok().and_then(|at| bytes.get_mut(at)) {
            Some(byte) => {
                *byte ^= 1 << (*bit % 8);
                self.flip = None;
            }
            None => *after -= bytes.len() as u64,
        }
    }
}
