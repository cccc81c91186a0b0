use yurt_core::store::{Error, ErrorKind};

use super::*;

fn breaks() {
    let nothing: Option<()> = std::hint::black_box(None);
    nothing.expect("the test's own");
}

#[tokio::test]
async fn work_that_panics_is_an_error_for_who_waits_and_is_counted() {
    let before = panics();
    let done: Result<(), Error> = blocking(|| {
        breaks();
        Ok(())
    })
    .await;
    let error = done.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "it panicked: the test's own");
    assert!(panics() > before);
    assert_eq!(blocking(|| Ok::<_, Error>(7)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_task_that_panics_ends_alone() {
    let tasks = Tasks::default();
    let before = panics();
    tasks.spawn(async { breaks() });
    tasks.spawn_blocking(breaks);
    let (told, heard) = tokio::sync::oneshot::channel();
    tasks.spawn(async move { told.send(()) });
    tasks.close();
    tasks.wait().await;
    heard.await.unwrap();
    assert!(panics() >= before + 2);
}

#[tokio::test]
async fn a_child_that_ends_is_named_with_what_it_panicked_of() {
    let mut children = Children::default();
    children.spawn("the patient", std::future::pending());
    children.spawn("the quick", async {});
    let ended = children.next_ended().await;
    assert_eq!((ended.task, ended.panicked), ("the quick", None));
    children.spawn("the broken", async { breaks() });
    let ended = children.next_ended().await;
    assert_eq!(ended.to_string(), "the broken has ended");
    let panicked = ended.panicked.unwrap().to_string();
    assert_eq!(panicked, "it panicked: the test's own");
}
