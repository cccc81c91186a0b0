//! Rights end when the cloud says so: each row of the README's table "How long a revoked right lives", with its bound.
//!
//! The cases run on one thread, so that time can be made to pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use testbed::api::{ApiConfig, Attributes, Authorizer, User};
use testbed::client::Watch;

use super::cloud::{Cloud, End, Say};
use super::site::{Bed, SOON, eventually, names, pass};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const WATCH: &str = "/api/v1/namespaces/default/configmaps?watch=1";
const ONE: &str = "/api/v1/namespaces/default/configmaps/a?resourceVersion=0";
const SECRETS: &str = "/api/v1/namespaces/default/secrets?resourceVersion=0";
const SECRET: &str = "/api/v1/namespaces/default/secrets/a";

/// Of what the accounts may do the node may do nothing, so that their mirrors are fetched as they.
const OPAQUE: [&str; 2] = ["reader", "other"];

/// A bed whose `reader` loses what it may do when the case says so.
struct Losing {
    bed: Bed,
    revoked: Arc<AtomicBool>,
}

impl Losing {
    /// `reader` may do what `may` says until it is revoked, and what the others say afterwards.
    async fn start(
        before: impl Fn(&Attributes) -> bool + Send + Sync + 'static,
        after: impl Fn(&Attributes) -> bool + Send + Sync + 'static,
    ) -> Self {
        let revoked = Arc::new(AtomicBool::new(false));
        let is_revoked = revoked.clone();
        let user = |name: &str| (format!("{name}-token"), User::new(name, &[]));
        let config = ApiConfig {
            tokens: BTreeMap::from(OPAQUE.map(user)),
            authorizer: Authorizer::new(move |user, asked| {
                if asked.resource.ends_with("accessreviews") {
                    return true;
                }
                match user.name.as_str() {
                    name if name.ends_with("reader") => match is_revoked.load(Ordering::SeqCst) {
                        false => before(asked),
                        true => after(asked),
                    },
                    "other" => true,
                    _ => !matches!(asked.resource.as_str(), "configmaps" | "secrets"),
                }
            }),
            ..ApiConfig::default()
        };
        let bed = Bed::with(config, |mut site| {
            site.adjust(|config| {
                // Time is made to pass in leaps: no probe shall be under way then.
                config.upstream.probe_interval = Duration::from_secs(10);
                config.mirror_idle = Duration::from_secs(30 * 86_400);
            });
            site
        })
        .await;
        let body = json!({"metadata": {"name": "a"}});
        for path in [MAPS, "/api/v1/namespaces/default/secrets"] {
            bed.cloud().post(path, &body).await.unwrap().expect(201);
        }
        Self { bed, revoked }
    }

    async fn all_or_nothing() -> Self {
        Self::start(|_| true, |_| false).await
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
    }

    fn reader(&self) -> testbed::client::Client {
        self.bed.site.bearer("reader-token")
    }

    async fn code(&self, path: &str) -> u16 {
        self.reader().get(path).await.unwrap().code
    }

    fn reviews(&self) -> u64 {
        self.bed.api.count("create", "selfsubjectaccessreviews")
    }

    /// Waits until the hub knows what the reader may: by what it lists and watches, and by asking for the rest.
    async fn has_learned(&self) {
        eventually("the hub has learned what else it may", async || {
            let verdicts = self.bed.site.metric("yurthub_remembered", "\"verdict\"");
            verdicts.await > 2.5
        })
        .await;
    }

    /// Lets so much time pass, and waits until the hub has asked the cloud for all three rights because of it.
    async fn asks_again_after(&self, time: Duration) {
        let before = self.reviews();
        pass(time).await;
        self.bed.site.sees_the_cloud(true).await;
        eventually("the hub asks the cloud again", async || {
            self.reviews() >= before + 3
        })
        .await;
    }
}

/// Returns the code of the ERROR with which a watch ends, `None` if it is just closed.
async fn ended(watch: &mut Watch) -> Option<u64> {
    loop {
        let event = watch.next(SOON).await.expect("the watch ends in time")?;
        if event.kind == "ERROR" {
            return event.object["code"].as_u64();
        }
    }
}

// === Online ===

#[tokio::test]
async fn a_right_that_is_used_all_the_time_ends_a_minute_after_its_revocation() {
    let losing = Losing::all_or_nothing().await;
    losing.reader().get(FROM_MIRROR).await.unwrap().expect(200);
    losing.bed.site.is_live("v1/configmaps in default").await;
    losing.revoke();
    for _ in 0..7 {
        pass(Duration::from_secs(10)).await;
        losing.bed.site.sees_the_cloud(true).await;
        losing.code(FROM_MIRROR).await;
    }
    eventually("the right has ended", async || {
        losing.code(FROM_MIRROR).await == 403
    })
    .await;
}

#[tokio::test]
async fn a_right_on_what_another_filled_ends_a_minute_after_its_revocation() {
    let losing = Losing::all_or_nothing().await;
    let other = losing.bed.site.bearer("other-token");
    other.get(FROM_MIRROR).await.unwrap().expect(200);
    losing.bed.site.is_live("v1/configmaps in default").await;
    for path in [FROM_MIRROR, ONE] {
        assert_eq!(losing.code(path).await, 200, "{path}");
    }
    losing.revoke();
    pass(Duration::from_secs(61)).await;
    losing.bed.site.sees_the_cloud(true).await;
    for path in [ONE, FROM_MIRROR] {
        assert_eq!(losing.code(path).await, 403, "{path}");
    }
}

#[tokio::test]
async fn who_may_not_ask_what_it_may_lists_and_watches_what_it_may() {
    let config = ApiConfig {
        tokens: BTreeMap::from([("reader-token".to_owned(), User::new("reader", &[]))]),
        authorizer: Authorizer::new(|user, asked| {
            user.name != "reader"
                || (asked.resource == "configmaps" && asked.namespace == "default")
        }),
        ..ApiConfig::default()
    };
    let bed = Bed::with(config, |site| site).await;
    let body = json!({"metadata": {"name": "a"}});
    bed.cloud().post(MAPS, &body).await.unwrap().expect(201);
    let reader = bed.site.bearer("reader-token");
    for _ in 0..2 {
        for path in [FROM_MIRROR, MAPS] {
            let list = reader.get(path).await.unwrap().expect(200);
            assert_eq!(names(&list), ["a"], "{path}");
        }
        let mut watch = reader.watch(WATCH).await.unwrap();
        assert_eq!(super::site::events(&mut watch, 1).await, ["ADDED a"]);
    }
    let secrets = reader.get(SECRETS).await.unwrap();
    secrets.expect_status(403, "Forbidden");
    bed.cut().await;
    let list = reader.get(FROM_MIRROR).await.unwrap().expect(200);
    assert_eq!(names(&list), ["a"]);
}

#[tokio::test]
async fn a_review_that_breaks_is_asked_again_and_is_no_refusal() {
    let (cloud, site) = Cloud::with_reviews(
        |before| match before {
            0 => Say::json(201, "{").ending(End::Broken),
            _ => Say::json(201, r#"{"status":{"allowed":true}}"#),
        },
        |asked| match asked.is_watch() {
            true => Say::silence(),
            false => Say::list(5, &[("a", 1)]),
        },
    )
    .await;
    let list = site.bearer("t").get(FROM_MIRROR).await.unwrap();
    assert_eq!(names(&list.expect(200)), ["a"]);
    drop(cloud);
    let (_cloud, site) = Cloud::with_reviews(
        |_| Say::json(201, "{").ending(End::Broken),
        |_| Say::list(5, &[("a", 1)]),
    )
    .await;
    let list = site.bearer("t").get(FROM_MIRROR).await.unwrap();
    list.expect_status(503, "ServiceUnavailable");
}

// === Open watches ===

#[tokio::test]
async fn an_open_watch_ends_minutes_after_its_right() {
    let losing = Losing::all_or_nothing().await;
    let (reader, other) = (losing.reader(), losing.bed.site.bearer("other-token"));
    let mut watches = [
        reader.watch(WATCH).await.unwrap(),
        reader.watch(WATCH).await.unwrap(),
    ];
    let mut kept = other.watch(WATCH).await.unwrap();
    losing.bed.site.is_live("v1/configmaps in default").await;
    losing.revoke();
    let before = losing.reviews();
    pass(Duration::from_secs(330)).await;
    for watch in &mut watches {
        assert_eq!(ended(watch).await, Some(403));
    }
    // One question for both, and what the other may do is asked at most once for each of its watches.
    assert!(losing.reviews() - before <= 4);
    let body = json!({"metadata": {"name": "b"}});
    losing.bed.cloud().post(MAPS, &body).await.unwrap();
    let seen = super::site::events(&mut kept, 2).await;
    assert_eq!(seen, ["ADDED a", "ADDED b"]);
}

#[tokio::test]
async fn a_watch_lasts_an_hour_at_most_whatever_its_client_says() {
    let losing = Losing::all_or_nothing().await;
    let reader = losing.reader();
    let path = format!("{WATCH}&timeoutSeconds=31536000");
    let mut watch = reader.watch(&path).await.unwrap();
    assert_eq!(super::site::events(&mut watch, 1).await, ["ADDED a"]);
    pass(Duration::from_secs(3_601)).await;
    assert_eq!(ended(&mut watch).await, None);
}

#[tokio::test]
async fn an_open_watch_ends_when_the_link_is_back_and_its_right_is_gone() {
    let losing = Losing::all_or_nothing().await;
    let reader = losing.reader();
    let mut watch = reader.watch(WATCH).await.unwrap();
    losing.bed.site.is_live("v1/configmaps in default").await;
    losing.bed.cut().await;
    losing.revoke();
    pass(Duration::from_secs(61)).await;
    losing.bed.mend().await;
    assert_eq!(ended(&mut watch).await, Some(403));
}

#[tokio::test]
async fn all_watches_of_a_token_end_when_the_cloud_takes_it_back() {
    let losing = Losing::all_or_nothing().await;
    let bed = &losing.bed;
    let issuer = bed.issuer();
    let claims = issuer.claims("default", "reader", Timestamp::now(), 3_600);
    let token = issuer.sign(&claims);
    let reader = bed.site.bearer(&token);
    let mut maps = reader.watch(WATCH).await.unwrap();
    let secrets = "/api/v1/namespaces/default/secrets?watch=1";
    let mut secrets = reader.watch(secrets).await.unwrap();
    issuer.revoke(&token);
    reader.get(SECRET).await.unwrap().expect(401);
    assert_eq!(ended(&mut maps).await, Some(401));
    assert_eq!(ended(&mut secrets).await, Some(401));
}

#[tokio::test]
async fn an_open_watch_ends_with_its_token() {
    let losing = Losing::all_or_nothing().await;
    let issuer = losing.bed.issuer();
    let begun = Timestamp::now() - SignedDuration::from_secs(3_598);
    let token = issuer.sign(&issuer.claims("default", "reader", begun, 3_600));
    let reader = losing.bed.site.bearer(&token);
    let mut watch = reader.watch(WATCH).await.unwrap();
    eventually("the token has expired", async || {
        reader.get(SECRET).await.unwrap().code == 401
    })
    .await;
    pass(Duration::from_secs(61)).await;
    assert_eq!(ended(&mut watch).await, Some(401));
}

// === Cut off ===

#[tokio::test]
async fn a_right_to_secrets_that_nobody_used_is_asked_for_again_within_minutes() {
    let losing = Losing::all_or_nothing().await;
    assert_eq!(losing.code(SECRETS).await, 200);
    losing.bed.site.is_live("v1/secrets in default").await;
    losing.has_learned().await;
    losing.revoke();
    losing.asks_again_after(Duration::from_secs(150)).await;
    losing.bed.cut().await;
    for path in [SECRETS, SECRET] {
        assert_eq!(losing.code(path).await, 403, "{path}");
    }
}

#[tokio::test]
async fn a_right_that_nobody_used_is_asked_for_again_within_an_hour() {
    let losing = Losing::all_or_nothing().await;
    assert_eq!(losing.code(FROM_MIRROR).await, 200);
    losing.bed.site.is_live("v1/configmaps in default").await;
    losing.has_learned().await;
    losing.revoke();
    losing.asks_again_after(Duration::from_secs(3_700)).await;
    losing.bed.cut().await;
    assert_eq!(losing.code(FROM_MIRROR).await, 403);
}

#[tokio::test]
async fn a_right_that_could_not_be_confirmed_for_a_day_of_contact_counts_no_more() {
    let mut losing = Losing::all_or_nothing().await;
    assert_eq!(losing.code(FROM_MIRROR).await, 200);
    losing.bed.site.is_live("v1/configmaps in default").await;
    // The hub that starts now does not have the token.
    losing.bed.restart().await;
    losing.bed.site.sees_the_cloud(true).await;
    for hours in [23, 2] {
        losing.bed.cut().await;
        let code = losing.code(FROM_MIRROR).await;
        assert_eq!(code, 200, "{hours} hours before");
        // What is asked while cut off tells the hub nothing of the cloud.
        pass(Duration::from_secs(30 * 3_600)).await;
        losing.bed.restart().await;
        losing.bed.mend().await;
        pass(Duration::from_secs(hours * 3_600)).await;
        losing.bed.site.sees_the_cloud(true).await;
    }
    losing.bed.cut().await;
    assert_eq!(losing.code(FROM_MIRROR).await, 403);
}

#[tokio::test]
async fn a_refusal_of_one_object_ends_the_older_right_to_all() {
    let losing = Losing::all_or_nothing().await;
    for path in [SECRETS, SECRET] {
        assert_eq!(losing.code(path).await, 200, "{path}");
    }
    losing.bed.site.is_live("v1/secrets in default").await;
    losing.revoke();
    assert_eq!(losing.code(SECRET).await, 403);
    losing.bed.cut().await;
    for path in [SECRET, SECRETS] {
        assert_eq!(losing.code(path).await, 403, "{path}");
    }
}

#[tokio::test]
async fn who_may_list_and_not_get_lists_on_while_cut_off() {
    let lists = |asked: &Attributes| asked.verb != "get";
    let losing = Losing::start(lists, lists).await;
    assert_eq!(losing.code(SECRETS).await, 200);
    losing.bed.site.is_live("v1/secrets in default").await;
    losing.has_learned().await;
    let before = losing.reviews();
    assert_eq!(losing.code(SECRET).await, 403);
    pass(Duration::from_secs(11)).await;
    losing.bed.site.sees_the_cloud(true).await;
    eventually("it asks what the refusal means", async || {
        losing.reviews() >= before + 2
    })
    .await;
    eventually("it lists", async || losing.code(SECRETS).await == 200).await;
    losing.bed.cut().await;
    assert_eq!(losing.code(SECRETS).await, 200);
    assert_eq!(losing.code(SECRET).await, 403);
}

#[tokio::test]
async fn an_account_that_was_made_anew_inherits_nothing() {
    let losing = Losing::all_or_nothing().await;
    let issuer = losing.bed.issuer();
    let token = |uid: u8| {
        let mut claims = issuer.claims("default", "reader", Timestamp::now(), 3_600);
        claims["kubernetes.io"]["serviceaccount"]["uid"] = json!(format!("uid-{uid}"));
        issuer.sign(&claims)
    };
    eventually("the hub knows the cluster's keys", async || {
        losing.bed.site.metric("yurthub_token_keys_known", "").await > 0.5
    })
    .await;
    let first = losing.bed.site.bearer(&token(1));
    first.get(FROM_MIRROR).await.unwrap().expect(200);
    losing.bed.cut().await;
    first.get(FROM_MIRROR).await.unwrap().expect(200);
    let second = losing.bed.site.bearer(&token(2));
    let refused = second.get(FROM_MIRROR).await.unwrap();
    refused.expect_status(403, "Forbidden");
}

#[tokio::test]
async fn who_may_see_nothing_learns_nothing_of_what_there_is() {
    let may_maps = |asked: &Attributes| asked.resource != "secrets";
    let losing = Losing::start(may_maps, may_maps).await;
    assert_eq!(losing.code(FROM_MIRROR).await, 200);
    let other = losing.bed.site.bearer("other-token");
    for path in [SECRETS, SECRET] {
        other.get(path).await.unwrap().expect(200);
    }
    losing.bed.site.is_live("v1/secrets in default").await;
    losing.bed.cut().await;
    for path in [
        SECRETS,
        SECRET,
        "/api/v1/namespaces/default/secrets/none",
        "/api/v1/namespaces/elsewhere/secrets",
        "/api/v1/namespaces/elsewhere/secrets/none",
    ] {
        let refused = losing.reader().get(path).await.unwrap();
        refused.expect_status(403, "Forbidden");
    }
}

// === Whose word it is ===

/// The answer of what stands in front of the API server.
fn of_a_firewall(code: u16) -> Say {
    Say::text(code, "<html>computer says no</html>")
}

#[tokio::test]
async fn a_refusal_of_what_stands_before_the_api_server_says_nothing_of_the_caller() {
    let (cloud, site) = Cloud::with_hub(|_| of_a_firewall(403)).await;
    let stranger = site.bearer("t");
    stranger.get(SECRET).await.unwrap().expect(403);
    drop(cloud);
    site.sees_the_cloud(false).await;
    let refused = stranger.get(SECRET).await.unwrap();
    refused.expect_status(401, "Unauthorized");
}

#[tokio::test]
async fn a_backend_that_refuses_a_token_does_not_speak_for_the_cloud() {
    let one = json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "a", "namespace": "default", "resourceVersion": "1"},
    });
    let reviews = Arc::new(AtomicUsize::new(0));
    let reviewed = reviews.clone();
    let (cloud, site) = Cloud::with_reviews(
        move |_| {
            reviewed.fetch_add(1, Ordering::SeqCst);
            Say::json(201, r#"{"status":{"allowed":true}}"#)
        },
        move |asked| match asked.path.as_str() {
            path if path.contains("/proxy/") => Say::json(401, "{}"),
            path if path.ends_with("/configmaps/a") => Say::json(200, one.to_string()),
            _ => Say::json(404, "{}"),
        },
    )
    .await;
    let reader = site.bearer("t");
    let object = "/api/v1/namespaces/default/configmaps/a";
    reader.get(object).await.unwrap().expect(200);
    eventually("the hub has learned what else it may", async || {
        reviews.load(Ordering::SeqCst) >= 3
    })
    .await;
    let backend = "/api/v1/namespaces/default/services/b:80/proxy/login";
    reader.get(backend).await.unwrap().expect(401);
    drop(cloud);
    site.sees_the_cloud(false).await;
    reader.get(object).await.unwrap().expect(200);
}
