//! Where a client asks next: the nodes that it knows of, and connections to them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    super::refusal::Leader,
    ClientError, ClientOptions,
    link::{Dialed, Link},
};

/// Addresses that are learned from redirects, at most, beside those that were given.
const LEARNED_MAX: usize = 32;
/// The first pause after all nodes were asked in vain, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Where a client asks.
#[derive(Debug)]
pub struct Routes {
    state: Mutex<State>,
    /// A leader was found, or a connection made.
    changed: Condvar,
    /// One thread dials at a time.
    dialing: Mutex<()>,
    given: usize,
}

#[derive(Debug)]
struct State {
    addresses: Vec<String>,
    current: usize,
    links: HashMap<String, Arc<Link>>,
}

/// A connection, and to where.
#[derive(Clone, Debug)]
pub struct Route {
    pub address: String,
    pub link: Arc<Link>,
}

/// How often was asked in vain, for longer and longer pauses.
#[derive(Debug, Default)]
pub struct Attempts {
    count: u32,
}

impl Routes {
    pub fn new(addresses: Vec<String>) -> Routes {
        let given = addresses.len();
        let state = State { addresses, current: 0, links: HashMap::new() };
        Routes { state: Mutex::new(state), changed: Condvar::new(), dialing: Mutex::new(()), given }
    }

    /// A connection to the node that is asked now; another one is tried when that one cannot be reached.
    pub fn link(
        &self,
        options: &ClientOptions,
        attempts: &mut Attempts,
        until: Instant,
    ) -> Result<Route, ClientError> {
        let mut last = String::from("there was no time to try");
        loop {
            if let Some(route) = self.known() {
                return Ok(route);
            }
            if Instant::now() >= until {
                return Err(ClientError::Unreachable { waited: options.timeout, last });
            }
            match self.dial(options) {
                Ok(route) => return Ok(route),
                Err((address, Dialed::Address(what))) => {
                    return Err(ClientError::Address { address, what });
                }
                Err((address, Dialed::Refused(refusal))) => {
                    last = format!("{address}: {refusal}");
                    self.pass(&address);
                }
                Err((address, Dialed::Failed(why))) => {
                    last = why;
                    self.pass(&address);
                }
            }
            self.pause(attempts, until);
        }
    }

    fn known(&self) -> Option<Route> {
        let state = self.state.lock();
        let address = &state.addresses[state.current];
        let link = state.links.get(address).filter(|link| !link.is_lost())?;
        Some(Route { address: address.clone(), link: Arc::clone(link) })
    }

    fn dial(&self, options: &ClientOptions) -> Result<Route, (String, Dialed)> {
        let _turn = self.dialing.lock();
        // Whoever had the turn before may have done it.
        if let Some(route) = self.known() {
            return Ok(route);
        }
        let address = {
            let state = self.state.lock();
            state.addresses[state.current].clone()
        };
        match Link::dial(&address, options) {
            Ok(link) => {
                let link = Arc::new(link);
                let before = self.state.lock().links.insert(address.clone(), Arc::clone(&link));
                self.changed.notify_all();
                // Its thread is waited for, which may want to look here.
                drop(before);
                Ok(Route { address, link })
            }
            Err(dialed) => Err((address, dialed)),
        }
    }

    /// The node at this address cannot do it: ask the next one, unless somebody else has moved on.
    pub fn pass(&self, address: &str) {
        let mut state = self.state.lock();
        if state.addresses[state.current] == address {
            state.current = (state.current + 1) % state.addresses.len();
        }
    }

    /// The node at `from` has said who leads. Returns whether that helps.
    pub fn redirect(&self, from: &str, leader: Option<&Leader>) -> bool {
        let Some(leader) = leader.filter(|leader| !leader.address.is_empty()) else {
            self.pass(from);
            return false;
        };
        let mut state = self.state.lock();
        let known = state.addresses.iter().position(|address| *address == leader.address);
        let index = known.unwrap_or_else(|| {
            if state.addresses.len() >= self.given + LEARNED_MAX {
                // The oldest that was learned goes, and its connection with it.
                let old = state.addresses.remove(self.given);
                state.links.remove(&old);
            }
            state.addresses.push(leader.address.clone());
            state.addresses.len() - 1
        });
        state.current = index;
        drop(state);
        self.changed.notify_all();
        leader.address != from
    }

    /// Waits a moment, until somebody else has got further at the latest.
    pub fn pause(&self, attempts: &mut Attempts, until: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << attempts.count.min(8)).min(PAUSE_MAX);
        attempts.count += 1;
        let until = until.min(Instant::now() + pause);
        let mut state = self.state.lock();
        let _ = self.changed.wait_until(&mut state, until);
    }
}
