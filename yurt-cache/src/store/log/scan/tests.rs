use std::collections::BTreeMap;

use super::super::disk::Disk;
use super::super::disk::recorded::RecordedDisk;
use super::super::record::Place;
use super::*;

const SALT: u32 = 7;
const KEYS: [&str; 3] = ["a", "b/second", "c"];
const VALUE: [u8; 100] = [0x55; 100];
/// Where the second record begins.
const SECOND: usize = 144;

fn log() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, key) in (0..).zip(KEYS) {
        let place = Place {
            sequence: 1,
            index,
            count: 3,
        };
        record::append(
            &mut bytes,
            SALT,
            record::Kind::Put,
            place,
            key.as_bytes(),
            &VALUE,
        );
    }
    bytes
}

fn scan(bytes: &[u8]) -> Vec<Item> {
    let files = BTreeMap::from([("file".to_owned(), bytes.to_vec())]);
    let file = RecordedDisk::with_files(files).open("file").unwrap();
    let end = u32::try_from(bytes.len()).unwrap();
    let mut scanner = Scanner::new(&*file, SALT, 0, end);
    std::iter::from_fn(|| scanner.next()).collect()
}

fn conditions(bytes: &[u8]) -> Vec<Option<Condition>> {
    let condition = |item: &Item| match item {
        Item::Record(found) => Some(found.condition),
        Item::Gap(_) => None,
    };
    scan(bytes).iter().map(condition).collect()
}

#[test]
fn each_flipped_bit_is_undone_or_costs_its_value_and_is_told() {
    let len = record::HEADER_LEN + KEYS[1].len();
    for bit in 0..(len + VALUE.len()) * 8 {
        let mut bytes = log();
        bytes[SECOND + bit / 8] ^= 1 << (bit % 8);
        let expected = if bit / 8 < len {
            Condition::Repaired
        } else {
            Condition::Damaged
        };
        let found = conditions(&bytes);
        assert_eq!(
            found,
            [
                Some(Condition::Intact),
                Some(expected),
                Some(Condition::Intact)
            ],
            "bit {bit}"
        );
        let key = |item: &Item| match item {
            Item::Record(found) => String::from_utf8(found.key.clone()).unwrap(),
            Item::Gap(_) => String::new(),
        };
        assert_eq!(
            scan(&bytes).iter().map(key).collect::<Vec<_>>(),
            KEYS,
            "bit {bit}"
        );
    }
}

#[test]
fn a_lost_header_costs_one_record() {
    let mut bytes = log();
    bytes[SECOND..SECOND + 20].fill(0xee);
    assert_eq!(
        conditions(&bytes),
        [Some(Condition::Intact), None, Some(Condition::Intact)]
    );
}

#[test]
fn a_value_that_holds_records_of_another_store_is_only_a_value() {
    let mut bytes = Vec::new();
    let place = Place {
        sequence: 1,
        index: 0,
        count: 1,
    };
    let foreign = {
        let mut bytes = Vec::new();
        record::append(
            &mut bytes,
            SALT + 1,
            record::Kind::Put,
            place,
            b"admin",
            b"me",
        );
        bytes
    };
    record::append(
        &mut bytes,
        SALT,
        record::Kind::Put,
        place,
        b"longkey!",
        &foreign,
    );
    bytes[..30].fill(0);
    assert_eq!(
        conditions(&bytes),
        [None],
        "the header is lost, and nothing found behind it"
    );
}

#[test]
fn any_bytes_are_scanned_to_their_end() {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..600_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        })
        .collect();
    assert_eq!(conditions(&noise), [None]);
    let mut around = log();
    around.extend_from_slice(&noise);
    around.extend(log());
    assert_eq!(conditions(&around).iter().flatten().count(), 6);
    assert_eq!(conditions(&log()[..100]).len(), 1);
}
