//! Verifying a stream without keeping anything of it.

use std::io::{ErrorKind, Read};

use super::{options::ReadOptions, reader::StreamReader, summary::StreamSummary};
use crate::{
    error::{Error, Result},
    progress::Control,
};

/// Reads a whole stream, and checks all that can be checked without a database: checksums, places and
/// order of frames, the chain of records, counts, digest, page hash, authentication, and that nothing
/// follows it.
///
/// # Errors
/// Those of [`StreamReader`]; [`Error::TrailingBytes`].
pub fn verify<R: Read>(input: R, options: &ReadOptions, control: Control) -> Result<StreamSummary> {
    let (mut input, summary) = StreamReader::new(control.pace(input), options)?.finish()?;
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => return Err(Error::TrailingBytes { offset: summary.stored_len }),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", summary.stored_len, error)),
        }
    }
    input.finish();
    Ok(summary)
}
