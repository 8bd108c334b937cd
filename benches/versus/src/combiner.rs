//! Puts of many threads in one transaction, for engines that do not merge transactions by
//! themselves: what an application would build around them.
//!
//! Callers put their requests into a bounded queue and sleep. One thread takes all that wait,
//! commits them as one transaction, and wakes each caller.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Thread},
};

use crate::{
    Result,
    engine::{Batch, Engine},
};

/// Requests that may wait; more than there are callers, each of which has one at a time.
const QUEUE_LEN_MAX: usize = 4096;

const WAITING: u8 = 0;
const DURABLE: u8 = 1;
const FAILED: u8 = 2;

/// The queue in front of the combining thread.
pub struct Combiner {
    queue: SyncSender<Request>,
}

/// One thread's access to the queue.
pub struct Caller {
    queue: SyncSender<Request>,
    outcome: Arc<Outcome>,
}

struct Outcome {
    thread: Thread,
    state: AtomicU8,
}

/// A put, whose caller wakes when it is dropped: with success if it was marked durable before.
struct Request {
    key: Vec<u8>,
    value: Vec<u8>,
    outcome: Arc<Outcome>,
}

impl Combiner {
    /// Runs `body` beside a thread that commits what its callers put.
    pub fn run<E: Engine, R>(engine: &E, body: impl FnOnce(&Combiner) -> Result<R>) -> Result<R> {
        let (queue, requests) = sync_channel(QUEUE_LEN_MAX);
        thread::scope(|scope| {
            let committer = scope.spawn(move || commit_all(engine, requests));
            let combiner = Combiner { queue };
            let result = body(&combiner);
            drop(combiner);
            committer.join().map_err(|_| "the combining thread panicked")??;
            result
        })
    }

    /// Access to the queue for the calling thread.
    pub fn caller(&self) -> Caller {
        let outcome = Outcome { thread: thread::current(), state: AtomicU8::new(WAITING) };
        Caller { queue: self.queue.clone(), outcome: Arc::new(outcome) }
    }
}

impl Caller {
    /// Puts an entry, and returns when it is durable.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.outcome.state.store(WAITING, Ordering::Relaxed);
        let outcome = Arc::clone(&self.outcome);
        let request = Request { key: key.to_vec(), value: value.to_vec(), outcome };
        self.queue.send(request).map_err(|_| "the combining thread has ended")?;
        loop {
            match self.outcome.state.load(Ordering::Acquire) {
                WAITING => thread::park(),
                DURABLE => return Ok(()),
                _ => return Err("the combined transaction failed".into()),
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let state = &self.outcome.state;
        let _ = state.compare_exchange(WAITING, FAILED, Ordering::Release, Ordering::Relaxed);
        self.outcome.thread.unpark();
    }
}

/// Commits whatever waits, until no caller is left. At the first error it ends, and what waits
/// fails with it.
fn commit_all<E: Engine>(engine: &E, queue: Receiver<Request>) -> Result<()> {
    let mut requests: Vec<Request> = Vec::new();
    while let Ok(first) = queue.recv() {
        requests.push(first);
        requests.extend(queue.try_iter().take(QUEUE_LEN_MAX));
        engine.write(|batch| requests.iter().try_for_each(|r| batch.put(&r.key, &r.value)))?;
        for request in requests.drain(..) {
            request.outcome.state.store(DURABLE, Ordering::Release);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn every_put_is_there_when_its_caller_wakes() {
        let memory = Memory::default();
        Combiner::run(&memory, |combiner| {
            thread::scope(|scope| {
                for thread in 0..8_u8 {
                    scope.spawn(move || {
                        let caller = combiner.caller();
                        for number in 0..100_u8 {
                            caller.put(&[thread, number], b"value").unwrap();
                        }
                    });
                }
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(memory.len(), 800);
        assert!(memory.commits() <= 800);
    }

    #[test]
    fn failed_transaction_fails_its_callers() {
        let memory = Memory::failing();
        let result = Combiner::run(&memory, |combiner| combiner.caller().put(b"key", b"value"));
        assert!(result.is_err());
    }
}
