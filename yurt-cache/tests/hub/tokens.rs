//! Tokens of service accounts: who is behind one, online and cut off, alive and expired, genuine and not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use testbed::api::{ApiConfig, Authorizer};
use testbed::tokens::{ISSUER, TokenIssuer};
use yurt_cache::store::MemoryStore;
use yurt_core::store::Store as _;

use super::site::{Bed, eventually, names};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
const ONE: &str = "/api/v1/namespaces/default/configmaps/a?resourceVersion=0";
const READS: [&str; 4] = [MAPS, FROM_MIRROR, WATCH, ONE];

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A bed where the account `reader` of the namespace default may read and `blind` may not.
async fn bed() -> Bed {
    bed_with(|_| {}, Timestamp::now).await
}

async fn bed_with(adjust: impl FnOnce(&mut ApiConfig), clock: fn() -> Timestamp) -> Bed {
    bed_on(Arc::new(MemoryStore::new()), adjust, clock).await
}

async fn bed_on(
    store: Arc<MemoryStore>,
    adjust: impl FnOnce(&mut ApiConfig),
    clock: fn() -> Timestamp,
) -> Bed {
    let mut config = ApiConfig {
        authorizer: Authorizer::new(|user, asked| {
            !user.name.ends_with(":blind") || asked.resource.ends_with("accessreviews")
        }),
        ..ApiConfig::default()
    };
    adjust(&mut config);
    let bed = Bed::with(config, |mut site| {
        site.adjust(move |config| config.clock = clock);
        site.with_store(store)
    })
    .await;
    let body = json!({"metadata": {"name": "a"}});
    bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed
}

/// Claims of the account, valid for an hour from `skew` seconds from now.
fn claims(bed: &Bed, name: &str, skew: i64) -> Value {
    let now = Timestamp::now() + SignedDuration::from_secs(skew);
    bed.issuer().claims("default", name, now, HOUR)
}

fn token(bed: &Bed, name: &str) -> String {
    bed.issuer().sign(&claims(bed, name, 0))
}

async fn knows_the_keys(bed: &Bed) {
    eventually("the hub knows the cluster's keys", async || {
        bed.site.metric("yurthub_token_keys_known", "").await > 0.5
    })
    .await;
}

async fn reads_all(bed: &Bed, token: &str) {
    let client = bed.site.bearer(token);
    for path in READS {
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer.code, 200, "{path} {}", answer.text());
    }
}

async fn is_refused(bed: &Bed, token: &str, code: u16, what: &str) {
    let client = bed.site.bearer(token);
    for path in READS.into_iter().chain(["/api"]) {
        if code == 403 && path == "/api" {
            continue;
        }
        let answer = client.get(path).await.unwrap();
        assert_eq!(answer.code, code, "{what} {path} {}", answer.text());
    }
}

/// Every kind of token that must open nothing.
fn bad_tokens(bed: &Bed) -> BTreeMap<&'static str, String> {
    let issuer = bed.issuer();
    let good = claims(bed, "reader", 0);
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        issuer.sign(&changed)
    };
    let header = |alg: &str| json!({"alg": alg, "kid": issuer.key_id()});
    let genuine = issuer.sign(&good);
    let (signed, _) = genuine.rsplit_once('.').unwrap();
    let other = issuer.sign(&claims(bed, "blind", 0));
    BTreeMap::from([
        ("garbage", "garbage".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("expired", issuer.sign(&claims(bed, "reader", -2 * HOUR))),
        ("of tomorrow", issuer.sign(&claims(bed, "reader", DAY))),
        ("another audience", with("aud", json!(["vault"]))),
        ("no audience", with("aud", json!([]))),
        ("another issuer", with("iss", json!("https://other"))),
        ("a foreign cluster", TokenIssuer::new(ISSUER).sign(&good)),
        ("alg none", issuer.sign_with(&header("none"), &good)),
        ("alg HS256", issuer.sign_with(&header("HS256"), &good)),
        (
            "alg RS256 of an EC key",
            issuer.sign_with(&header("RS256"), &good),
        ),
        (
            "a key nobody knows",
            issuer.sign_with(&json!({"alg": "ES256", "kid": "?"}), &good),
        ),
        ("no signature", format!("{signed}.")),
        (
            "another's signature",
            format!("{signed}.{}", other.rsplit('.').next().unwrap()),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_token_opens_nothing_online_cut_off_and_after_a_restart() {
    let mut bed = bed().await;
    let reader = token(&bed, "reader");
    reads_all(&bed, &reader).await;
    knows_the_keys(&bed).await;
    let bad = bad_tokens(&bed);
    for (what, token) in &bad {
        is_refused(&bed, token, 401, &format!("online, {what}")).await;
    }
    bed.cut().await;
    for (what, token) in &bad {
        is_refused(&bed, token, 401, &format!("cut off, {what}")).await;
    }
    reads_all(&bed, &reader).await;
    bed.restart().await;
    bed.site.sees_the_cloud(false).await;
    for (what, token) in &bad {
        is_refused(&bed, token, 401, &format!("restarted, {what}")).await;
    }
    reads_all(&bed, &reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_a_bad_token_is_refused_as_such_while_cut_off() {
    let bed = bed().await;
    reads_all(&bed, &token(&bed, "reader")).await;
    knows_the_keys(&bed).await;
    bed.cut().await;
    let body = json!({"metadata": {"name": "b"}});
    let post = async |token: &str| {
        let client = bed.site.bearer(token);
        client.post(MAPS, &body).await.unwrap().code
    };
    assert_eq!(post("garbage").await, 401);
    assert_eq!(post(&token(&bed, "reader")).await, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_token_finds_the_verdicts_of_its_account_while_cut_off() {
    let mut bed = bed().await;
    reads_all(&bed, &token(&bed, "reader")).await;
    is_refused(&bed, &token(&bed, "blind"), 403, "online").await;
    knows_the_keys(&bed).await;
    // The first requests may have come before the keys.
    reads_all(&bed, &token(&bed, "reader")).await;
    is_refused(&bed, &token(&bed, "blind"), 403, "online").await;
    bed.cut().await;
    for round in ["cut off", "restarted"] {
        if round == "restarted" {
            bed.restart().await;
            bed.site.sees_the_cloud(false).await;
        }
        let mut claims = claims(&bed, "reader", 0);
        claims["jti"] = json!(round);
        reads_all(&bed, &bed.issuer().sign(&claims)).await;
        is_refused(&bed, &token(&bed, "blind"), 403, round).await;
        // Who it is is known, and what it may read is not.
        is_refused(&bed, &token(&bed, "stranger"), 403, round).await;
        let unknown = bed.site.bearer(&token(&bed, "stranger"));
        let write = unknown.post(MAPS, &json!({})).await.unwrap();
        assert_eq!(write.code, 503);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_node_may_not_have_the_keys_they_are_asked_for_as_a_caller() {
    let deny_nodes = |config: &mut ApiConfig| {
        config.authorizer = Authorizer::new(|user, asked| {
            user.name.starts_with("system:serviceaccount:") || !asked.path.contains("openid")
        });
    };
    let bed = bed_with(deny_nodes, Timestamp::now).await;
    assert!(bed.site.metric("yurthub_token_keys_known", "").await < 0.5);
    reads_all(&bed, &token(&bed, "reader")).await;
    knows_the_keys(&bed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_cloud_took_back_is_refused_while_cut_off() {
    let bed = bed().await;
    let (kept, revoked) = (token(&bed, "reader"), {
        let mut claims = claims(&bed, "reader", 0);
        claims["jti"] = json!("revoked");
        bed.issuer().sign(&claims)
    });
    for token in [&kept, &revoked] {
        reads_all(&bed, token).await;
    }
    knows_the_keys(&bed).await;
    bed.issuer().revoke(&revoked);
    // The cloud is asked for what no mirror has.
    let client = bed.site.bearer(&revoked);
    client.get(MAPS).await.unwrap().expect(401);
    is_refused(&bed, &revoked, 401, "online").await;
    bed.cut().await;
    is_refused(&bed, &revoked, 401, "cut off").await;
    reads_all(&bed, &kept).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audience_of_the_api_server_that_is_not_its_issuer_is_learned() {
    let bed = bed_with(
        |config| config.issuer = TokenIssuer::new(ISSUER).with_audience("api").into(),
        Timestamp::now,
    )
    .await;
    let mut claims = claims(&bed, "reader", 0);
    claims["aud"] = json!(["api"]);
    let mut signed = |number: u32| {
        claims["jti"] = json!(number);
        bed.issuer().sign(&claims)
    };
    knows_the_keys(&bed).await;
    for number in 0..2 {
        reads_all(&bed, &signed(number)).await;
    }
    bed.cut().await;
    reads_all(&bed, &signed(3)).await;
    is_refused(&bed, &token(&bed, "reader"), 401, "cut off").await;
}

static LATER: AtomicI64 = AtomicI64::new(0);

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(LATER.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_since_the_cut_counts_until_the_limit_if_it_was_seen() {
    LATER.store(0, Ordering::SeqCst);
    let mut bed = bed_with(|_| {}, later).await;
    let seen = token(&bed, "reader");
    knows_the_keys(&bed).await;
    reads_all(&bed, &seen).await;
    bed.cut().await;
    let never_seen = {
        let mut claims = claims(&bed, "reader", -60);
        claims["jti"] = json!("never seen");
        bed.issuer().sign(&claims)
    };
    LATER.store(DAY, Ordering::SeqCst);
    for round in ["cut off", "restarted"] {
        if round == "restarted" {
            bed.restart().await;
            bed.site.sees_the_cloud(false).await;
        }
        reads_all(&bed, &seen).await;
        is_refused(&bed, &never_seen, 401, round).await;
    }
    LATER.store(31 * DAY, Ordering::SeqCst);
    is_refused(&bed, &seen, 401, "after the limit").await;
    // The node itself is never locked out.
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
}

static SKEW: AtomicI64 = AtomicI64::new(0);

fn skewed() -> Timestamp {
    let skew = SKEW.load(Ordering::SeqCst);
    match skew {
        i64::MIN => Timestamp::UNIX_EPOCH,
        skew => Timestamp::now() + SignedDuration::from_secs(skew),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_after_a_reboot_locks_no_pod_out() {
    SKEW.store(0, Ordering::SeqCst);
    let mut bed = bed_with(|_| {}, skewed).await;
    let seen = token(&bed, "reader");
    knows_the_keys(&bed).await;
    reads_all(&bed, &seen).await;
    bed.cut().await;
    let expired = bed.issuer().sign(&claims(&bed, "reader", -2 * HOUR));
    for skew in [-HOUR, HOUR + 60, i64::MIN] {
        SKEW.store(skew, Ordering::SeqCst);
        bed.restart().await;
        bed.site.sees_the_cloud(false).await;
        reads_all(&bed, &seen).await;
        let mut claims = claims(&bed, "reader", 0);
        claims["jti"] = json!(skew);
        reads_all(&bed, &bed.issuer().sign(&claims)).await;
        is_refused(&bed, &expired, 401, "expired before the cut").await;
    }
    assert_eq!(
        names(
            &bed.site
                .bearer(&seen)
                .get(FROM_MIRROR)
                .await
                .unwrap()
                .expect(200)
        ),
        ["a"]
    );
}

#[tokio::test]
async fn a_refusal_holds_while_cut_off_also_for_what_nobody_ever_listed() {
    let bed = bed().await;
    let blind = bed.site.bearer(&token(&bed, "blind"));
    let secrets = "/api/v1/namespaces/default/secrets";
    // As kubectl asks: no mirror is looked for.
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let refused = blind.get_as(secrets, table).await.unwrap();
    assert_eq!(refused.code, 403, "{}", refused.text());
    bed.cut().await;
    let refused = blind.get(secrets).await.unwrap();
    assert_eq!(refused.code, 403, "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_was_given_after_a_refusal_counts_while_cut_off() {
    let is_allowed = Arc::new(AtomicBool::new(false));
    let allowed = is_allowed.clone();
    let may = move |config: &mut ApiConfig| {
        config.authorizer = Authorizer::new(move |user, asked| {
            !user.name.ends_with(":reader")
                || asked.resource.ends_with("accessreviews")
                || allowed.load(Ordering::SeqCst)
        });
    };
    let store = Arc::new(MemoryStore::new());
    let bed = bed_on(store.clone(), may, Timestamp::now).await;
    knows_the_keys(&bed).await;
    let reader = bed.site.bearer(&token(&bed, "reader"));
    let refused = reader.get(&format!("{MAPS}/a")).await.unwrap();
    refused.expect_status(403, "Forbidden");
    is_allowed.store(true, Ordering::SeqCst);
    reader.get(FROM_MIRROR).await.unwrap().expect(200);
    let read_all = b"a/system:serviceaccount:default:reader/get//configmaps//default///";
    eventually("the hub has learned the right", async || {
        store.get(read_all).unwrap().is_some()
    })
    .await;
    bed.cut().await;
    reader.get(&format!("{MAPS}/a")).await.unwrap().expect(200);
}
