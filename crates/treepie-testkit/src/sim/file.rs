//! Open files, maps, scratch memory and locks of the simulated disk.

use std::{io, path::PathBuf, sync::Arc, thread};

use parking_lot::MutexGuard;
use treepie::disk::{DiskFile, DiskLock, DiskMap, ScratchMap};

use super::{
    buffer::MapBuffer,
    content::CHUNK_SIZE,
    disk::{FileState, SimDisk, State},
    fault::{Call, Failure},
    log::Event,
    names::FileId,
};
use crate::rng::{hash_bytes, mix};

#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    id: FileId,
    writable: bool,
}

impl SimFile {
    pub(crate) fn new(disk: SimDisk, id: FileId, writable: bool) -> SimFile {
        SimFile { disk, id, writable }
    }

    fn enter(
        &self,
        call: Call,
        detail: u64,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Failure>)> {
        let path = self.disk.path_of(self.id);
        self.disk.enter(call, &path, detail)
    }

    /// For calls that do nothing when they fail.
    fn call(&self, call: Call, detail: u64) -> io::Result<MutexGuard<'_, State>> {
        match self.enter(call, detail)? {
            (_, Some(failure)) => Err(failure.error.to_error()),
            (state, None) => Ok(state),
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        // EBADF, as the operating system says it.
        if self.writable { Ok(()) } else { Err(io::Error::from_raw_os_error(9)) }
    }

    fn write(&self, state: &mut State, offset: u64, data: &[u8]) {
        if !data.is_empty() {
            state.push(Event::Write { file: self.id, offset, data: data.into() });
            self.file(state).write(offset, data);
        }
    }

    fn set_len(&self, state: &mut State, len: u64) {
        state.push(Event::SetLen { file: self.id, len });
        self.file(state).set_len(len);
    }

    fn file<'a>(&self, state: &'a mut State) -> &'a mut FileState {
        state.files.get_mut(&self.id).expect("files outlive their names")
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.call(Call::Len, 0)?;
        Ok(self.file(&mut state).content.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut state = self.call(Call::Read, mix(offset, buf.len() as u64))?;
        let content = &self.file(&mut state).content;
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > content.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, failure) = self.enter(Call::Write, mix(offset, hash_bytes(buf)))?;
        if let Some(failure) = failure {
            let written = failure.short_write.min(buf.len());
            self.write(&mut state, offset, &buf[..written]);
            return Err(failure.error.to_error());
        }
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        state.check_room(self.id, end)?;
        self.write(&mut state, offset, buf);
        give_way(state);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.call(Call::Allocate, len)?;
        state.check_room(self.id, len)?;
        if len > self.file(&mut state).content.len() {
            self.set_len(&mut state, len);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.call(Call::SetLen, len)?;
        if len != self.file(&mut state).content.len() {
            self.set_len(&mut state, len);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, failure) = self.enter(Call::SyncData, 0)?;
        if let Some(failure) = failure {
            state.push(Event::SyncFailed { file: self.id });
            return Err(failure.error.to_error());
        }
        let path = self.file(&mut state).path.clone();
        if !state.skips(Call::SyncData, &path) {
            state.push(Event::Sync { file: self.id });
        }
        give_way(state);
        Ok(())
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::StartWriteback, mix(offset, len)).map(drop)
    }

    fn map(&self, reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        let mut state = self.call(Call::Map, reserve as u64)?;
        let file = self.file(&mut state);
        let buffer = Arc::new(MapBuffer::new(reserve));
        for index in 0..file.content.chunk_count().min(buffer.len() / CHUNK_SIZE) {
            match file.content.chunk(index) {
                Some(chunk) => buffer.write(index * CHUNK_SIZE, &chunk[..]),
                None => buffer.zero(index * CHUNK_SIZE, CHUNK_SIZE),
            }
        }
        file.maps.push(Arc::downgrade(&buffer));
        Ok(Box::new(SimMap { buffer }))
    }
}

/// Ends a call that took effect; other threads may go first.
fn give_way(state: MutexGuard<'_, State>) {
    let yields = state.yields();
    drop(state);
    (0..yields).for_each(|_| thread::yield_now());
}

#[derive(Debug)]
struct SimMap {
    buffer: Arc<MapBuffer>,
}

impl DiskMap for SimMap {
    fn base(&self) -> *const u8 {
        self.buffer.base()
    }

    fn reserved(&self) -> usize {
        self.buffer.len()
    }

    fn prefetch(&self, _offset: usize, _len: usize) {}
}

#[derive(Debug)]
pub(crate) struct SimScratch {
    buffer: MapBuffer,
    len: usize,
}

impl SimScratch {
    pub(crate) fn new(len: usize) -> SimScratch {
        let buffer = MapBuffer::new(len);
        buffer.zero(0, buffer.len());
        SimScratch { buffer, len }
    }
}

impl ScratchMap for SimScratch {
    fn base(&self) -> *mut u8 {
        self.buffer.base()
    }

    fn size(&self) -> usize {
        self.len
    }
}

#[derive(Debug)]
pub(crate) struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl SimLock {
    pub(crate) fn new(disk: SimDisk, path: PathBuf) -> SimLock {
        SimLock { disk, path }
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.unlock(&self.path);
    }
}
