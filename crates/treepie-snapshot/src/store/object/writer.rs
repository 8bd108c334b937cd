//! Writing an object: one part is filled while the one before is on its way.

use std::{
    fmt,
    io::{self, Write},
    mem,
    sync::Arc,
};

use object_store::{Error, MultipartUpload, ObjectStoreExt};

use super::{ObjectFolder, Pending, io_error};
use crate::store::{Name, Store, StoreError, StoreWriter};

/// Most parts of one file that services take.
pub(super) const PARTS_MAX: u64 = 10_000;

/// Uploads one object.
pub(super) struct ObjectWriter {
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
    /// Nothing is sent before a part is full.
    pub(super) fn begin(store: ObjectFolder, name: Name) -> ObjectWriter {
        ObjectWriter {
            store,
            name,
            buffer: Vec::new(),
            upload: None,
            part: None,
            part_count: 0,
            written: 0,
            failed: false,
        }
    }

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
            return Err(too_long());
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
        self.part_count += 1;
        let next = Vec::with_capacity(self.part_len());
        let part = mem::replace(&mut self.buffer, next);
        // Some stores begin threads of their own for a part, which needs the runtime around it.
        let sent = {
            let _inside = self.store.inner.handle.enter();
            upload.put_part(part.into())
        };
        self.part = Some(self.store.start(sent));
        self.upload = Some(upload);
        Ok(())
    }

    /// Length of the part that is being filled.
    fn part_len(&self) -> usize {
        self.store.inner.parts.len(self.part_count)
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
        if self.buffer.len() == self.part_len() {
            self.failed = true;
            self.send_part()?;
            self.failed = false;
        }
        let count = buf.len().min(self.part_len() - self.buffer.len());
        self.buffer.extend_from_slice(&buf[..count]);
        self.written += count as u64;
        Ok(count)
    }

    /// The length of a part does not depend on what is written: there is nothing to send before a part is full.
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
            return Err(io(too_long()));
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

fn too_long() -> io::Error {
    let what = format!("more than {PARTS_MAX} parts; choose a greater length of parts");
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}
