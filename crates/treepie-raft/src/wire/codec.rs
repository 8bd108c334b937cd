//! How control parts are encoded: `bincode` with integers of fixed width, little-endian, and a limit.
//!
//! Collections that a type of its own encodes have a length of 4 bytes, see [`encode_bytes`]. Those that
//! `bincode` encodes by itself have one of 8 bytes; the limit bounds what they allocate.

use bincode::{
    Decode, Encode,
    config::{Configuration, Fixint, Limit, LittleEndian},
    de::{Decoder, read::Reader},
    enc::{Encoder, write::Writer},
    error::{DecodeError, EncodeError},
};

use super::WireError;

/// Bytes of a control part, at most, whatever the caps of a connection say: what decoding one may
/// allocate.
pub const CONTROL_LEN_MAX: usize = 16 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<CONTROL_LEN_MAX>> =
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<CONTROL_LEN_MAX>();

/// Appends a value's bytes.
///
/// # Errors
/// [`WireError::Encode`] when the value passes a bound of its own.
pub fn encode(value: &impl Encode, to: &mut Vec<u8>) -> Result<(), WireError> {
    let encoded = bincode::encode_into_std_write(value, to, CONFIG);
    encoded.map(drop).map_err(|error| WireError::Encode(Box::new(error)))
}

/// Reads a value of which these are all bytes.
///
/// # Errors
/// [`WireError::Decode`] when they are none of it, [`WireError::Layout`] when some are left.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, WireError> {
    let decoded = bincode::decode_from_slice(bytes, CONFIG);
    let (value, used) = decoded.map_err(|error| WireError::Decode(Box::new(error)))?;
    if used != bytes.len() {
        return Err(WireError::Layout("a control part is longer than what it says"));
    }
    Ok(value)
}

/// Encodes bytes behind their length (u32).
///
/// # Errors
/// When there are more than `max`.
pub fn encode_bytes<E: Encoder>(
    bytes: &[u8],
    max: usize,
    encoder: &mut E,
) -> Result<(), EncodeError> {
    encode_len(bytes.len(), max, encoder)?;
    encoder.writer().write(bytes)
}

/// Decodes bytes behind their length, of which at most `max` are allowed.
///
/// # Errors
/// When there are more, or the bytes end.
pub fn decode_bytes<D: Decoder>(max: usize, decoder: &mut D) -> Result<Vec<u8>, DecodeError> {
    let len = decode_len(max, decoder)?;
    decoder.claim_bytes_read(len)?;
    let mut bytes = vec![0; len];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}

/// Encodes how many items follow.
///
/// # Errors
/// When these are more than `max`.
pub fn encode_len<E: Encoder>(len: usize, max: usize, encoder: &mut E) -> Result<(), EncodeError> {
    match u32::try_from(len) {
        Ok(len32) if len <= max => len32.encode(encoder),
        _ => Err(EncodeError::Other("more items than the format allows")),
    }
}

/// Decodes how many items follow, at most `max`.
///
/// # Errors
/// When there are more.
pub fn decode_len<D: Decoder>(max: usize, decoder: &mut D) -> Result<usize, DecodeError> {
    let len = usize::try_from(u32::decode(decoder)?).unwrap_or(usize::MAX);
    if len > max {
        return Err(DecodeError::Other("more items than the format allows"));
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_left_are_refused() {
        let mut bytes = Vec::new();
        encode(&7_u32, &mut bytes).expect("a number");
        assert_eq!(bytes, [7, 0, 0, 0]);
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(WireError::Layout(_))));
        assert!(matches!(decode::<u32>(&bytes[..3]), Err(WireError::Decode(_))));
    }

    #[test]
    fn length_that_a_collection_claims_is_not_allocated() {
        let mut bytes = Vec::new();
        encode(&(u64::from(u32::MAX) << 20), &mut bytes).expect("a number");
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(WireError::Decode(_))));
        assert!(matches!(decode::<Vec<[u64; 8]>>(&bytes), Err(WireError::Decode(_))));
        assert!(matches!(decode::<String>(&bytes), Err(WireError::Decode(_))));
    }
}
