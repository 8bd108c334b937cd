//! Numbers of a client's requests, and which of them it is done with.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::super::message::RequestId;

/// Numbers of the requests of one client.
#[derive(Debug)]
pub struct Numbers {
    client: Option<[u8; 16]>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeSet<u64>,
}

impl Numbers {
    /// Numbers of this client; none are given where it wants none.
    pub fn new(client: Option<[u8; 16]>) -> Numbers {
        Numbers { client, state: Mutex::default() }
    }

    /// A number for one more request.
    pub fn begin(&self) -> Option<RequestId> {
        let client = self.client?;
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number);
        let settled = state.open.first().copied().unwrap_or(number);
        Some(RequestId { client, number, settled })
    }

    /// A request was answered, or given up.
    pub fn end(&self, number: u64) {
        self.state.lock().open.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_below_the_oldest_open_one_are_settled() {
        let numbers = Numbers::new(Some([7; 16]));
        let begin = || numbers.begin().map(|id| (id.number, id.settled)).expect("it wants numbers");
        assert_eq!([begin(), begin(), begin()], [(0, 0), (1, 0), (2, 0)]);
        numbers.end(1);
        assert_eq!(begin(), (3, 0));
        numbers.end(0);
        assert_eq!(begin(), (4, 2));
        for number in 2..=4 {
            numbers.end(number);
        }
        assert_eq!(begin(), (5, 5));
        assert_eq!(Numbers::new(None).begin(), None);
    }
}
