//! Members of a cluster: who votes, who learns, and where each is reached.
//!
//! | Offset | Size | Field     | Meaning                                                      |
//! |-------:|-----:|-----------|--------------------------------------------------------------|
//! |      0 |    4 | `magic`   | `TPMB`                                                       |
//! |      4 |    2 | `version` | Format version, now 1                                        |
//! |      6 |    2 | `count`   | Members that follow                                          |
//! |      8 |    8 | `highest` | Highest number that a node of this cluster ever had          |
//!
//! Then each member, by rising number: its number (u64), its standing (u8: 1 votes, 2 votes until the
//! change of members is complete, 3 both, 4 learns), the lengths of its address and its label (u16
//! each), and these as UTF-8. Nothing follows.
//!
//! Voters change in two steps (joint consensus). After the first, the old voters and the new ones each
//! have to agree; the second leaves the old ones behind. One change at a time: another one is refused
//! until the second step is done.

use std::collections::BTreeMap;

use crate::ids::NodeId;

/// Members of a cluster, at most.
pub const MEMBERS_MAX: usize = 64;
/// Bytes of an address, at most: a host name and a port.
pub const ADDRESS_LEN_MAX: usize = 300;
/// Bytes of a label, at most.
pub const LABEL_LEN_MAX: usize = 100;

const MAGIC: [u8; 4] = *b"TPMB";
const VERSION: u16 = 1;
const HEADER_SIZE: usize = 16;
const MEMBER_SIZE_MIN: usize = 8 + 1 + 2 + 2;

/// Where a node is reached, and what people call it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Host and port, as its transport understands it.
    pub address: String,
    /// A name for people; may be empty.
    pub label: String,
}

/// What a member is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Standing {
    /// It will vote, and does.
    Voter = 1,
    /// It votes until the change of members is complete, and is none then.
    Leaving = 2,
    /// It votes, before and after the change that is going on.
    Staying = 3,
    /// It has all records and no vote.
    Learner = 4,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// What it is there for.
    pub standing: Standing,
    /// Where it is.
    pub place: Place,
}

/// Who belongs to a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members {
    members: BTreeMap<NodeId, Member>,
    highest: u64,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new node, which receives all records and has no vote.
    AddLearner {
        /// Its number: higher than any that the cluster has seen.
        id: NodeId,
        /// Where it is.
        place: Place,
    },
    /// A learner gets a vote.
    Promote(NodeId),
    /// A voter or learner goes. Its number is never used again.
    Remove(NodeId),
    /// A learner takes the vote of a voter, which goes: at once, so that no fewer nodes may fail meanwhile.
    Replace {
        /// The voter that goes.
        old: NodeId,
        /// The learner that takes its place.
        new: NodeId,
    },
    /// A member is reached elsewhere.
    Move {
        /// Which one.
        id: NodeId,
        /// Where it is now.
        place: Place,
    },
    /// The second step of a change of voters. The replica proposes it by itself.
    Complete,
}

/// Why a change of members is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The number is not that of a new node.
    #[error("node {id} cannot be new: the cluster has had numbers up to {highest}")]
    NumberUsed {
        /// The number.
        id: NodeId,
        /// The highest that was used.
        highest: u64,
    },
    /// No such member.
    #[error("node {0} is not a member")]
    NotMember(NodeId),
    /// The member has another standing than this change needs.
    #[error("node {id} is {standing:?}, which this change is not for")]
    Standing {
        /// The member.
        id: NodeId,
        /// What it is.
        standing: Standing,
    },
    /// Nobody could vote any more.
    #[error("node {0} is the last voter")]
    LastVoter(NodeId),
    /// The previous change is not complete.
    #[error("another change of the members is not complete yet; try again")]
    Pending,
    /// There is nothing to complete.
    #[error("no change of the members is going on")]
    NothingPending,
    /// There are too many.
    #[error("a cluster has at most {MEMBERS_MAX} members")]
    TooMany,
    /// An address or label is empty or too long.
    #[error("an address has 1 to {ADDRESS_LEN_MAX} bytes, a label at most {LABEL_LEN_MAX}")]
    Place,
    /// The members after it do not follow from the members before it in one step.
    #[error("the members do not follow from those before them")]
    NotAStep,
    /// It has not caught up: it would hold commits up. Try again when it has.
    #[error("node {id} is {behind} records behind; it may get a vote when it has caught up")]
    Behind {
        /// The learner.
        id: NodeId,
        /// Records that it lacks.
        behind: u64,
    },
    /// Only a leader that is open for writes can change them.
    #[error("this node does not lead")]
    NotLeader {
        /// Who does, if known.
        leader: Option<NodeId>,
    },
}

/// Stored members break their layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the members are damaged: {0}")]
pub struct Damaged(&'static str);

impl Members {
    /// A cluster of one voter.
    ///
    /// # Errors
    /// [`ChangeError::Place`] when the address does not do.
    pub fn found(id: NodeId, place: Place) -> Result<Members, ChangeError> {
        check_place(&place)?;
        let first = Member { standing: Standing::Voter, place };
        Ok(Members { members: BTreeMap::from([(id, first)]), highest: id.0 })
    }

    /// All members, by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// One member.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The highest number that a node of this cluster ever had.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether there are none: a node that has not joined yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a change of voters is half done.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.members.values().any(|m| matches!(m.standing, Standing::Leaving | Standing::Staying))
    }

    /// Those who vote, after the change that may be going on.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.with(|standing| matches!(standing, Standing::Voter | Standing::Staying))
    }

    /// Those who voted before the change that is going on; none when there is none.
    pub fn outgoing(&self) -> impl Iterator<Item = NodeId> {
        self.with(|standing| matches!(standing, Standing::Leaving | Standing::Staying))
    }

    /// Those who learn.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> {
        self.with(|standing| standing == Standing::Learner)
    }

    fn with(&self, wanted: impl Fn(Standing) -> bool) -> impl Iterator<Item = NodeId> {
        let chosen = self.members.iter().filter(move |(_, member)| wanted(member.standing));
        chosen.map(|(id, _)| *id)
    }

    /// The members after a change.
    ///
    /// # Errors
    /// [`ChangeError`], which says why the change is not possible here.
    pub fn after(&self, change: &Change) -> Result<Members, ChangeError> {
        let mut next = self.clone();
        match change {
            Change::Complete if !self.is_joint() => return Err(ChangeError::NothingPending),
            Change::Complete => next.complete(),
            _ if self.is_joint() => return Err(ChangeError::Pending),
            Change::AddLearner { id, place } => next.add(*id, place)?,
            Change::Promote(id) => {
                self.expect(*id, Standing::Learner)?;
                next.begin(&[*id], &[]);
            }
            Change::Remove(id) => next.remove(*id)?,
            Change::Replace { old, new } => {
                self.expect(*old, Standing::Voter)?;
                self.expect(*new, Standing::Learner)?;
                next.begin(&[*new], &[*old]);
            }
            Change::Move { id, place } => {
                check_place(place)?;
                let member = next.members.get_mut(id).ok_or(ChangeError::NotMember(*id))?;
                member.place = place.clone();
            }
        }
        Ok(next)
    }

    fn expect(&self, id: NodeId, standing: Standing) -> Result<(), ChangeError> {
        let member = self.get(id).ok_or(ChangeError::NotMember(id))?;
        match member.standing == standing {
            true => Ok(()),
            false => Err(ChangeError::Standing { id, standing: member.standing }),
        }
    }

    fn add(&mut self, id: NodeId, place: &Place) -> Result<(), ChangeError> {
        check_place(place)?;
        if id.0 <= self.highest {
            return Err(ChangeError::NumberUsed { id, highest: self.highest });
        }
        if self.members.len() >= MEMBERS_MAX {
            return Err(ChangeError::TooMany);
        }
        self.highest = id.0;
        self.members.insert(id, Member { standing: Standing::Learner, place: place.clone() });
        Ok(())
    }

    fn remove(&mut self, id: NodeId) -> Result<(), ChangeError> {
        match self.get(id).ok_or(ChangeError::NotMember(id))?.standing {
            Standing::Learner => drop(self.members.remove(&id)),
            _ if self.voters().count() == 1 => return Err(ChangeError::LastVoter(id)),
            _ => self.begin(&[], &[id]),
        }
        Ok(())
    }

    /// The first step of a change of voters.
    fn begin(&mut self, joining: &[NodeId], leaving: &[NodeId]) {
        for (id, member) in &mut self.members {
            member.standing = match member.standing {
                Standing::Voter if leaving.contains(id) => Standing::Leaving,
                Standing::Voter => Standing::Staying,
                _ if joining.contains(id) => Standing::Voter,
                other => other,
            };
        }
    }

    /// The second one.
    fn complete(&mut self) {
        self.members.retain(|_, member| member.standing != Standing::Leaving);
        for member in self.members.values_mut() {
            if member.standing == Standing::Staying {
                member.standing = Standing::Voter;
            }
        }
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + self.members.len() * 64);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&short(self.members.len()).to_le_bytes());
        bytes.extend_from_slice(&self.highest.to_le_bytes());
        for (id, member) in &self.members {
            bytes.extend_from_slice(&id.0.to_le_bytes());
            bytes.push(member.standing as u8);
            bytes.extend_from_slice(&short(member.place.address.len()).to_le_bytes());
            bytes.extend_from_slice(&short(member.place.label.len()).to_le_bytes());
            bytes.extend_from_slice(member.place.address.as_bytes());
            bytes.extend_from_slice(member.place.label.as_bytes());
        }
        bytes
    }

    /// Reads stored bytes, which nobody has to trust.
    ///
    /// # Errors
    /// [`Damaged`] when a rule of the layout is broken, or the version is newer.
    pub fn decode(bytes: &[u8]) -> Result<Members, Damaged> {
        let mut rest = bytes;
        if take(&mut rest)? != MAGIC {
            return Err(Damaged("the magic is missing"));
        }
        if u16::from_le_bytes(take(&mut rest)?) != VERSION {
            return Err(Damaged("an unknown version"));
        }
        let count = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let highest = u64::from_le_bytes(take(&mut rest)?);
        if count > MEMBERS_MAX || count * MEMBER_SIZE_MIN > rest.len() {
            return Err(Damaged("it has more members than bytes"));
        }
        let mut members = BTreeMap::new();
        for _ in 0..count {
            let (id, member) = decode_member(&mut rest)?;
            let last = members.last_key_value().map_or(NodeId::NONE, |(last, _)| *last);
            if id <= last || id.0 > highest {
                return Err(Damaged("its numbers do not rise, or pass the highest"));
            }
            members.insert(id, member);
        }
        let members = Members { members, highest };
        match rest.is_empty() && members.is_possible() {
            true => Ok(members),
            false => Err(Damaged("nobody votes, or bytes follow")),
        }
    }

    fn is_possible(&self) -> bool {
        let has_voters = self.voters().next().is_some();
        // Without a change that is going on, nobody leaves; with one, some voted before.
        has_voters || self.members.is_empty()
    }
}

fn decode_member(rest: &mut &[u8]) -> Result<(NodeId, Member), Damaged> {
    let id = NodeId(u64::from_le_bytes(take(rest)?));
    let [standing] = take(rest)?;
    let standing = match standing {
        1 => Standing::Voter,
        2 => Standing::Leaving,
        3 => Standing::Staying,
        4 => Standing::Learner,
        _ => return Err(Damaged("an unknown standing")),
    };
    let address_len = usize::from(u16::from_le_bytes(take(rest)?));
    let label_len = usize::from(u16::from_le_bytes(take(rest)?));
    let place = Place { address: text(rest, address_len)?, label: text(rest, label_len)? };
    check_place(&place).map_err(|_| Damaged("an address or label of a wrong length"))?;
    Ok((id, Member { standing, place }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damaged> {
    let (first, behind) = rest.split_first_chunk().ok_or(Damaged("it ends early"))?;
    *rest = behind;
    Ok(*first)
}

fn text(rest: &mut &[u8], len: usize) -> Result<String, Damaged> {
    let (first, behind) = rest.split_at_checked(len).ok_or(Damaged("it ends early"))?;
    *rest = behind;
    let text = str::from_utf8(first).map_err(|_| Damaged("an address is not UTF-8"))?;
    Ok(text.to_owned())
}

fn check_place(place: &Place) -> Result<(), ChangeError> {
    let fits = (1..=ADDRESS_LEN_MAX).contains(&place.address.len());
    match fits && place.label.len() <= LABEL_LEN_MAX {
        true => Ok(()),
        false => Err(ChangeError::Place),
    }
}

fn short(len: usize) -> u16 {
    u16::try_from(len).expect("members, addresses and labels are fewer or shorter than 65,536")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str) -> Place {
        Place { address: address.to_owned(), label: String::new() }
    }

    fn add(id: u64) -> Change {
        Change::AddLearner { id: NodeId(id), place: place("host:1") }
    }

    fn three() -> Members {
        let mut members = Members::found(NodeId(1), place("host:1")).expect("fits");
        for id in 2..=3 {
            members = members.after(&add(id)).expect("new");
            members = members.after(&Change::Promote(NodeId(id))).expect("a learner");
            members = members.after(&Change::Complete).expect("half done");
        }
        members
    }

    fn numbers(ids: impl Iterator<Item = NodeId>) -> Vec<u64> {
        ids.map(|id| id.0).collect()
    }

    #[test]
    fn voters_change_in_two_steps_and_no_other_change_comes_between() {
        let members = three().after(&add(4)).expect("new");
        let joint = members
            .after(&Change::Replace { old: NodeId(2), new: NodeId(4) })
            .expect("a voter and a learner");
        assert!(joint.is_joint());
        assert_eq!(numbers(joint.voters()), [1, 3, 4]);
        assert_eq!(numbers(joint.outgoing()), [1, 2, 3]);
        for change in [add(5), Change::Remove(NodeId(1)), Change::Promote(NodeId(4))] {
            assert_eq!(joint.after(&change), Err(ChangeError::Pending));
        }
        let done = joint.after(&Change::Complete).expect("half done");
        assert_eq!(numbers(done.voters()), [1, 3, 4]);
        assert!(!done.is_joint() && done.get(NodeId(2)).is_none());
        assert_eq!(done.after(&Change::Complete), Err(ChangeError::NothingPending));
    }

    #[test]
    fn number_of_a_removed_node_is_never_used_again() {
        let members = three().after(&add(7)).expect("new");
        let members = members.after(&Change::Remove(NodeId(7))).expect("a learner");
        let refused = ChangeError::NumberUsed { id: NodeId(7), highest: 7 };
        assert_eq!(members.after(&add(7)), Err(refused));
        assert!(members.after(&add(8)).is_ok());
    }

    #[test]
    fn last_voter_and_strangers_stay_as_they_are() {
        let one = Members::found(NodeId(1), place("host:1")).expect("fits");
        assert_eq!(one.after(&Change::Remove(NodeId(1))), Err(ChangeError::LastVoter(NodeId(1))));
        assert_eq!(one.after(&Change::Promote(NodeId(9))), Err(ChangeError::NotMember(NodeId(9))));
        let voter = ChangeError::Standing { id: NodeId(1), standing: Standing::Voter };
        assert_eq!(one.after(&Change::Promote(NodeId(1))), Err(voter));
        let empty = Change::Move { id: NodeId(1), place: place("") };
        assert_eq!(one.after(&empty), Err(ChangeError::Place));
    }

    #[test]
    fn stored_members_have_these_bytes() {
        let members = Members::found(NodeId(1), Place { address: "a:1".into(), label: "x".into() })
            .expect("fits")
            .after(&Change::AddLearner { id: NodeId(0x0203), place: place("b") })
            .expect("new");
        let expected = [
            &b"TPMB\x01\0\x02\0\x03\x02\0\0\0\0\0\0"[..],
            b"\x01\0\0\0\0\0\0\0\x01\x03\0\x01\0a:1x",
            b"\x03\x02\0\0\0\0\0\0\x04\x01\0\0\0b",
        ];
        assert_eq!(members.encode(), expected.concat());
        assert_eq!(Members::decode(&expected.concat()), Ok(members));
    }

    #[test]
    fn hostile_bytes_are_refused_and_never_panic() {
        let joint = three().after(&Change::Remove(NodeId(2))).expect("a voter");
        let valid = joint.encode();
        assert_eq!(Members::decode(&valid), Ok(joint));
        for cut in 0..valid.len() {
            assert!(Members::decode(&valid[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..valid.len() {
            for value in [0, 1, 2, 4, 5, 0x7f, 0xff] {
                let mut bytes = valid.clone();
                bytes[at] = value;
                if let Ok(members) = Members::decode(&bytes) {
                    assert_eq!(members.encode(), bytes, "what is read is what is stored");
                }
            }
        }
        assert!(Members::decode(&[valid, vec![0]].concat()).is_err());
    }
}
