//! A store in an object store: S3, Google Cloud Storage, Azure, or whatever implements
//! [`ObjectStore`].
//!
//! The crate `object_store` is asynchronous and this one is not. So a store has one thread of its own
//! with a small runtime on it; calls are sent there and waited for. Nothing else ever runs on it.
//!
//! A file is uploaded in parts of one size and becomes visible when it is completed; one that is
//! shorter than a part is put at once. What a crash leaves of an upload is not listed as a file; the
//! services delete it by a rule for the bucket ("abort incomplete multipart uploads").
//!
//! The service must let a file be created only if it is absent (all of the above do): the
//! manifest and the [lease](super::lease) stand on it.

use std::{
    fmt,
    future::Future,
    io::{self, Read, Write},
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt;
use object_store::{
    Error, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    path::Path,
};
use tokio::runtime::{Builder, Handle};

use super::{Item, LISTED_MAX, Name, Store, StoreError, StoreLock, StoreWriter, lease::Lease};

/// Bytes of a part, unless told otherwise: services ask for 5 MiB at least, and take 10,000 parts.
pub const PART_LEN: usize = 16 << 20;
/// Fewest bytes of a part that services take.
const PART_LEN_MIN: usize = 5 << 20;
/// Most parts of one file that services take.
const PARTS_MAX: u64 = 10_000;
/// Bytes of one read. One such read is ahead of the reader.
const READ_LEN: u64 = 8 << 20;

/// An object store as a store.
#[derive(Clone)]
pub struct ObjectFolder {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    handle: Handle,
    part_len: usize,
    /// Dropping it ends the thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl fmt::Debug for ObjectFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectFolder").field(&self.place()).finish()
    }
}

impl ObjectFolder {
    /// The objects whose names begin with `prefix/`, with parts of [`PART_LEN`].
    ///
    /// # Errors
    /// [`StoreError::Name`] for a prefix that is no path; if no thread can be begun.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Result<ObjectFolder, StoreError> {
        ObjectFolder::with_part_len(objects, prefix, PART_LEN)
    }

    /// The same with parts of another length, at least 5 MiB. Two of them are in memory at a time; a file
    /// has up to 10,000.
    ///
    /// # Errors
    /// As [`ObjectFolder::new`].
    pub fn with_part_len(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        part_len: usize,
    ) -> Result<ObjectFolder, StoreError> {
        ObjectFolder::begin(objects, prefix, part_len.max(PART_LEN_MIN))
    }

    /// A store at a URL: `s3://bucket/folder`, `gs://…`, `az://…`, as far as this build has them. Keys and
    /// regions come from `options`, by the names that the crate `object_store` gives them; the
    /// environment's are `std::env::vars()`.
    ///
    /// # Errors
    /// A URL that this build knows nothing of, or options that do not do.
    pub fn from_url(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ObjectFolder, StoreError> {
        let fail = |what: String| StoreError::Bound { place: url.to_owned(), what };
        let parsed = url::Url::parse(url).map_err(|error| fail(error.to_string()))?;
        let (objects, prefix) = object_store::parse_url_opts(&parsed, options)
            .map_err(|error| fail(format!("cannot be opened: {error}")))?;
        ObjectFolder::new(Arc::from(objects), prefix.as_ref())
    }

    fn begin(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        part_len: usize,
    ) -> Result<ObjectFolder, StoreError> {
        let place = format!("{objects}");
        let prefix = Path::parse(prefix).map_err(|_| StoreError::Name {
            name: super::shortened(prefix),
            reason: "it is no path of an object store",
        })?;
        let start = |error: io::Error| StoreError::Io {
            action: "begin",
            name: "the thread".to_owned(),
            place: place.clone(),
            source: error,
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(start)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::Builder::new().name("treepie-objects".to_owned());
        // It ends when the store and all that it was asked for are dropped.
        let thread = thread.spawn(move || drop(runtime.block_on(stopped)));
        thread.map_err(start)?;
        let inner = Inner { objects, prefix, handle, part_len, _stop: stop };
        Ok(ObjectFolder { inner: Arc::new(inner) })
    }

    fn path(&self, name: &Name) -> Path {
        name.as_str().split('/').fold(self.inner.prefix.clone(), |path, part| path.join(part))
    }

    /// Begins a call on the store's thread.
    fn start<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Pending<T> {
        let (sender, answer) = sync_channel(1);
        self.inner.handle.spawn(async move {
            // Who asked may have given up.
            let _ = sender.send(call.await);
        });
        Pending { answer }
    }

    fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        name: &Name,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.start(call).wait().map_err(|error| self.error(action, name, error))
    }

    fn error(&self, action: &'static str, name: &Name, error: Error) -> StoreError {
        let (name, place) = (name.as_str().to_owned(), self.place());
        match error {
            Error::NotFound { .. } => StoreError::NotFound { name, place },
            error => StoreError::Io { action, name, place, source: io_error(error) },
        }
    }
}

/// The error of an object store as one of input and output, with its kind where there is one.
fn io_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// A call that is on its way.
struct Pending<T> {
    answer: Receiver<Result<T, Error>>,
}

impl<T> Pending<T> {
    fn wait(self) -> Result<T, Error> {
        self.answer.recv().unwrap_or_else(|_| {
            let source = "its thread has ended".into();
            Err(Error::Generic { store: "object store", source })
        })
    }
}

impl Store for ObjectFolder {
    fn place(&self) -> String {
        format!("{}/{}", self.inner.objects, self.inner.prefix)
    }

    fn create(&self, name: &Name) -> Result<Box<dyn StoreWriter>, StoreError> {
        let writer = ObjectWriter {
            store: self.clone(),
            name: name.clone(),
            buffer: Vec::new(),
            upload: None,
            part: None,
            part_count: 0,
            written: 0,
            failed: false,
        };
        Ok(Box::new(writer))
    }

    fn put_if_absent(&self, name: &Name, bytes: &[u8]) -> Result<bool, StoreError> {
        let (objects, path) = (Arc::clone(&self.inner.objects), self.path(name));
        let payload = bytes.to_vec().into();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.start(async move { objects.put_opts(&path, payload, options).await });
        match put.wait() {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.error("create", name, error)),
        }
    }

    fn open(&self, name: &Name, offset: u64) -> Result<Box<dyn Read + Send>, StoreError> {
        let len = self.len(name)?.ok_or_else(|| StoreError::NotFound {
            name: name.as_str().to_owned(),
            place: self.place(),
        })?;
        let mut reader = ObjectReader {
            store: self.clone(),
            path: self.path(name),
            asked: offset,
            len,
            ahead: None,
            chunk: Vec::new(),
            taken: 0,
        };
        reader.ask();
        Ok(Box::new(reader))
    }

    fn len(&self, name: &Name) -> Result<Option<u64>, StoreError> {
        let (objects, path) = (Arc::clone(&self.inner.objects), self.path(name));
        match self.run("look for", name, async move { objects.head(&path).await }) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Item>, StoreError> {
        let probe = Name::new(format!("{folder}/x"))?;
        let (objects, path) =
            (Arc::clone(&self.inner.objects), self.inner.prefix.clone().join(folder));
        let prefix = format!("{path}/");
        let listed = async move {
            let mut metas = objects.list(Some(&path)).take(LISTED_MAX + 1);
            let mut items = Vec::new();
            while let Some(meta) = metas.next().await {
                let meta = meta?;
                let modified = u64::try_from(meta.last_modified.timestamp_micros()).ok();
                items.push((meta.location.to_string(), meta.size, modified));
            }
            Ok(items)
        };
        let listed = self.run("list the folder of", &probe, listed)?;
        if listed.len() > LISTED_MAX {
            let what = format!("{folder} has more than {LISTED_MAX} files; move some elsewhere");
            return Err(StoreError::Bound { place: self.place(), what });
        }
        let item = |(path, bytes, modified_us): (String, u64, Option<u64>)| {
            let file = path.strip_prefix(&prefix)?;
            let name = Name::new(format!("{folder}/{file}")).ok()?;
            Some(Item { name, bytes, modified_us })
        };
        Ok(listed.into_iter().filter_map(item).collect())
    }

    fn remove(&self, name: &Name) -> Result<(), StoreError> {
        let (objects, path) = (Arc::clone(&self.inner.objects), self.path(name));
        match self.run("remove", name, async move { objects.delete(&path).await }) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn lock(&self, purpose: &str) -> Result<Box<dyn StoreLock>, StoreError> {
        Ok(Box::new(Lease::take(Arc::new(self.clone()), purpose)?))
    }

    fn now_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> Result<[u8; 16], StoreError> {
        let mut bytes = [0; 16];
        let name = Name::new("random").expect("it is a name");
        let drawn = getrandom::fill(&mut bytes).map_err(io::Error::from);
        drawn.map_err(StoreError::io("draw", &name, self.place()))?;
        Ok(bytes)
    }
}

/// Reads one object forwards, one request ahead.
struct ObjectReader {
    store: ObjectFolder,
    path: Path,
    /// Up to where it was asked for.
    asked: u64,
    len: u64,
    ahead: Option<(u64, Pending<Vec<u8>>)>,
    chunk: Vec<u8>,
    taken: usize,
}

impl ObjectReader {
    fn ask(&mut self) {
        let end = self.asked.saturating_add(READ_LEN).min(self.len);
        if self.asked >= end {
            return;
        }
        let range = self.asked..end;
        let (objects, path) = (Arc::clone(&self.store.inner.objects), self.path.clone());
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let get = async move {
            let result = objects.get_opts(&path, options).await?;
            Ok(result.bytes().await?.to_vec())
        };
        self.ahead = Some((end - self.asked, self.store.start(get)));
        self.asked = end;
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if self.taken == self.chunk.len() {
            let Some((asked, pending)) = self.ahead.take() else { return Ok(0) };
            let chunk = pending.wait().map_err(io_error)?;
            // A service that gives less than it was asked for has lost the rest.
            if chunk.len() as u64 != asked {
                let what = format!("asked for {asked} bytes, got {}", chunk.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            (self.chunk, self.taken) = (chunk, 0);
            self.ask();
        }
        let count = buf.len().min(self.chunk.len() - self.taken);
        buf[..count].copy_from_slice(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Uploads one object.
struct ObjectWriter {
    store: ObjectFolder,
    name: Name,
    buffer: Vec<u8>,
    /// None as long as all fits into one part, and while a call has it.
    upload: Option<Box<dyn MultipartUpload>>,
    /// The part that is on its way.
    part: Option<Pending<()>>,
    part_count: u64,
    written: u64,
    failed: bool,
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ObjectWriter {
    /// Waits until the part before has arrived.
    fn arrived(&mut self) -> io::Result<()> {
        match self.part.take() {
            Some(part) => part.wait().map_err(io_error),
            None => Ok(()),
        }
    }

    fn send_part(&mut self) -> io::Result<()> {
        self.arrived()?;
        if self.part_count == PARTS_MAX {
            let what = format!("more than {PARTS_MAX} parts; choose a greater length of parts");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                let (objects, path) =
                    (Arc::clone(&self.store.inner.objects), self.store.path(&self.name));
                let begin = self.store.start(async move { objects.put_multipart(&path).await });
                begin.wait().map_err(io_error)?
            }
        };
        // A new buffer for the next part, of the length of this one.
        let next = Vec::with_capacity(self.buffer.len());
        let part = mem::replace(&mut self.buffer, next);
        self.part_count += 1;
        // Some stores begin threads of their own for a part, which needs the runtime around it.
        let sent = {
            let _inside = self.store.inner.handle.enter();
            upload.put_part(part.into())
        };
        self.part = Some(self.store.start(sent));
        self.upload = Some(upload);
        Ok(())
    }

    fn complete(&mut self) -> Result<(), Error> {
        let (objects, path) = (Arc::clone(&self.store.inner.objects), self.store.path(&self.name));
        let rest = mem::take(&mut self.buffer);
        let Some(mut upload) = self.upload.take() else {
            let put = async move { objects.put(&path, rest.into()).await.map(|_| ()) };
            return self.store.start(put).wait();
        };
        let finish = async move {
            let sent = if rest.is_empty() { Ok(()) } else { upload.put_part(rest.into()).await };
            let completed = match sent {
                Ok(()) => upload.complete().await.map(|_| ()),
                Err(error) => Err(error),
            };
            if completed.is_err() {
                // The parts that were sent take room; what cannot be cleared away here, a rule of
                // the bucket clears away.
                let _ = upload.abort().await;
            }
            completed
        };
        self.store.start(finish).wait()
    }

    fn give_up(&mut self) {
        let part = self.part.take();
        if let Some(mut upload) = self.upload.take() {
            drop(part.map(Pending::wait));
            if let Err(error) = self.store.start(async move { upload.abort().await }).wait() {
                tracing::debug!(%error, name = %self.name, "parts of an upload stay");
            }
        }
    }
}

impl Write for ObjectWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier write to this file failed"));
        }
        if self.buffer.len() == self.store.inner.part_len {
            self.failed = true;
            self.send_part()?;
            self.failed = false;
        }
        let count = buf.len().min(self.store.inner.part_len - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..count]);
        self.written += count as u64;
        Ok(count)
    }

    /// Parts have one length: there is nothing to send before a part is full.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StoreWriter for ObjectWriter {
    fn finish(mut self: Box<Self>) -> Result<u64, StoreError> {
        let (store, name) = (self.store.clone(), self.name.clone());
        let io = |error| StoreError::io("write", &name, store.place())(error);
        if self.failed {
            return Err(io(io::Error::other("an earlier write to this file failed")));
        }
        self.arrived().map_err(io)?;
        if self.part_count == PARTS_MAX && !self.buffer.is_empty() {
            let what = "more parts than a service takes; choose a greater length of parts";
            return Err(io(io::Error::new(io::ErrorKind::FileTooLarge, what)));
        }
        self.complete().map_err(|error| store.error("complete", &name, error))?;
        Ok(self.written)
    }

    fn abort(mut self: Box<Self>) {
        self.give_up();
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests;
