use std::sync::mpsc;
use std::time::Duration;

use yurt_core::testing::fault::{Call, FailNth, FaultyStore, SlowStore};

use super::queue::{BYTES, COUNT, Next, TRIES};
use super::*;
use crate::codec::protobuf;
use crate::store::MemoryStore;

fn event(name: &str, body: &str) -> Event {
    Event {
        path: "/api/v1/namespaces/a/events".into(),
        name: name.into(),
        content_type: "application/json".into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn queued(outbox: &Outbox) -> Vec<String> {
    let queue = outbox.queue.lock();
    queue
        .entries
        .iter()
        .map(|entry| {
            let stored = outbox.store.get(&stored_key(entry.number)).unwrap();
            Event::decode(stored.unwrap()).unwrap().name
        })
        .collect()
}

#[test]
fn events_wait_in_their_order_over_a_restart_and_a_later_word_replaces_an_earlier_one() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let outbox = Outbox::open(store.clone()).unwrap();
    for (name, body) in [("a", "1"), ("b", "1"), ("a", "2\n\n3")] {
        outbox.push(event(name, body)).unwrap();
    }
    assert_eq!(queued(&outbox), ["b", "a"]);
    let again = Outbox::open(store.clone()).unwrap();
    assert_eq!(queued(&again), ["b", "a"]);
    assert_eq!(again.size(), outbox.size());
    let last = store.get(&stored_key(3)).unwrap().unwrap();
    assert_eq!(Event::decode(last).unwrap(), event("a", "2\n\n3"));
    again.push(event("c", "1")).unwrap();
    assert_eq!(queued(&again), ["b", "a", "c"]);
}

#[test]
fn the_oldest_are_dropped_and_counted_beyond_the_bounds() {
    let outbox = Outbox::open(Arc::new(MemoryStore::default())).unwrap();
    for number in 0..COUNT + 3 {
        outbox.push(event(&format!("e{number}"), "{}")).unwrap();
    }
    assert_eq!(outbox.size().0, COUNT);
    assert_eq!(outbox.dropped.load(Ordering::Relaxed), 3);
    assert_eq!(queued(&outbox)[0], "e3");
    let long = "x".repeat(LONGEST);
    for number in 0..BYTES / LONGEST + 1 {
        outbox.push(event(&format!("long{number}"), &long)).unwrap();
    }
    assert!(outbox.size().1 <= BYTES);
    outbox
        .push(event("endless", &"x".repeat(LONGEST + 1)))
        .unwrap();
    assert!(!queued(&outbox).contains(&"endless".to_owned()));
    let stored = outbox.size().0;
    let mut kept = 0;
    outbox
        .store
        .keys(EVENTS.as_bytes(), None, &mut |_, _| {
            kept += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        kept, stored,
        "nothing is left in the store of what was dropped"
    );
}

#[test]
fn an_event_that_cannot_be_stored_leaves_the_earlier_one_of_its_name_in_its_place() {
    let faulty = FaultyStore::new(MemoryStore::default(), FailNth(2));
    let outbox = Outbox::open(Arc::new(faulty)).unwrap();
    outbox.push(event("a", "1")).unwrap();
    let before = outbox.size();
    assert!(outbox.push(event("a", "a longer one")).is_err());
    assert_eq!(outbox.size(), before);
    assert_eq!(queued(&outbox), ["a"]);
    outbox.push(event("b", "1")).unwrap();
    assert_eq!(queued(&outbox), ["a", "b"]);
}

#[test]
fn a_slow_disk_keeps_nobody_from_the_queue() {
    let (begins, begun) = mpsc::channel();
    let (goes, go) = mpsc::channel::<()>();
    let go = Mutex::new(go);
    let slow = SlowStore::new(MemoryStore::default(), move |call| {
        if call == Call::Write {
            begins.send(()).unwrap();
            go.lock().recv().unwrap();
        }
    });
    let outbox = Outbox::open(Arc::new(slow)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| outbox.push(event("a", "1")).unwrap());
        begun.recv().unwrap();
        let (tells, told) = mpsc::channel();
        let outbox = &outbox;
        scope.spawn(move || tells.send((outbox.size().0, outbox.first())));
        let seen = told.recv_timeout(Duration::from_secs(5));
        goes.send(()).unwrap();
        assert_eq!(seen, Ok((0, None)), "while the disk takes its time");
    });
    assert_eq!(outbox.size().0, 1);
}

#[test]
fn an_event_that_the_cloud_cannot_take_goes_behind_the_others_and_is_given_up_in_the_end() {
    let outbox = Outbox::open(Arc::new(MemoryStore::default())).unwrap();
    for name in ["odd", "a"] {
        outbox.push(event(name, "1")).unwrap();
    }
    let mut queue = outbox.queue.lock();
    assert_eq!(queue.postpone(1), Some(Next::Untried));
    assert_eq!(queue.entries[0].number, 2);
    queue.forget(2);
    for _ in 2..TRIES {
        assert_eq!(queue.postpone(1), Some(Next::Tried));
    }
    assert_eq!(queue.postpone(1), None);
    assert_eq!(
        queue.entries[0].number, 1,
        "it is for the caller to forget it"
    );
    assert_eq!(
        queue.postpone(77),
        Some(Next::Tried),
        "one that was replaced"
    );
}

#[test]
fn how_often_it_happened_is_read_in_each_form() {
    for (text, count) in [
        (r#"{"count":3}"#, 3),
        (r#"{"deprecatedCount":4,"count":null}"#, 4),
        (r#"{"count":1,"series":{"count":9}}"#, 9),
        ("{}", 0),
        ("garbage", 0),
    ] {
        assert_eq!(event("a", text).count(), count, "{text}");
    }
    let strange = Event {
        content_type: protobuf::MEDIA_TYPE.into(),
        ..event("a", "garbage")
    };
    assert_eq!(strange.count(), 0);
}

#[test]
fn damaged_entries_are_nothing() {
    for garbage in ["", "a", "a\nb", "a\nb\nc"] {
        assert_eq!(Event::decode(Bytes::from_static(garbage.as_bytes())), None);
    }
}
