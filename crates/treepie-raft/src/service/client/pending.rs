//! A request on its way: sent once, and again where that is safe, until there is an answer or the time
//! is up. All of that happens on the thread that waits for it.

use std::{fmt, marker::PhantomData, sync::Arc, time::Instant};

use super::{
    super::{
        message::{Answer, Call},
        refusal::Refusal,
    },
    ClientError, Shared,
    link::{NotSent, Reply, Slot},
    routes::{Attempts, Route},
};

/// A request that was sent, and can be waited for. What has to be sent again is sent by
/// [`wait`](Pending::wait). Dropped before, it may be done or not.
#[must_use = "whether it was done is known only to who waits for it"]
pub struct Pending<T> {
    task: Task,
    convert: fn(Answer) -> Option<T>,
    value: PhantomData<fn() -> T>,
}

impl<T> Pending<T> {
    pub(super) fn new(
        shared: &Arc<Shared>,
        call: Call,
        convert: fn(Answer) -> Option<T>,
    ) -> Result<Pending<T>, ClientError> {
        let mut task = Task::new(shared, call);
        task.send()?;
        Ok(Pending { task, convert, value: PhantomData })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`] says whether anything was done.
    pub fn wait(self) -> Result<T, ClientError> {
        let answer = self.task.finish()?;
        (self.convert)(answer).ok_or(ClientError::Answer)
    }

    /// Whether there is an answer, or news: waiting would not wait for the first one.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.task.sent.as_ref().is_none_or(|(route, slot)| route.link.is_done(slot))
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_done", &self.is_done()).finish()
    }
}

/// A request, with what is known of it.
struct Task {
    shared: Arc<Shared>,
    call: Call,
    until: Instant,
    sent: Option<(Route, Arc<Slot>)>,
    attempts: Attempts,
    /// Why it may have been done already, if it may.
    doubt: Option<String>,
}

impl Task {
    fn new(shared: &Arc<Shared>, mut call: Call) -> Task {
        if let Call::Write(write) = &mut call {
            write.request = shared.numbers.begin();
        }
        let until = Instant::now() + shared.options.timeout;
        let attempts = Attempts::default();
        Task { shared: Arc::clone(shared), call, until, sent: None, attempts, doubt: None }
    }

    /// Whether doing it again does no harm, and gives the answer of the first time.
    fn is_repeatable(&self) -> bool {
        match &self.call {
            Call::Write(write) => write.request.is_some(),
            call => !call.changes(),
        }
    }

    fn send(&mut self) -> Result<(), ClientError> {
        loop {
            let route = self
                .shared
                .routes
                .link(&self.shared.options, &mut self.attempts, self.until)
                .map_err(|error| self.doubted(error))?;
            match route.link.send(&self.call, self.until) {
                Ok(slot) => {
                    self.sent = Some((route, slot));
                    return Ok(());
                }
                // The next one is dialed.
                Err(NotSent::Lost) => {}
                Err(NotSent::Invalid(error)) => return Err(ClientError::TooLarge(error)),
                Err(NotSent::Timeout) => {
                    let last = "there was no room for one more request".to_owned();
                    let waited = self.shared.options.timeout;
                    return Err(self.doubted(ClientError::Unreachable { waited, last }));
                }
            }
        }
    }

    /// An error that says that nothing was done, unless that is in doubt.
    fn doubted(&mut self, error: ClientError) -> ClientError {
        match self.doubt.take() {
            Some(why) if self.call.changes() => ClientError::OutcomeUnknown { why },
            _ => error,
        }
    }

    fn finish(mut self) -> Result<Answer, ClientError> {
        loop {
            if self.sent.is_none() {
                self.send()?;
            }
            let (route, slot) = self.sent.take().expect("it was sent above, or before");
            match route.link.wait(&slot, self.until) {
                Some(Reply::Response(Ok(answer))) => return Ok(answer),
                Some(Reply::Response(Err(refusal))) => self.refused(&route, refusal)?,
                Some(Reply::Lost(why)) => self.lost(why)?,
                None => {
                    let waited = self.shared.options.timeout;
                    let last = format!("{} has not answered in time", route.address);
                    self.doubt.get_or_insert_with(|| last.clone());
                    return Err(self.doubted(ClientError::Unreachable { waited, last }));
                }
            }
        }
    }

    /// The connection was lost while it was on its way.
    fn lost(&mut self, why: String) -> Result<(), ClientError> {
        self.doubt = Some(why);
        if self.is_repeatable() { Ok(()) } else { Err(self.doubted(ClientError::Answer)) }
    }

    /// Whether it is worth asking again, and where.
    fn refused(&mut self, route: &Route, refusal: Refusal) -> Result<(), ClientError> {
        let routes = &self.shared.routes;
        match refusal {
            Refusal::NotLeader { leader } => {
                if !routes.redirect(&route.address, leader.as_ref()) {
                    routes.pause(&mut self.attempts, self.until);
                }
            }
            Refusal::Busy(_) => routes.pause(&mut self.attempts, self.until),
            Refusal::Stopping => {
                routes.pass(&route.address);
                routes.pause(&mut self.attempts, self.until);
            }
            Refusal::Unknown { lsn } => {
                self.doubt =
                    Some(format!("the leader has changed, or its disk failed, at LSN {lsn}"));
                if !self.is_repeatable() {
                    return Err(self.doubted(ClientError::Answer));
                }
                routes.pass(&route.address);
                routes.pause(&mut self.attempts, self.until);
            }
            refusal => return Err(self.doubted(ClientError::Refused(refusal))),
        }
        if Instant::now() >= self.until {
            let waited = self.shared.options.timeout;
            let last = format!("{} cannot do it now", route.address);
            return Err(self.doubted(ClientError::Unreachable { waited, last }));
        }
        Ok(())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Call::Write(write) = &self.call
            && let Some(request) = write.request
        {
            self.shared.numbers.end(request.number);
        }
    }
}
