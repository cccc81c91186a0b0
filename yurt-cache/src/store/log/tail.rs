//! Where the last segment ends after its writer was cut off: pure.
//!
//! What a mark vouches for was synced, so what is broken there is damage and costs only itself. Behind
//! it writes may be missing, torn or out of order: the log ends before the first batch that is not whole.

use super::record::{Kind, Place};
use super::scan::{Condition, Content, Item};

/// A piece of the last segment, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    end: u32,
    kind: PieceKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceKind {
    Whole(Place),
    Broken(Place),
    Mark(u64),
    /// Written before the sync of a full segment, so that it vouches for nothing in the last one.
    Seal,
    Garbage,
    Zeros,
}

impl From<&Item> for Piece {
    fn from(item: &Item) -> Self {
        match item {
            Item::Record(found) => {
                let place = found.header.place;
                let kind = match (found.header.kind, found.condition) {
                    (Kind::Mark, _) => PieceKind::Mark(place.sequence),
                    (Kind::Seal, _) => PieceKind::Seal,
                    (_, Condition::Intact | Condition::Repaired) => PieceKind::Whole(place),
                    (_, Condition::Damaged) => PieceKind::Broken(place),
                };
                Self {
                    end: found.end,
                    kind,
                }
            }
            Item::Gap(gap) => Self {
                end: gap.end,
                kind: match gap.content {
                    Content::Zeros => PieceKind::Zeros,
                    Content::Garbage => PieceKind::Garbage,
                },
            },
        }
    }
}

/// How the last segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where the valid part ends.
    pub(super) end: u32,
    /// What stands behind it.
    pub(super) rest: Rest,
}

/// What stands behind the valid part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Room: the segment can be continued.
    Room,
    /// A seal is the last record: the segment is full.
    Sealed,
    /// What is left of a batch that was being written.
    Torn,
    /// Whole batches behind a broken one: a power cut that reordered writes, or damage.
    Dubious,
}

/// Judges the last segment; `first` is the sequence number of its first batch, if known.
pub(super) fn judge(start: u32, first: Option<u64>, pieces: &[Piece]) -> Tail {
    let vouched = pieces.iter().filter_map(Piece::mark).max();
    let known = pieces
        .iter()
        .rposition(|piece| piece.is_vouched(vouched))
        .map_or(0, |at| at + 1);
    let mut end = known.checked_sub(1).map_or(start, |last| pieces[last].end);
    let mut expected = vouched.map(|sequence| sequence.saturating_add(1)).or(first);
    let mut next_index = 0;
    let mut sealed = false;
    for (at, piece) in pieces.iter().enumerate().skip(known) {
        match piece.kind {
            PieceKind::Mark(_) | PieceKind::Seal if next_index == 0 => {
                end = piece.end;
                sealed = piece.kind == PieceKind::Seal;
            }
            PieceKind::Whole(place)
                if place.sequence == *expected.get_or_insert(place.sequence)
                    && place.index == next_index
                    && place.index < place.count =>
            {
                next_index += 1;
                if next_index == place.count {
                    end = piece.end;
                    expected = Some(place.sequence.saturating_add(1));
                    next_index = 0;
                }
            }
            _ => {
                return Tail {
                    end,
                    rest: rest(next_index, sealed, &pieces[at..]),
                };
            }
        }
    }
    let rest = match (next_index, sealed) {
        (0, false) => Rest::Room,
        (0, true) => Rest::Sealed,
        _ => Rest::Torn,
    };
    Tail { end, rest }
}

fn rest(next_index: u32, sealed: bool, behind: &[Piece]) -> Rest {
    let is_blank = behind.iter().all(|piece| piece.kind == PieceKind::Zeros);
    let begins_a_batch = |piece: &Piece| {
        matches!(
            piece.kind,
            PieceKind::Whole(Place { index: 0, .. }) | PieceKind::Mark(_)
        )
    };
    if next_index == 0 && is_blank {
        return if sealed { Rest::Sealed } else { Rest::Room };
    }
    if behind.iter().any(begins_a_batch) {
        Rest::Dubious
    } else {
        Rest::Torn
    }
}

impl Piece {
    fn mark(&self) -> Option<u64> {
        match self.kind {
            PieceKind::Mark(sequence) => Some(sequence),
            _ => None,
        }
    }

    fn is_vouched(&self, vouched: Option<u64>) -> bool {
        match self.kind {
            PieceKind::Whole(place) | PieceKind::Broken(place) => {
                vouched.is_some_and(|sequence| place.sequence <= sequence)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `b1.0/2`: record 0 of 2 of batch 1; `x…` the same, broken; `m1` a mark, `s` a seal; `?` garbage; `_` zeros.
    fn pieces(text: &str) -> Vec<Piece> {
        let number = |text: &str| text.parse::<u32>().unwrap();
        let piece = |(at, word): (usize, &str)| {
            let (letter, rest) = word.split_at(1);
            let place = || {
                let (sequence, rest) = rest.split_once('.').unwrap();
                let (index, count) = rest.split_once('/').unwrap();
                Place {
                    sequence: number(sequence).into(),
                    index: number(index),
                    count: number(count),
                }
            };
            let kind = match letter {
                "b" => PieceKind::Whole(place()),
                "x" => PieceKind::Broken(place()),
                "m" => PieceKind::Mark(number(rest).into()),
                "s" => PieceKind::Seal,
                "?" => PieceKind::Garbage,
                _ => PieceKind::Zeros,
            };
            Piece {
                end: u32::try_from(at).unwrap() + 1,
                kind,
            }
        };
        text.split_whitespace().enumerate().map(piece).collect()
    }

    #[test]
    fn the_log_ends_before_the_first_batch_that_is_not_whole_and_not_vouched_for() {
        for (text, end, rest) in [
            ("", 0, Rest::Room),
            ("_", 0, Rest::Room),
            ("b1.0/1 b2.0/2 b2.1/2", 3, Rest::Room),
            ("b1.0/1 b2.0/2 b2.1/2 _", 3, Rest::Room),
            ("b1.0/1 m1 s", 3, Rest::Sealed),
            ("b1.0/1 m1 s _", 3, Rest::Sealed),
            // Torn in the middle, or its first part missing.
            ("b1.0/1 b2.0/2", 1, Rest::Torn),
            ("b1.0/1 b2.0/2 _", 1, Rest::Torn),
            ("b1.0/1 b2.0/2 ?", 1, Rest::Torn),
            ("b1.0/1 b2.0/2 x2.1/2", 1, Rest::Torn),
            ("b1.0/1 ? b2.1/2", 1, Rest::Torn),
            ("b1.0/1 x2.0/1 b3.0/1", 1, Rest::Dubious),
            ("b1.0/1 _ b3.0/1", 1, Rest::Dubious),
            // What a mark vouches for is not torn.
            ("x1.0/1 b2.0/1 m2", 3, Rest::Room),
            ("? b2.0/2 b2.1/2 m2 b3.0/1 _", 5, Rest::Room),
            ("b1.0/1 ? b3.0/1 b4.0/1 m3 b5.0/2", 5, Rest::Torn),
            // A mark vouches only for what was written before its sync.
            ("b1.0/1 b2.0/1 m1 x3.0/1", 3, Rest::Torn),
            ("b1.0/1 x2.0/1 m1 b3.0/1", 1, Rest::Dubious),
            // Nor does a seal: it is written before its sync.
            ("b1.0/1 ? b2.1/2 s", 1, Rest::Torn),
            // Left over from a batch that was refused.
            ("b1.0/1 b1.1/3 b1.2/3", 1, Rest::Torn),
            ("b1.0/1 b3.0/1", 1, Rest::Dubious),
        ] {
            assert_eq!(
                judge(0, Some(1), &pieces(text)),
                Tail { end, rest },
                "{text}"
            );
        }
    }

    #[test]
    fn without_a_header_the_first_whole_record_counts() {
        let tail = judge(0, None, &pieces("b7.0/1 b8.0/1 _"));
        assert_eq!(
            tail,
            Tail {
                end: 2,
                rest: Rest::Room
            }
        );
    }
}
