//! Message: the control part of a frame of kind 4. Its records are the attachments, in the order of its
//! entries; or there are none, where it has no entries.
//!
//! | Offset | Size | Field              | Meaning                                                  |
//! |-------:|-----:|--------------------|----------------------------------------------------------|
//! |      0 |    1 | `kind`             | 1 append, 2 its reply, 3 vote, 4 its reply, 5 pre-vote, 6 its reply, 7 heartbeat, 8 its reply, 9 read index, 10 its reply, 11 time out now, 12 transfer the leadership, 13 snapshot |
//! |      1 |    1 | `reject`           | 1 when the answer is no, otherwise 0                     |
//! |      2 |    8 | `from`             | Number of the node that says it                          |
//! |     10 |    8 | `to`               | To whom                                                  |
//! |     18 |    8 | `term`             | Term of `from`                                           |
//! |     26 |    8 | `log_term`         | Term of the entry `index`                                |
//! |     34 |    8 | `index`            | The entry before `entries`, or the last one              |
//! |     42 |    8 | `committed`        | Highest LSN that is known to be committed                |
//! |     50 |    8 | `committed_term`   | Its term, or 0                                           |
//! |     58 |    8 | `reject_hint`      | Where to try next                                        |
//! |     66 |    8 | `request_snapshot` | LSN of a state that is asked for, or 0                   |
//! |     74 |    8 | `priority`         | Priority of a candidate, signed                          |
//! |     82 |    4 | `context_len`      | Bytes of the context, at most 64                         |
//! |     86 |      | `context`          | What a read is told apart by                             |
//! |        |    4 | `entry_count`      | Entries, at most 64                                      |
//! |        |   25 | `entries`          | Each: LSN (8), term (8), kind (1: 1 transaction, 2 no-op, 3 membership), length (4) and checksum (4) of its record |
//! |        |    1 | `has_snapshot`     | 1 when what follows is there, otherwise 0                |
//! |        |    8 | `snapshot_lsn`     | The last record that a state holds                       |
//! |        |    8 | `snapshot_term`    | Its term                                                 |
//! |        |    4 | `members_len`      | Bytes of the members, at most 65,536                     |
//! |        |      | `members`          | The members as of that record, encoded                   |

use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use treepie::ids::{Lsn, Term};

use super::{
    FrameHead, WireError,
    codec::{decode_bytes, decode_len, encode_bytes, encode_len},
    frame::Caps,
};
use crate::{
    ids::NodeId,
    message::{
        CONTEXT_LEN_MAX, ENTRIES_MAX, EntryKind, EntryRef, Message, MessageKind, SnapshotRef,
    },
};

/// Bytes of encoded members, at most.
pub const MEMBERS_LEN_MAX: usize = 64 << 10;
/// The lengths that are believed of a node: `ENTRIES_MAX` entries and the members, and any record.
pub const PEER_CAPS: Caps = Caps::new(128 << 10, ENTRIES_MAX as u32, u32::MAX);

/// A flag: any other byte is damage, and so there is one encoding of each message.
fn decode_flag<D: Decoder>(decoder: &mut D) -> Result<bool, DecodeError> {
    match u8::decode(decoder)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Other("a flag is neither 0 nor 1")),
    }
}

fn kind_of(kind: u8) -> Option<MessageKind> {
    Some(match kind {
        1 => MessageKind::Append,
        2 => MessageKind::AppendReply,
        3 => MessageKind::Vote,
        4 => MessageKind::VoteReply,
        5 => MessageKind::PreVote,
        6 => MessageKind::PreVoteReply,
        7 => MessageKind::Heartbeat,
        8 => MessageKind::HeartbeatReply,
        9 => MessageKind::ReadIndex,
        10 => MessageKind::ReadIndexReply,
        11 => MessageKind::TimeoutNow,
        12 => MessageKind::TransferLeader,
        13 => MessageKind::Snapshot,
        _ => return None,
    })
}

fn entry_kind_of(kind: u8) -> Option<EntryKind> {
    Some(match kind {
        1 => EntryKind::Transaction,
        2 => EntryKind::NoOp,
        3 => EntryKind::Membership,
        _ => return None,
    })
}

impl Encode for Message {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.kind as u8).encode(encoder)?;
        u8::from(self.reject).encode(encoder)?;
        let numbers = [
            self.from.0,
            self.to.0,
            self.term.0,
            self.log_term.0,
            self.index.0,
            self.committed.0,
            self.committed_term.0,
            self.reject_hint.0,
            self.request_snapshot.0,
        ];
        for number in numbers {
            number.encode(encoder)?;
        }
        self.priority.encode(encoder)?;
        encode_bytes(&self.context, CONTEXT_LEN_MAX, encoder)?;
        encode_len(self.entries.len(), ENTRIES_MAX, encoder)?;
        for entry in &self.entries {
            entry.encode(encoder)?;
        }
        u8::from(self.snapshot.is_some()).encode(encoder)?;
        self.snapshot.as_ref().map_or(Ok(()), |snapshot| snapshot.encode(encoder))
    }
}

impl<C> Decode<C> for Message {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Message, DecodeError> {
        let kind = kind_of(u8::decode(decoder)?);
        let kind = kind.ok_or(DecodeError::Other("unknown kind of message"))?;
        let reject = decode_flag(decoder)?;
        let mut next = || u64::decode(decoder);
        let (from, to, term) = (NodeId(next()?), NodeId(next()?), Term(next()?));
        let mut message = Message {
            reject,
            log_term: Term(next()?),
            index: Lsn(next()?),
            committed: Lsn(next()?),
            committed_term: Term(next()?),
            reject_hint: Lsn(next()?),
            request_snapshot: Lsn(next()?),
            ..Message::new(kind, from, to, term)
        };
        message.priority = i64::decode(decoder)?;
        message.context = decode_bytes(CONTEXT_LEN_MAX, decoder)?;
        let entry_count = decode_len(ENTRIES_MAX, decoder)?;
        message.entries.reserve_exact(entry_count);
        for _ in 0..entry_count {
            message.entries.push(EntryRef::decode(decoder)?);
        }
        if decode_flag(decoder)? {
            message.snapshot = Some(SnapshotRef::decode(decoder)?);
        }
        Ok(message)
    }
}

impl Encode for EntryRef {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.lsn.0, self.term.0).encode(encoder)?;
        (self.kind as u8).encode(encoder)?;
        (self.len, self.checksum).encode(encoder)
    }
}

impl<C> Decode<C> for EntryRef {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<EntryRef, DecodeError> {
        let (lsn, term) = (Lsn(u64::decode(decoder)?), Term(u64::decode(decoder)?));
        let kind = entry_kind_of(u8::decode(decoder)?);
        let kind = kind.ok_or(DecodeError::Other("unknown kind of entry"))?;
        let (len, checksum) = (u32::decode(decoder)?, u32::decode(decoder)?);
        Ok(EntryRef { lsn, term, kind, len, checksum })
    }
}

impl Encode for SnapshotRef {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.lsn.0, self.term.0).encode(encoder)?;
        encode_bytes(&self.members, MEMBERS_LEN_MAX, encoder)
    }
}

impl<C> Decode<C> for SnapshotRef {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<SnapshotRef, DecodeError> {
        let (lsn, term) = (Lsn(u64::decode(decoder)?), Term(u64::decode(decoder)?));
        let members = decode_bytes(MEMBERS_LEN_MAX, decoder)?;
        Ok(SnapshotRef { lsn, term, members })
    }
}

/// The message of a frame, whose attachments are as long as its entries say.
///
/// # Errors
/// It is none, or its attachments are not the records of its entries.
pub fn message_of(head: &FrameHead) -> Result<Message, WireError> {
    let message: Message = head.control()?;
    let lens = message.entries.iter().map(|entry| entry.len);
    if !lens.eq(head.attachment_lens().iter().copied()) {
        return Err(WireError::Layout("records are not as long as their entries say"));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{FrameKind, FrameReader, codec, encode_head},
        *,
    };

    fn full() -> Message {
        Message {
            log_term: Term(0x21),
            index: Lsn(0x22),
            committed: Lsn(0x23),
            committed_term: Term(0x24),
            reject: true,
            reject_hint: Lsn(0x25),
            request_snapshot: Lsn(0x26),
            priority: -1,
            context: vec![0xc1, 0xc2],
            entries: vec![EntryRef {
                lsn: Lsn(0x31),
                term: Term(0x32),
                kind: EntryKind::Membership,
                len: 0x33,
                checksum: 0x3435_3637,
            }],
            snapshot: Some(SnapshotRef { lsn: Lsn(0x41), term: Term(0x42), members: vec![0x43] }),
            ..Message::new(MessageKind::Append, NodeId(0x11), NodeId(0x12), Term(0x13))
        }
    }

    fn number(bytes: &mut Vec<u8>, low: u8) {
        bytes.extend([low, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn message_has_these_bytes() {
        let mut wanted = vec![1, 1];
        for low in [0x11, 0x12, 0x13, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26] {
            number(&mut wanted, low);
        }
        wanted.extend([0xff; 8]);
        wanted.extend([2, 0, 0, 0, 0xc1, 0xc2, 1, 0, 0, 0]);
        number(&mut wanted, 0x31);
        number(&mut wanted, 0x32);
        wanted.extend([3, 0x33, 0, 0, 0, 0x37, 0x36, 0x35, 0x34, 1]);
        number(&mut wanted, 0x41);
        number(&mut wanted, 0x42);
        wanted.extend([1, 0, 0, 0, 0x43]);
        let mut bytes = Vec::new();
        codec::encode(&full(), &mut bytes).expect("it keeps its bounds");
        assert_eq!(bytes, wanted);
        assert_eq!(codec::decode::<Message>(&bytes).expect("it is whole"), full());
    }

    #[test]
    fn every_kind_of_message_and_entry_comes_as_it_went() {
        for kind in 0..=255 {
            let mut bytes = Vec::new();
            let message = Message { kind: MessageKind::Append, ..full() };
            codec::encode(&message, &mut bytes).expect("it keeps its bounds");
            bytes[0] = kind;
            let decoded = codec::decode::<Message>(&bytes);
            assert_eq!(decoded.is_ok(), (1..=13).contains(&kind), "{kind}");
            assert!(decoded.is_err() || decoded.is_ok_and(|message| message.kind as u8 == kind));
            bytes[0] = 1;
            bytes[108] = kind;
            let decoded = codec::decode::<Message>(&bytes);
            assert_eq!(decoded.is_ok(), (1..=3).contains(&kind), "{kind}");
        }
    }

    #[test]
    fn message_beyond_its_bounds_is_neither_sent_nor_believed() {
        let entry = full().entries[0];
        let message = |context: usize, entries: usize, members: usize| Message {
            context: vec![0; context],
            entries: vec![entry; entries],
            snapshot: Some(SnapshotRef { members: vec![0; members], lsn: Lsn(1), term: Term(1) }),
            ..full()
        };
        let mut bytes = Vec::new();
        let (context, entries, members) = (CONTEXT_LEN_MAX, ENTRIES_MAX, MEMBERS_LEN_MAX);
        for long in [
            message(context + 1, entries, members),
            message(context, entries + 1, members),
            message(context, entries, members + 1),
        ] {
            let head = encode_head(&mut bytes, FrameKind::Message, &long, std::iter::empty());
            assert!(head.is_err() && bytes.is_empty(), "nothing of it is left");
        }
        codec::encode(&message(context, entries, members), &mut bytes).expect("at its bounds");
        let caps = PEER_CAPS;
        assert!(bytes.len() < caps.control_len as usize);
        assert!(codec::decode::<Message>(&bytes).is_ok());
        bytes[82] += 1;
        assert!(codec::decode::<Message>(&bytes).is_err());
    }

    #[test]
    fn records_of_other_lengths_than_the_entries_say_are_refused() {
        let read = |lens: &[usize]| {
            let mut bytes = Vec::new();
            encode_head(&mut bytes, FrameKind::Message, &full(), lens.iter().copied())
                .expect("it keeps its bounds");
            let mut reader = FrameReader::new(&bytes[..], PEER_CAPS);
            message_of(&reader.head().expect("a frame").expect("a frame"))
        };
        assert!(read(&[0x33]).is_ok());
        for lens in [&[0x32][..], &[], &[0x33, 0]] {
            assert!(matches!(read(lens), Err(WireError::Layout(_))), "{lens:?}");
        }
    }
}
