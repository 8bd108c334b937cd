//! The threads of an open database: the checkpoint, the flusher, the scrub, and those of the merger.

use std::{sync::Arc, time::Duration};

use crate::{
    checkpoint,
    error::{Error, Result},
    sync::{
        Mutex, mpsc,
        thread::{self, JoinHandle},
    },
};

use super::{Shared, room::make_room};

/// Threads that lead what was submitted: while one waits for the disk, the other runs closures.
const MERGER_COUNT: usize = 2;

impl Shared {
    /// Starts the threads that an open database always has.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn start(
        self: &Arc<Self>,
        checkpoint_interval: Duration,
        sync_interval: Duration,
    ) -> Result<()> {
        if !self.core.bounds.background {
            return Ok(());
        }
        let (core, checkpointer) = (Arc::clone(&self.core), Arc::clone(&self.checkpointer));
        let checkpoint = self.spawn("treepie-checkpoint", move || {
            checkpoint::run(&core, &checkpointer, checkpoint_interval);
        })?;
        self.threads.lock().checkpoint = Some(checkpoint);
        let core = Arc::clone(&self.core);
        let flusher =
            self.spawn("treepie-flush", move || core.flusher.serve(&core, sync_interval))?;
        self.threads.lock().flusher = Some(flusher);
        Ok(())
    }

    /// Starts the thread that scrubs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn start_scrubs(&self, interval: Duration, rate: u64) -> Result<()> {
        if !self.core.bounds.background {
            return Ok(());
        }
        let (core, checkpointer) = (Arc::clone(&self.core), Arc::clone(&self.checkpointer));
        let scrubber = Arc::clone(&self.scrubber);
        let thread = self.spawn("treepie-scrub", move || {
            scrubber.serve(&core, &checkpointer, interval, rate);
        })?;
        self.threads.lock().scrubber = Some(thread);
        Ok(())
    }

    /// Starts the threads that lead what is submitted, with the first such write.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn start_mergers(&self) -> Result<()> {
        if !self.core.bounds.background || self.core.merger.is_served() {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        while threads.mergers.len() < MERGER_COUNT {
            let (core, checkpointer) = (Arc::clone(&self.core), Arc::clone(&self.checkpointer));
            let thread = self.spawn("treepie-merge", move || {
                core.merger.serve(&core, &|| make_room(&core, &checkpointer));
            })?;
            threads.mergers.push(thread);
        }
        self.core.merger.set_served();
        Ok(())
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(Error::io("start a thread for", &self.core.path))
    }

    /// Whether this is one of the merger's threads: it runs closures, and they may hold the last
    /// handle. It cannot wait for its own end.
    pub(super) fn is_own_thread(&self) -> bool {
        let own = thread::current().id();
        self.threads.lock().mergers.iter().any(|merger| merger.thread().id() == own)
    }

    /// Ends the database on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Io`]: then it stays as it is, and locked.
    pub(super) fn end_elsewhere(&mut self) -> Result<()> {
        let (sender, receiver) = mpsc::channel::<Shared>();
        self.spawn("treepie-close", move || drop(receiver.recv()))?;
        let shared = Shared {
            core: Arc::clone(&self.core),
            checkpointer: Arc::clone(&self.checkpointer),
            scrubber: Arc::clone(&self.scrubber),
            threads: Mutex::new(std::mem::take(&mut *self.threads.lock())),
            checkpoint_on_close: self.checkpoint_on_close,
        };
        sender.send(shared).expect("the thread waits for it");
        Ok(())
    }

    /// Stops the threads, after what was submitted is done. Returns whether that was to be done.
    pub(super) fn stop(&self) -> bool {
        let mut threads = self.threads.lock();
        if std::mem::replace(&mut threads.stopped, true) {
            return false;
        }
        self.scrubber.stop();
        threads.scrubber.take().into_iter().for_each(|thread| join(thread, "scrub"));
        self.core.merger.stop();
        let mergers = std::mem::take(&mut threads.mergers);
        mergers.into_iter().for_each(|thread| join(thread, "merger"));
        self.core.flusher.stop();
        threads.flusher.take().into_iter().for_each(|thread| join(thread, "flush"));
        self.core.signals.stop();
        threads.checkpoint.take().into_iter().for_each(|thread| join(thread, "checkpoint"));
        true
    }
}

fn join(thread: JoinHandle<()>, name: &'static str) {
    if thread.join().is_err() {
        tracing::error!(name, "a thread of the database had panicked");
    }
}
