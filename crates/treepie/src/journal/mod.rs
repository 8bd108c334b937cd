//! Stub to compile against.
pub use crate::format::record::genesis_chain;
use crate::{
    disk::Disk,
    error::Result,
    format::record::{Record, SealedRecord},
    ids::{DatabaseId, Lsn},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPosition {
    pub lsn: Lsn,
    pub chain: u64,
}
pub struct JournalConfig {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub database_id: DatabaseId,
    pub epoch: u64,
    pub page_size: usize,
    pub segment_size_max: u64,
    pub background: bool,
}
pub struct Recovered {
    pub last: JournalPosition,
    pub records: u64,
    pub bytes: u64,
    pub torn_tail: Option<()>,
}
#[derive(Debug)]
pub struct Journal {
    last: std::sync::atomic::AtomicU64,
    bytes: std::sync::atomic::AtomicU64,
}
#[derive(Debug, Clone)]
pub struct JournalReport;
#[derive(Debug, Clone)]
pub struct SegmentInfo;
impl Journal {
    pub fn recover(
        _c: JournalConfig,
        f: JournalPosition,
        _fresh: bool,
        _a: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<(Journal, Recovered)> {
        Ok((
            Journal { last: f.lsn.0.into(), bytes: 0.into() },
            Recovered { last: f, records: 0, bytes: 0, torn_tail: None },
        ))
    }
    pub fn append(&self, r: &[&SealedRecord]) -> Result<()> {
        for r in r {
            self.last.store(r.lsn.0, std::sync::atomic::Ordering::SeqCst);
            self.bytes.fetch_add(r.bytes().len() as u64, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(())
    }
    pub fn sync(&self) -> Result<Lsn> {
        Ok(Lsn(self.last.load(std::sync::atomic::Ordering::SeqCst)))
    }
    pub fn trim(&self, _l: Lsn) -> Result<()> {
        self.bytes.store(0, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    pub fn bytes_after(&self, _l: Lsn) -> u64 {
        self.bytes.load(std::sync::atomic::Ordering::SeqCst)
    }
    pub fn report(&self) -> JournalReport {
        JournalReport
    }
}
#[derive(Debug)]
pub struct JournalReader;
pub struct StoredRecord {
    pub file: PathBuf,
    pub offset: u64,
    pub len: u64,
    pub bytes: Vec<u8>,
}
impl JournalReader {
    pub fn open(_d: &Arc<dyn Disk>, _p: &Path) -> Result<JournalReader> {
        unimplemented!()
    }
    pub fn from(self, _l: Lsn) -> Self {
        self
    }
}
impl Iterator for JournalReader {
    type Item = Result<StoredRecord>;
    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
