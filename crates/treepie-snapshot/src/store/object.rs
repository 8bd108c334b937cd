//! A store in an object store: S3, Google Cloud Storage, Azure, or whatever implements
//! [`ObjectStore`].
//!
//! The crate `object_store` is asynchronous and this one is not. So a store has one thread of its own
//! with a small runtime on it; calls are sent there and waited for. Nothing else ever runs on it.
//!
//! A file is uploaded in parts and becomes visible when it is completed; one that is shorter than a
//! part is put at once. Services take 10,000 parts of a file, so that the parts of a long one grow:
//!
//! | Parts | Bytes of each | A file up to |
//! |------:|--------------:|-------------:|
//! | 1,000 |        16 MiB |       15 GiB |
//! | 4,000 |        64 MiB |      265 GiB |
//! | 5,000 |       256 MiB |    1,515 GiB |
//!
//! Two parts are in memory at a time. A service that wants all parts of one length (Cloudflare's does)
//! gets them from [`ObjectFolder::with_part_len`]. What a crash leaves of an upload is not listed as a file; the
//! services delete it by a rule for the bucket ("abort incomplete multipart uploads").
//!
//! The service must let a file be created only if it is absent (all of the above do): the
//! manifest and the [lease](super::lease) stand on it.

mod reader;
mod writer;

use std::{
    fmt,
    future::{Future, poll_fn},
    io::{self, Read},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use reader::ObjectReader;
use tokio::runtime::{Builder, Handle};
use writer::ObjectWriter;

use super::{Item, LISTED_MAX, Name, Store, StoreError, StoreLock, StoreWriter, lease::Lease};

/// Bytes of the first parts, unless told otherwise: services ask for 5 MiB at least.
pub const PART_LEN: usize = 16 << 20;
/// Fewest bytes of a part that services take.
const PART_LEN_MIN: usize = 5 << 20;

/// An object store as a store.
#[derive(Clone)]
pub struct ObjectFolder {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    handle: Handle,
    parts: Parts,
    /// Dropping it ends the thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// How long the parts of a file are.
#[derive(Clone, Copy, Debug)]
enum Parts {
    /// All of this length.
    Alike(usize),
    /// The first ones of this length, later ones longer.
    Growing(usize),
}

impl Parts {
    /// The length of the part with this number, from 0.
    fn len(self, number: u64) -> usize {
        match (self, number) {
            (Parts::Alike(len), _) | (Parts::Growing(len), ..1000) => len,
            (Parts::Growing(len), 1000..5000) => len * 4,
            (Parts::Growing(len), _) => len * 16,
        }
    }
}

impl fmt::Debug for ObjectFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectFolder").field(&self.place()).finish()
    }
}

impl ObjectFolder {
    /// The objects whose names begin with `prefix/`, with parts of [`PART_LEN`] and more.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a prefix that is no path; if no thread can be begun.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: &str) -> Result<ObjectFolder, StoreError> {
        ObjectFolder::begin(objects, prefix, Parts::Growing(PART_LEN))
    }

    /// The same with parts of one length, at least 5 MiB. Two of them are in memory at a time; a file
    /// has up to 10,000.
    ///
    /// # Errors
    /// As [`ObjectFolder::new`].
    pub fn with_part_len(
        objects: Arc<dyn ObjectStore>,
        prefix: &str,
        part_len: usize,
    ) -> Result<ObjectFolder, StoreError> {
        ObjectFolder::begin(objects, prefix, Parts::Alike(part_len.max(PART_LEN_MIN)))
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
        parts: Parts,
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
        let inner = Inner { objects, prefix, handle, parts, _stop: stop };
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
        Ok(Box::new(ObjectWriter::begin(self.clone(), name.clone())))
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
        Ok(Box::new(ObjectReader::begin(self.clone(), self.path(name), offset, len)))
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
            let mut metas = objects.list(Some(&path));
            let mut items = Vec::new();
            while items.len() <= LISTED_MAX {
                let next = poll_fn(|context| metas.as_mut().poll_next(context)).await;
                let Some(meta) = next.transpose()? else { break };
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

#[cfg(test)]
mod tests;
