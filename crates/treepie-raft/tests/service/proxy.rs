//! A proxy between client and server that cuts connections where a test says.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

/// After how many bytes a connection is cut, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// From the client to the server.
    pub up: usize,
    /// From the server to the client.
    pub down: usize,
}

/// A proxy. Connections for which there is no cut are left alone.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    cuts: Mutex<VecDeque<Cut>>,
    open: Mutex<Vec<TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stopping: AtomicBool,
}

impl Proxy {
    pub fn new(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            cuts: Mutex::default(),
            open: Mutex::default(),
            threads: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || accepting.accept(&listener)));
        Proxy { address, shared, accepting }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The next connection is cut so, or the one after those that have cuts already.
    pub fn cut(&self, cut: Cut) {
        self.shared.cuts.lock().push_back(cut);
    }

    /// New connections go there.
    pub fn redirect(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Cuts all connections.
    pub fn cut_all(&self) {
        for stream in self.shared.open.lock().drain(..) {
            // It fails where the connection has ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopping.load(SeqCst) {
                return;
            }
            let client = client.unwrap();
            let target = *self.target.lock();
            // Nobody there: the client sees a connection that ends at once.
            let Ok(server) = TcpStream::connect(target) else { continue };
            let cut = self.cuts.lock().pop_front();
            let cut = cut.unwrap_or(Cut { up: usize::MAX, down: usize::MAX });
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
                self.open.lock().push(stream.try_clone().unwrap());
            }
            let both = [(&client, &server, cut.up), (&server, &client, cut.down)];
            for (from, to, max) in both {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let thread = thread::spawn(move || forward(from, to, max));
                self.threads.lock().push(thread);
            }
        }
    }
}

/// Forwards `max` bytes, and cuts both connections then, or when either ends.
fn forward(mut from: TcpStream, mut to: TcpStream, max: usize) {
    let mut buffer = [0; 4096];
    let mut left = max;
    while left > 0 {
        let len = left.min(buffer.len());
        match from.read(&mut buffer[..len]) {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                left -= count;
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
    }
    for stream in [from, to] {
        // It fails where the other direction was first.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        self.cut_all();
        // It waits for a connection; this is one.
        drop(TcpStream::connect(self.address));
        self.accepting.take().unwrap().join().unwrap();
        self.cut_all();
        for thread in self.shared.threads.lock().drain(..) {
            thread.join().unwrap();
        }
    }
}
