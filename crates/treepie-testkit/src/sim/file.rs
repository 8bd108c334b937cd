//! Open files, maps, scratch memory and locks of the simulated disk.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Weak},
    thread,
};

use parking_lot::{Mutex, MutexGuard};
use treepie::disk::{DiskFile, DiskLock, DiskMap, ScratchMap};

use super::{
    buffer::MapBuffer,
    content::{CHUNK_SIZE, Content, index_of_byte},
    disk::{SimDisk, State},
    fault::{Call, Failure, FaultError, result_of},
    log::Event,
    names::FileId,
};
use crate::rng::{hash_bytes, mix};

/// A file of the page cache, and the maps of it.
pub(crate) struct FileState {
    pub(crate) content: Content,
    pub(crate) path: PathBuf,
    pub(crate) maps: Vec<Weak<MapBuffer>>,
}

impl FileState {
    /// Maps show what was written, at once.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        self.grow_maps(offset);
        self.content.write(offset, data);
        for map in self.maps.iter().filter_map(Weak::upgrade) {
            map.write(index_of_byte(offset), data);
        }
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.grow_maps(len);
        self.content.set_len(len);
    }

    /// What lies between the end and `len` reads as zeros from now on.
    fn grow_maps(&mut self, len: u64) {
        self.maps.retain(|map| map.strong_count() > 0);
        let end = self.content.len();
        if len > end {
            for map in self.maps.iter().filter_map(Weak::upgrade) {
                map.zero(index_of_byte(end), index_of_byte(len - end));
            }
        }
    }
}

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

    fn grow(&self, state: &mut State, len: u64) {
        if len > self.file(state).content.len() {
            self.set_len(state, len);
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
        let late = failure.filter(|failure| failure.has_effect);
        if let (Some(failure), None) = (failure, late) {
            let written = failure.short_write.min(buf.len());
            self.write(&mut state, offset, &buf[..written]);
            return Err(failure.error.to_error());
        }
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let room = state.room(self.id, end);
        if room < end {
            // As much as fits is written, as the operating system does it.
            let written = index_of_byte(room.saturating_sub(offset));
            self.write(&mut state, offset, &buf[..written]);
            return Err(FaultError::ENOSPC.to_error());
        }
        self.write(&mut state, offset, buf);
        give_way(state);
        result_of(late)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, failure) = self.enter(Call::Allocate, len)?;
        let own = self.file(&mut state).content.len();
        let late = failure.filter(|failure| failure.has_effect);
        if let (Some(failure), None) = (failure, late) {
            let part = len.min(own.saturating_add(failure.short_write as u64));
            self.grow(&mut state, part);
            return Err(failure.error.to_error());
        }
        if state.room(self.id, len) < len {
            return Err(FaultError::ENOSPC.to_error());
        }
        self.grow(&mut state, len);
        result_of(late)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let (mut state, failure) = self.enter(Call::SetLen, len)?;
        if let Some(failure) = failure
            && !failure.has_effect
        {
            return Err(failure.error.to_error());
        }
        if len != self.file(&mut state).content.len() {
            self.set_len(&mut state, len);
        }
        result_of(failure)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, failure) = self.enter(Call::SyncData, 0)?;
        let path = self.file(&mut state).path.clone();
        let late = failure.filter(|failure| failure.has_effect);
        if let (Some(failure), None) = (failure, late) {
            state.push(Event::SyncFailed { file: self.id });
            let is_hidden = state.hides_failure(&path);
            return if is_hidden { Ok(()) } else { Err(failure.error.to_error()) };
        }
        if !state.skips(Call::SyncData, &path) {
            state.push(Event::Sync { file: self.id });
        }
        give_way(state);
        result_of(late)
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

/// A file without a name. Nothing of it outlives the process, so it is not in the log.
#[derive(Debug)]
pub(crate) struct SimScratchFile {
    disk: SimDisk,
    /// What faults know it by.
    path: PathBuf,
    content: Mutex<Content>,
}

impl SimScratchFile {
    pub(crate) fn new(disk: SimDisk, path: PathBuf) -> SimScratchFile {
        SimScratchFile { disk, path, content: Mutex::default() }
    }

    fn call(&self, call: Call, detail: u64) -> io::Result<()> {
        match self.disk.enter(call, &self.path, detail)? {
            (_, Some(failure)) => Err(failure.error.to_error()),
            (_, None) => Ok(()),
        }
    }
}

impl DiskFile for SimScratchFile {
    fn len(&self) -> io::Result<u64> {
        self.call(Call::Len, 0)?;
        Ok(self.content.lock().len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.call(Call::Read, mix(offset, buf.len() as u64))?;
        let content = self.content.lock();
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > content.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.call(Call::Write, mix(offset, hash_bytes(buf)))?;
        self.content.lock().write(offset, buf);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.call(Call::Allocate, len)?;
        let mut content = self.content.lock();
        if len > content.len() {
            content.set_len(len);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Call::SetLen, len)?;
        self.content.lock().set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call(Call::SyncData, 0)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call(Call::StartWriteback, mix(offset, len))
    }

    fn map(&self, _reserve: usize) -> io::Result<Box<dyn DiskMap>> {
        Err(io::ErrorKind::Unsupported.into())
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
