//! How long what the cloud said counts while it is away, and what it costs to look.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use testbed::pki::Pki;

use super::*;
use crate::api::{Resource, Scope};
use crate::identity::clock::{Clock, Clocks};
use crate::identity::contact::Contact;
use crate::identity::{IssuedTokens, LocalIssuer, Token, TokensIn};
use crate::store::MemoryStore;
use crate::upstream::{Need, UpstreamConfig};

const DAY: u64 = 86_400;

static LATER: AtomicI64 = AtomicI64::new(0);

fn later_than_now() -> Timestamp {
    let later = SignedDuration::from_secs(LATER.load(Ordering::SeqCst));
    Timestamp::from_second(1_800_000_000).unwrap() + later
}

/// Verdicts without a cloud.
fn verdicts(store: Arc<dyn Store>) -> Arc<Verdicts> {
    let dir = TempDir::new().unwrap();
    let ca_file = dir.path().join("ca.crt");
    write(&ca_file, Pki::new().ca_pem());
    let config = UpstreamConfig {
        servers: vec!["https://127.0.0.1:1".parse().unwrap()],
        ca_file,
        ..UpstreamConfig::default()
    };
    let upstream = Upstream::new(config, Need::ToCome).unwrap();
    let issuer = LocalIssuer::load_or_make(dir.path(), &"n1".parse().unwrap()).unwrap();
    let limit = Duration::from_secs(30 * DAY);
    let tasks = Tasks::default();
    let clocks = Clocks {
        wall: later_than_now,
        uptime: || Duration::ZERO,
    };
    let contact = Arc::new(Contact::open(store.clone()).unwrap());
    let clock = Clock::open(store.clone(), clocks, Path::new("/nowhere"), None);
    let issued = IssuedTokens::open(store.clone(), tasks.clone(), TokensIn::Memory).unwrap();
    let authenticator = Authenticator::open(
        store.clone(),
        tasks.clone(),
        (Arc::new(clock), contact),
        limit,
        (issued, Arc::new(issuer)),
    );
    let retention = Retention {
        limit,
        secret_limit: Duration::from_secs(DAY),
        age: limit,
        count: 10_000,
        of_caller: 10_000,
    };
    let authenticator = Arc::new(authenticator.unwrap());
    Arc::new(Verdicts::open(store, tasks, authenticator, upstream, retention).unwrap())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own file needs no crash safety"
)]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn list(plural: &str) -> Access {
    let scope = Scope::all(Resource::core(plural)).in_namespace(Some("shop".to_owned()));
    Access::to_scope("list", &scope)
}

fn account(token: &str) -> Caller {
    Caller::Token(Token::new(token))
}

#[tokio::test(start_paused = true)]
async fn rights_end_at_their_limit_while_cut_off_those_to_secrets_sooner_and_the_nodes_never() {
    LATER.store(0, Ordering::SeqCst);
    let verdicts = verdicts(Arc::new(MemoryStore::new()));
    let pod = account("t");
    for caller in [&pod, &Caller::Node] {
        for plural in ["configmaps", "secrets"] {
            verdicts.grant(caller, &list(plural));
        }
    }
    let is_open = |caller: &Caller, plural| verdicts.check_offline(caller, &list(plural)).is_ok();
    for (days, maps, secrets) in [(0, true, true), (2, true, false), (31, false, false)] {
        LATER.store(days * 86_400, Ordering::SeqCst);
        assert_eq!(is_open(&pod, "configmaps"), maps, "after {days} days");
        assert_eq!(is_open(&pod, "secrets"), secrets, "after {days} days");
        assert!(is_open(&Caller::Node, "secrets"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_that_the_cloud_could_have_confirmed_for_a_day_counts_no_more() {
    LATER.store(0, Ordering::SeqCst);
    let verdicts = verdicts(Arc::new(MemoryStore::new()));
    let (pod, maps) = (account("t"), list("configmaps"));
    verdicts.grant(&pod, &maps);
    let is_open = || verdicts.check_offline(&pod, &maps).is_ok();
    for (is_online, hours, counts) in [(false, 48, true), (true, 23, true), (true, 2, false)] {
        verdicts.contact.note(is_online, Instant::now());
        tokio::time::advance(Duration::from_secs(hours * 3_600)).await;
        assert_eq!(is_open(), counts, "{hours} hours later");
    }
    verdicts.grant(&pod, &maps);
    assert!(is_open());
}

#[tokio::test(start_paused = true)]
async fn what_the_cloud_let_be_fetched_before_it_refused_is_no_right() {
    let verdicts = verdicts(Arc::new(MemoryStore::new()));
    let (pod, maps) = (account("t"), list("configmaps"));
    let fetched = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    verdicts.deny(&pod, &maps);
    verdicts.granted_at(&pod, &maps, fetched);
    assert!(verdicts.check_offline(&pod, &maps).is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    verdicts.granted_at(&pod, &maps, Instant::now());
    assert!(verdicts.check_offline(&pod, &maps).is_ok());
    // It is as old as the fetch, however often it is used.
    let at = Instant::now();
    tokio::time::advance(Duration::from_secs(61)).await;
    verdicts.granted_at(&pod, &maps, at);
    assert!(!verdicts.known(&pod, &maps).unwrap().is_fresh());
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_asked_for_again_when_it_is_due_secrets_first_as_who_was_seen() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let verdicts = verdicts(store.clone());
    let (pod, unseen) = (account("t"), account("unseen"));
    for plural in ["configmaps", "secrets"] {
        verdicts.grant(&pod, &list(plural));
    }
    verdicts.deny(&pod, &list("pods"));
    verdicts.granted_at(&unseen, &list("secrets"), Instant::now());
    let due = async |minutes: u64| {
        tokio::time::advance(Duration::from_secs(minutes * 60)).await;
        let due = verdicts.due_verdicts(Instant::now());
        due.iter()
            .map(|(caller, access)| (caller.clone(), access.resource.plural.clone()))
            .collect::<Vec<_>>()
    };
    let of = |plural: &str| (pod.clone(), plural.to_owned());
    assert_eq!(due(1).await, []);
    assert_eq!(due(1).await, [of("secrets")]);
    assert_eq!(due(60).await, [of("secrets"), of("configmaps")]);
    verdicts.note_tried(&pod, &list("secrets"));
    assert_eq!(due(1).await, [of("configmaps")], "asked in vain just now");
    verdicts.refused(&pod);
    assert_eq!(due(1).await, [], "nobody is there to ask as");
}

/// Simple and measured here, where nothing but the decision is in it. A build without optimizations on a busy machine
/// takes longer than a release: the best of many rounds is what counts. `cargo nextest run --no-capture` shows it.
#[tokio::test]
async fn a_decision_takes_less_than_20_us() {
    const ROUND: u32 = 500;
    let verdicts = verdicts(Arc::new(MemoryStore::new()));
    let pod = account("t");
    for number in 0..300 {
        let one = Access {
            name: Some(format!("s-{number}")),
            ..list("secrets")
        };
        verdicts.granted_at(&pod, &one, Instant::now());
    }
    verdicts.grant(&pod, &list("configmaps"));
    let access = list("configmaps");
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        for _ in 0..ROUND {
            verdicts.authorize(&pod, &access, Link::Cut).await.unwrap();
        }
        best = best.min(began.elapsed() / ROUND);
    }
    let mut out = std::io::stdout();
    writeln!(out, "one decision: {best:?}").unwrap();
    assert!(best < Duration::from_micros(20), "{best:?}");
}
