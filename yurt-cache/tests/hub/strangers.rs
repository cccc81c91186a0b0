//! Bearers of tokens that nobody knows: what they ask costs the cloud little, and the others nothing.

use std::cell::Cell;

use jiff::Timestamp;

use super::site::{Bed, eventually};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Refused by the hub alone, in the words of kube-apiserver.
const REFUSED_HERE: (u16, &str, &str) = (401, "hub", "Unauthorized");

/// Asks with a token; returns the code, who answered, and what is said.
async fn ask(bed: &Bed, token: &str) -> (u16, String, String) {
    let answer = bed.site.bearer(token).get(MAPS).await.unwrap();
    let message = answer.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let from = answer.header("x-yurt-served-from").to_owned();
    (answer.code, from, message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_refused_is_not_asked_again_at_once() {
    let bed = Bed::start().await;
    let refused_here = async || {
        let label = "reason=\"stranger\"";
        bed.site.metric("yurthub_refused_total", label).await
    };
    for (token, before) in [("made-up", 0.0), ("another", 3.0)] {
        assert_eq!(ask(&bed, token).await.0, 401);
        assert_eq!(refused_here().await, before, "the cloud was asked");
        for _ in 0..3 {
            let (code, from, why) = ask(&bed, token).await;
            assert_eq!((code, &*from, &*why), REFUSED_HERE);
        }
        assert_eq!(refused_here().await, before + 3.0);
    }
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
        let (code, from, _) = ask(&bed, &forge(&name)).await;
        (code, &*from) == (401, "hub")
    })
    .await;
    let (code, from, why) = ask(&bed, &forge("b")).await;
    assert_eq!((code, &*from, &*why), REFUSED_HERE);
    assert_eq!(
        ask(&bed, &signed("till")).await.0,
        200,
        "a genuine one is let in"
    );
}
