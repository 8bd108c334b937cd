//! Hello: the first frame of a connection, of kind 1, from who dials. Who accepts answers with a welcome
//! or a refusal.
//!
//! | Offset | Size | Field         | Meaning                                                       |
//! |-------:|-----:|---------------|---------------------------------------------------------------|
//! |      0 |   16 | `database`    | Identity of the database of the cluster                       |
//! |     16 |    8 | `epoch`       | Its lineage epoch                                             |
//! |     24 |    8 | `from`        | Number of the node that dials                                 |
//! |     32 |    8 | `to`          | Number of the node that it wants                              |
//! |     40 |    1 | `lane`        | 1 urgent messages, 2 messages with records, 3 one page stream |
//! |     41 |    4 | `page_format` | Version of the format of its pages and records                |
//! |     45 |    4 | `address_len` | Bytes of the address, at most 512                             |
//! |     49 |      | `address`     | Where it listens, as text                                     |
//! |        |    4 | `purpose_len` | Bytes of the purpose, at most 4,096                           |
//! |        |      | `purpose`     | What a page stream is for; on other lanes, where the clients of the node that dials find it; the transport does not look at it |
//!
//! Welcome, of kind 2:
//!
//! | Offset | Size | Field         | Meaning                                                       |
//! |-------:|-----:|---------------|---------------------------------------------------------------|
//! |      0 |   16 | `database`    | As above, of the node that accepts                            |
//! |     16 |    8 | `epoch`       |                                                               |
//! |     24 |    8 | `from`        | Its number                                                    |
//! |     32 |    4 | `page_format` | Version of the format of its pages and records                |
//!
//! Refusal, of kind 3, also where a connection ends later:
//!
//! | Offset | Size | Field         | Meaning                                                       |
//! |-------:|-----:|---------------|---------------------------------------------------------------|
//! |      0 |    1 | `reason`      | 1 another cluster, 2 another node, 3 another format of pages, 4 removed, 5 not a member, 6 not what the certificate says, 7 too many connections, 8 it is stopping, 9 no such lane, 10 damaged bytes came, 11 replaced by a newer connection, 12 another version of the protocol |
//! |      1 |    8 | `number`      | 2: the node that is here; 3, 12: the version that is spoken here; otherwise 0 |
//! |      9 |   16 | `database`    | 1: the cluster that is here; otherwise zero                   |
//! |     25 |    8 | `epoch`       |                                                               |

use std::fmt;

use bincode::{
    Decode, Encode,
    de::{Decoder, read::Reader},
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use treepie::ids::DatabaseId;

use super::{
    codec::{decode_bytes, encode_bytes},
    frame::Caps,
};
use crate::ids::{ClusterId, NodeId};

/// Bytes of an address, at most: a host name of 255 and a port.
pub const ADDRESS_LEN_MAX: usize = 512;
/// Bytes of the purpose of a page stream, at most.
pub const PURPOSE_LEN_MAX: usize = 4096;
/// The lengths that are believed of who was not yet told to be welcome.
pub const HELLO_CAPS: Caps = Caps::new(8192, 0, 0);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Messages that keep leadership, and answers.
    Urgent = 1,
    /// Messages with records.
    Bulk = 2,
    /// One page stream.
    Pages = 3,
}

impl Lane {
    /// A word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Lane::Urgent => "urgent",
            Lane::Bulk => "bulk",
            Lane::Pages => "pages",
        }
    }
}

/// Who dials, and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub from: NodeId,
    /// Whom it wants.
    pub to: NodeId,
    /// What for.
    pub lane: Lane,
    /// Version of the format of its pages and records.
    pub page_format: u32,
    /// Where it listens.
    pub address: String,
    /// What a page stream is for; on other lanes, where the clients of the node that dials find it.
    pub purpose: Vec<u8>,
}

/// Who accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub from: NodeId,
    /// Version of the format of its pages and records.
    pub page_format: u32,
}

/// Why a connection is refused, or ends; the other side gets to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is of another cluster, or of another lineage of the same database.
    OtherCluster {
        /// The one that is here.
        ours: ClusterId,
    },
    /// Another node has this address.
    OtherNode {
        /// The one that is here.
        ours: NodeId,
    },
    /// Its pages and records cannot be used here.
    PageFormat {
        /// The version that is spoken here.
        ours: u32,
    },
    /// It was removed from the cluster.
    Removed,
    /// It is not a member.
    Stranger,
    /// Its certificate is another's.
    Certificate,
    /// There are too many connections.
    Busy,
    /// The node is stopping.
    Stopping,
    /// Nothing of this kind is served here.
    Lane,
    /// What it sent was damaged, or broke a rule.
    Damaged,
    /// It has a newer connection of the same kind.
    Replaced,
    /// It speaks another version of the protocol.
    Protocol {
        /// The version that is spoken here.
        ours: u16,
    },
}

impl Refusal {
    /// Whether asking again soon is of no use: somebody has to do something first.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        !matches!(self, Refusal::Stopping | Refusal::Damaged | Refusal::Replaced)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::OtherCluster { ours } => write!(f, "the cluster there is {ours}"),
            Refusal::OtherNode { ours } => write!(f, "the node there is {ours}"),
            Refusal::PageFormat { ours } => write!(f, "the format of pages there is {ours}"),
            Refusal::Removed => f.write_str("this node was removed from the cluster"),
            Refusal::Stranger => f.write_str("this node is not a member"),
            Refusal::Certificate => f.write_str("the certificate is not that of this node"),
            Refusal::Busy => f.write_str("there are too many connections"),
            Refusal::Stopping => f.write_str("the node is stopping"),
            Refusal::Lane => f.write_str("nothing of this kind is served there"),
            Refusal::Damaged => f.write_str("what came was damaged or broke a rule"),
            Refusal::Replaced => f.write_str("a newer connection took its place"),
            Refusal::Protocol { ours } => write!(f, "the protocol there has version {ours}"),
        }
    }
}

impl Encode for NodeId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0.encode(encoder)
    }
}

impl<C> Decode<C> for NodeId {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<NodeId, DecodeError> {
        Ok(NodeId(u64::decode(decoder)?))
    }
}

impl Encode for ClusterId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.database.0.encode(encoder)?;
        self.epoch.encode(encoder)
    }
}

impl<C> Decode<C> for ClusterId {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<ClusterId, DecodeError> {
        let mut database = [0; 16];
        decoder.claim_bytes_read(database.len())?;
        decoder.reader().read(&mut database)?;
        Ok(ClusterId { database: DatabaseId(database), epoch: u64::decode(decoder)? })
    }
}

impl Encode for Hello {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.cluster.encode(encoder)?;
        (self.from, self.to).encode(encoder)?;
        (self.lane as u8).encode(encoder)?;
        self.page_format.encode(encoder)?;
        encode_bytes(self.address.as_bytes(), ADDRESS_LEN_MAX, encoder)?;
        encode_bytes(&self.purpose, PURPOSE_LEN_MAX, encoder)
    }
}

impl<C> Decode<C> for Hello {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Hello, DecodeError> {
        let cluster = ClusterId::decode(decoder)?;
        let (from, to) = (NodeId::decode(decoder)?, NodeId::decode(decoder)?);
        let lane = match u8::decode(decoder)? {
            1 => Lane::Urgent,
            2 => Lane::Bulk,
            3 => Lane::Pages,
            _ => return Err(DecodeError::Other("unknown lane")),
        };
        let page_format = u32::decode(decoder)?;
        let address = String::from_utf8(decode_bytes(ADDRESS_LEN_MAX, decoder)?)
            .map_err(|_| DecodeError::Other("an address is no text"))?;
        let purpose = decode_bytes(PURPOSE_LEN_MAX, decoder)?;
        Ok(Hello { cluster, from, to, lane, page_format, address, purpose })
    }
}

impl Encode for Welcome {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.cluster, self.from, self.page_format).encode(encoder)
    }
}

impl<C> Decode<C> for Welcome {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Welcome, DecodeError> {
        let (cluster, from) = (ClusterId::decode(decoder)?, NodeId::decode(decoder)?);
        Ok(Welcome { cluster, from, page_format: u32::decode(decoder)? })
    }
}

impl Encode for Refusal {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let none = ClusterId::default();
        let (reason, number, cluster): (u8, u64, ClusterId) = match *self {
            Refusal::OtherCluster { ours } => (1, 0, ours),
            Refusal::OtherNode { ours } => (2, ours.0, none),
            Refusal::PageFormat { ours } => (3, ours.into(), none),
            Refusal::Removed => (4, 0, none),
            Refusal::Stranger => (5, 0, none),
            Refusal::Certificate => (6, 0, none),
            Refusal::Busy => (7, 0, none),
            Refusal::Stopping => (8, 0, none),
            Refusal::Lane => (9, 0, none),
            Refusal::Damaged => (10, 0, none),
            Refusal::Replaced => (11, 0, none),
            Refusal::Protocol { ours } => (12, ours.into(), none),
        };
        (reason, number, cluster).encode(encoder)
    }
}

impl<C> Decode<C> for Refusal {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Refusal, DecodeError> {
        let (reason, number) = (u8::decode(decoder)?, u64::decode(decoder)?);
        let ours = ClusterId::decode(decoder)?;
        let refusal = match reason {
            1 => Refusal::OtherCluster { ours },
            2 => Refusal::OtherNode { ours: NodeId(number) },
            3 => {
                let ours = u32::try_from(number);
                Refusal::PageFormat { ours: ours.map_err(|_| DecodeError::Other("a version"))? }
            }
            4 => Refusal::Removed,
            5 => Refusal::Stranger,
            6 => Refusal::Certificate,
            7 => Refusal::Busy,
            8 => Refusal::Stopping,
            9 => Refusal::Lane,
            10 => Refusal::Damaged,
            11 => Refusal::Replaced,
            12 => {
                let ours = u16::try_from(number);
                Refusal::Protocol { ours: ours.map_err(|_| DecodeError::Other("a version"))? }
            }
            _ => return Err(DecodeError::Other("unknown reason of a refusal")),
        };
        let (has_number, has_cluster) = (matches!(reason, 2 | 3 | 12), reason == 1);
        let is_unused = ours == ClusterId::default() || has_cluster;
        if !is_unused || (number != 0 && !has_number) {
            return Err(DecodeError::Other("unused bytes of a refusal are not zero"));
        }
        Ok(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::codec, *};

    fn cluster() -> ClusterId {
        ClusterId { database: DatabaseId([0xd1; 16]), epoch: 0xe1 }
    }

    fn bytes(value: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(value, &mut bytes).expect("it keeps its bounds");
        bytes
    }

    #[test]
    fn hello_and_welcome_have_these_bytes() {
        let hello = Hello {
            cluster: cluster(),
            from: NodeId(1),
            to: NodeId(2),
            lane: Lane::Pages,
            page_format: 3,
            address: "h:1".to_owned(),
            purpose: vec![7, 8],
        };
        let mut wanted = vec![0xd1; 16];
        wanted.extend([0xe1, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        let welcome = Welcome { cluster: cluster(), from: NodeId(1), page_format: 3 };
        let mut welcomed = wanted.clone();
        welcomed.extend([3, 0, 0, 0]);
        wanted.extend([2, 0, 0, 0, 0, 0, 0, 0]);
        wanted.extend([3, 3, 0, 0, 0, 3, 0, 0, 0, b'h', b':', b'1', 2, 0, 0, 0, 7, 8]);
        assert_eq!(bytes(&hello), wanted);
        assert_eq!(codec::decode::<Hello>(&wanted).expect("it is whole"), hello);
        assert_eq!(bytes(&welcome), welcomed);
        assert_eq!(codec::decode::<Welcome>(&welcomed).expect("it is whole"), welcome);
    }

    #[test]
    fn every_refusal_comes_as_it_went() {
        let reasons = [
            Refusal::OtherCluster { ours: cluster() },
            Refusal::OtherNode { ours: NodeId(7) },
            Refusal::PageFormat { ours: 7 },
            Refusal::Removed,
            Refusal::Stranger,
            Refusal::Certificate,
            Refusal::Busy,
            Refusal::Stopping,
            Refusal::Lane,
            Refusal::Damaged,
            Refusal::Replaced,
            Refusal::Protocol { ours: 7 },
        ];
        for (number, refusal) in reasons.into_iter().enumerate() {
            let encoded = bytes(&refusal);
            assert_eq!((encoded.len(), usize::from(encoded[0])), (33, number + 1));
            assert_eq!(codec::decode::<Refusal>(&encoded).expect("it is whole"), refusal);
        }
        let mut encoded = bytes(&Refusal::Removed);
        encoded[0] = 13;
        assert!(codec::decode::<Refusal>(&encoded).is_err(), "an unknown reason");
        for (reason, byte) in [(4, 1), (1, 1), (2, 9), (3, 30), (3, 5)] {
            let mut encoded = bytes(&Refusal::Removed);
            encoded[0] = reason;
            encoded[byte] = 1;
            assert!(codec::decode::<Refusal>(&encoded).is_err(), "{reason}: byte {byte}");
        }
    }

    #[test]
    fn address_that_is_too_long_or_no_text_is_refused() {
        let mut hello = Hello {
            cluster: cluster(),
            from: NodeId(1),
            to: NodeId(2),
            lane: Lane::Bulk,
            page_format: 1,
            address: "x".repeat(ADDRESS_LEN_MAX),
            purpose: vec![0; PURPOSE_LEN_MAX],
        };
        let mut encoded = bytes(&hello);
        assert!(encoded.len() <= HELLO_CAPS.control_len as usize);
        encoded[60] = 0xff;
        assert!(codec::decode::<Hello>(&encoded).is_err());
        hello.address.push('x');
        assert!(codec::encode(&hello, &mut Vec::new()).is_err());
    }
}
