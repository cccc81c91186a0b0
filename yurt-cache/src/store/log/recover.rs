//! Opening: from whatever the directory holds to an index. Writes nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::index::{Change, Index, Location, State};
use super::record::Kind;
use super::roll::Spare;
use super::scan::{self, Condition, Content, Found, Item, Scanner};
use super::segment::{self, Header, Segment, SegmentId};
use super::tail::{self, Piece, Rest, Tail};

/// What was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// The last segment and how it ended.
    pub(super) last: Option<(SegmentId, Tail)>,
    /// `None` if the store is new.
    pub(super) salt: Option<u32>,
    pub(super) next_id: SegmentId,
    pub(super) next_sequence: u64,
    pub(super) damaged: u64,
    /// Segments that were created and never written.
    pub(super) blanks: Vec<SegmentId>,
    pub(super) spare: Option<Spare>,
}

/// A segment's file before its records are read.
#[derive(Debug)]
struct Candidate {
    file: Arc<dyn DiskFile>,
    header: Option<Header>,
    /// The header is that of an earlier life of the file.
    is_reused: bool,
    /// The salt of its records, once the store's is known.
    salt: u32,
    len: u32,
}

/// Reads the directory.
pub(super) fn recover(disk: &dyn Disk) -> io::Result<Recovered> {
    let names = disk.names()?;
    let ids: Vec<SegmentId> = names
        .iter()
        .filter_map(|name| segment::id_of(name))
        .collect();
    let mut recovered = Recovered {
        index: Index::default(),
        last: None,
        salt: None,
        next_id: ids.iter().max().map_or(0, |id| id.saturating_add(1)),
        next_sequence: 1,
        damaged: 0,
        blanks: Vec::new(),
        spare: names
            .iter()
            .any(|name| name == segment::SPARE)
            .then(|| spare(disk))
            .flatten(),
    };
    let mut candidates = BTreeMap::new();
    for id in ids {
        match candidate(disk, id) {
            Ok(candidate) => drop(candidates.insert(id, candidate)),
            Err(_) => recovered.damaged += 1,
        }
    }
    recovered.salt = salt(&candidates);
    recovered.sort_out(&mut candidates);
    recovered.drop_unfinished(&mut candidates);
    if let Some((last, _)) = candidates.last_key_value() {
        // Only the newest segment can have been created and not written.
        let emptied = recovered.blanks.iter().filter(|id| *id < last).count();
        recovered.damaged += u64::try_from(emptied).unwrap_or(u64::MAX);
    }
    recovered.replay_all(&candidates);
    recovered
        .index
        .sweep_tombstones(recovered.last.map(|(id, _)| id));
    Ok(recovered)
}

fn spare(disk: &dyn Disk) -> Option<Spare> {
    let file = disk.open(segment::SPARE).ok()?;
    let len = u32::try_from(file.len().ok()?).ok()?;
    Some(Spare { file, len })
}

fn candidate(disk: &dyn Disk, id: SegmentId) -> io::Result<Candidate> {
    let file = disk.open(&segment::name(id))?;
    let len = u32::try_from(file.len()?).unwrap_or(u32::MAX);
    let mut bytes = [0; segment::HEADER_LEN];
    let header = match file.read_at(&mut bytes, 0) {
        Ok(_) => Header::decode(&bytes),
        Err(_) => None,
    };
    Ok(Candidate {
        file,
        header: header.filter(|header| header.id == id),
        is_reused: header.is_some_and(|header| header.id != id),
        salt: 0,
        len,
    })
}

/// Returns the salt that most headers have, else that of the first record that proves itself.
fn salt(candidates: &BTreeMap<SegmentId, Candidate>) -> Option<u32> {
    let mut votes = BTreeMap::<u32, usize>::new();
    for header in candidates.values().filter_map(|candidate| candidate.header) {
        *votes.entry(header.salt).or_default() += 1;
    }
    let elected = votes
        .into_iter()
        .max_by_key(|(_, votes)| *votes)
        .map(|(salt, _)| salt);
    elected.or_else(|| {
        candidates.iter().find_map(|(id, candidate)| {
            let salt = scan::find_salt(&*candidate.file, candidate.len)?;
            // The same step leads there and back.
            Some(segment::record_salt(salt, *id))
        })
    })
}

impl Recovered {
    /// Leaves only this store's segments.
    fn sort_out(&mut self, candidates: &mut BTreeMap<SegmentId, Candidate>) {
        let salt = self.salt.unwrap_or(0);
        candidates.retain(|id, candidate| {
            candidate.salt = segment::record_salt(salt, *id);
            if let Some(header) = candidate.header {
                let is_ours = header.salt == salt;
                self.damaged += u64::from(!is_ours);
                return is_ours;
            }
            let mut scanner = Scanner::new(&*candidate.file, candidate.salt, 0, candidate.len);
            match scanner.next() {
                None => {
                    self.blanks.push(*id);
                    false
                }
                Some(Item::Gap(gap)) if gap.end == candidate.len => {
                    match gap.content {
                        Content::Zeros => self.blanks.push(*id),
                        Content::Garbage if candidate.is_reused => self.blanks.push(*id),
                        Content::Garbage => self.damaged += 1,
                    }
                    false
                }
                // Its header is a gap, which the replay counts.
                Some(_) => true,
            }
        });
    }

    /// Leaves out a last segment that does not count yet: one that was to replace the end of the one
    /// before, or that lost its header before it was ever synced, and may have been such a one.
    fn drop_unfinished(&mut self, candidates: &mut BTreeMap<SegmentId, Candidate>) {
        while let Some((id, last)) = candidates.last_key_value() {
            let tail = self.judge(last);
            let needed = last.header.map_or(1, |header| header.rescue_end);
            if tail.end >= needed {
                break;
            }
            self.damaged += u64::from(last.header.is_none() && tail.rest == Rest::Dubious);
            self.blanks.push(*id);
            candidates.pop_last();
        }
    }

    fn replay_all(&mut self, candidates: &BTreeMap<SegmentId, Candidate>) {
        let mut followers = candidates.values().skip(1);
        for (id, candidate) in candidates {
            let follower = followers.next();
            let extent = match follower {
                Some(follower) => Extent::of_sealed(*id, candidate, follower),
                None => {
                    let tail = self.judge(candidate);
                    self.damaged += u64::from(tail.rest == Rest::Dubious);
                    self.last = Some((*id, tail));
                    Extent {
                        end: tail.end,
                        closing: Closing::Any,
                    }
                }
            };
            self.replay(*id, candidate, extent);
        }
    }

    fn judge(&self, candidate: &Candidate) -> Tail {
        let mut scanner = self.scanner(candidate, candidate.len);
        let mut pieces = Vec::new();
        while let Some(item) = scanner.next() {
            pieces.push(Piece::from(&item));
        }
        let first = candidate.header.map(|header| header.sequence);
        tail::judge(start_of(candidate), first, &pieces)
    }

    fn scanner<'a>(&self, candidate: &'a Candidate, end: u32) -> Scanner<'a> {
        Scanner::new(&*candidate.file, candidate.salt, start_of(candidate), end)
    }

    fn replay(&mut self, id: SegmentId, candidate: &Candidate, extent: Extent) {
        self.index.add_segment(
            id,
            Segment {
                file: Arc::clone(&candidate.file),
                end: extent.end,
                disk_bytes: u64::from(candidate.len),
                live: 0,
            },
        );
        if let Some(header) = candidate.header {
            self.next_sequence = self.next_sequence.max(header.sequence);
        }
        let mut scanner = self.scanner(candidate, extent.end);
        let mut closed = start_of(candidate);
        let mut is_sealed = false;
        while let Some(item) = scanner.next() {
            match item {
                Item::Record(found) => {
                    closed = found.end;
                    is_sealed = found.header.kind == Kind::Seal;
                    self.apply(id, &found);
                }
                Item::Gap(_) => self.damaged += 1,
            }
        }
        let is_whole = match extent.closing {
            Closing::Any => true,
            Closing::At(end) => closed == end,
            Closing::Seal => is_sealed,
        };
        self.damaged += u64::from(!is_whole && closed >= extent.end);
    }

    fn apply(&mut self, id: SegmentId, found: &Found) {
        let header = &found.header;
        let following = header.place.sequence.saturating_add(1);
        self.next_sequence = self.next_sequence.max(following);
        self.damaged += u64::from(found.condition != Condition::Intact);
        let location = Location {
            segment: id,
            offset: found.offset,
        };
        let state = match found.condition {
            Condition::Intact | Condition::Repaired => State::Present,
            Condition::Damaged => State::Damaged,
        };
        let change = match header.kind {
            Kind::Put => Change::Put {
                value_len: header.value_len,
                state,
            },
            Kind::Delete => Change::Delete,
            Kind::Lost => {
                self.damaged += 1;
                Change::Put {
                    value_len: header.value_len,
                    state: State::Damaged,
                }
            }
            Kind::Mark | Kind::Seal => return,
        };
        self.index.apply(&found.key, change, location);
    }
}

/// Returns where records begin: without a header even its place is searched.
fn start_of(candidate: &Candidate) -> u32 {
    match candidate.header {
        Some(_) => segment::HEADER_LEN_U32,
        None => 0,
    }
}

/// The part of a segment that counts.
#[derive(Clone, Copy, Debug)]
struct Extent {
    end: u32,
    closing: Closing,
}

/// How the last record shows that nothing was cut off behind it.
#[derive(Clone, Copy, Debug)]
enum Closing {
    Any,
    At(u32),
    Seal,
}

impl Extent {
    fn of_sealed(id: SegmentId, candidate: &Candidate, follower: &Candidate) -> Self {
        match follower.header {
            Some(header) if header.previous == id => Self {
                end: header.previous_end.min(candidate.len),
                closing: Closing::At(header.previous_end),
            },
            _ => Self {
                end: candidate.len,
                closing: Closing::Seal,
            },
        }
    }
}
