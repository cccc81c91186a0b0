//! Bearers of tokens that nobody knows: what they ask costs the cloud little, and the others nothing.

use std::cell::Cell;

use jiff::Timestamp;

use super::site::{Bed, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

const LATELY: &str = "the cloud refused this token a moment ago";
const FORGED: &str = "the token has the cluster's name and is not signed by its keys";

/// Asks with a token; returns the code and what is said.
async fn ask(bed: &Bed, token: &str) -> (u16, String) {
    let answer = bed.site.bearer(token).get(MAPS).await.unwrap();
    let message = answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.code, message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_refused_is_not_asked_again_at_once() {
    let bed = Bed::start().await;
    for token in ["made-up", "another"] {
        let (code, why) = ask(&bed, token).await;
        assert!(code == 401 && why != LATELY, "{code} {why}");
        for _ in 0..3 {
            assert_eq!(ask(&bed, token).await, (401, LATELY.to_owned()));
        }
    }
    let label = "reason=\"stranger\"";
    assert!(bed.site.metric("yurthub_refused_total", label).await > 5.5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_clusters_keys_did_not_sign_never_reaches_the_cloud() {
    let bed = Bed::start().await;
    let issuer = bed.issuer();
    let signed = |name: &str| issuer.sign(&issuer.claims("default", name, Timestamp::now(), 600));
    let forge = |name: &str| {
        let (mine, theirs) = (signed(name), signed("till"));
        let (text, signature) = (
            mine.rsplit_once('.').unwrap().0,
            theirs.rsplit_once('.').unwrap().1,
        );
        format!("{text}.{signature}")
    };
    let number = Cell::new(0);
    // As soon as the hub has the keys.
    eventually("the hub refuses a forged token by itself", async || {
        number.set(number.get() + 1);
        let name = format!("a{}", number.get());
        ask(&bed, &forge(&name)).await == (401, FORGED.to_owned())
    })
    .await;
    assert_eq!(ask(&bed, &forge("b")).await, (401, FORGED.to_owned()));
    assert_eq!(
        ask(&bed, &signed("till")).await.0,
        200,
        "a genuine one is let in"
    );
}
