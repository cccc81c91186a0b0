//! Client certificates that the calendar has overtaken: the node's own is forgiven, nobody else's is.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde_json::json;
use testbed::client::Client;
use testbed::pki::{Pki, Validity};

use super::site::{Bed, Site};

const MAPS: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
const ALL: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const DAY: i64 = 86_400;

static LATER: AtomicI64 = AtomicI64::new(0);

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(LATER.load(Ordering::SeqCst))
}

/// A client whose certificate is valid until so many days from now.
fn until(site: &Site, pki: &Pki, user: &str, group: &str, days: i64) -> Client {
    let validity = Validity {
        not_after: Timestamp::now() + SignedDuration::from_secs(days * DAY),
        ..Validity::default()
    };
    let (certificate, key) = pki.client_for(user, &[group], validity);
    Client::with_certificate(&site.endpoint(), &certificate, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expired_while_cut_off_opens_the_door_to_its_own_node_alone() {
    LATER.store(0, Ordering::SeqCst);
    let mut bed = Bed::with(testbed::api::ApiConfig::default(), |mut site| {
        site.adjust(|config| config.clock = later);
        site
    })
    .await;
    bed.site.node().get(MAPS).await.unwrap().expect(200);
    bed.cut().await;
    LATER.store(10 * DAY, Ordering::SeqCst);
    for round in ["cut off", "restarted"] {
        if round == "restarted" {
            bed.restart().await;
            bed.site.sees_the_cloud(false).await;
        }
        let pki = bed.site.pki.clone();
        let client = |user: &str, group: &str, days| until(&bed.site, &pki, user, group, days);
        let node = client("system:node:n1", "system:nodes", 1);
        node.get(MAPS).await.unwrap().expect(200);
        let forgiven = bed
            .site
            .metric("yurthub_node_certificates_forgiven_total", "");
        assert!(forgiven.await > 0.5, "{round}");
        // Somebody else's, of another CA, and one that is past the limit are no identity.
        let strangers = [
            client("system:node:n2", "system:nodes", 1),
            client("system:node:n1", "system:masters", 1),
            client("admin", "system:masters", 1),
            client("system:node:n1", "system:nodes", -21),
            until(&bed.site, &Pki::new(), "system:node:n1", "system:nodes", 1),
        ];
        for (number, stranger) in strangers.iter().enumerate() {
            let refused = stranger.get(MAPS).await.unwrap();
            assert_eq!(refused.code, 401, "{round} {number} {refused:?}");
        }
    }
    LATER.store(32 * DAY, Ordering::SeqCst);
    let late = until(
        &bed.site,
        &bed.site.pki,
        "system:node:n1",
        "system:nodes",
        1,
    );
    let refused = late.get(MAPS).await.unwrap();
    assert_eq!(refused.code, 401, "after the limit");
}

/// A client whose certificate is of the hub's own key, and valid until so many days from now.
fn of_the_hubs_key(site: &Site, days: i64) -> Client {
    let key = site.node_key();
    let mut request = CertificateParams::default();
    let subject = &mut request.distinguished_name;
    subject.push(DnType::CommonName, "system:node:n1");
    subject.push(DnType::OrganizationName, "system:nodes");
    let pair = KeyPair::from_pem(&key).unwrap();
    let request = request.serialize_request(&pair).unwrap().pem().unwrap();
    let validity = Validity {
        not_after: Timestamp::now() + SignedDuration::from_secs(days * DAY),
        ..Validity::default()
    };
    let purpose = ExtendedKeyUsagePurpose::ClientAuth;
    let certificate = site.pki.sign_request(&request, purpose, validity);
    Client::with_certificate(&site.endpoint(), &certificate, &key).unwrap()
}

/// A bed that has just started is one whose link has just come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_with_an_expired_certificate_of_the_hubs_key_may_renew_it_when_the_link_is_back()
{
    let bed = Bed::start().await;
    let node = of_the_hubs_key(&bed.site, -1);
    node.get(MAPS).await.unwrap().expect(200);
    let body = json!({"metadata": {"name": "by-the-node"}});
    node.post(ALL, &body).await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_whose_certificate_expired_goes_on_and_may_renew_it_in_the_hour_after_a_cut() {
    let bed = Bed::start().await;
    bed.site.node().get(MAPS).await.unwrap().expect(200);
    bed.site.is_live("v1/configmaps in default").await;
    let pki = bed.site.pki.clone();
    let stale = until(&bed.site, &pki, "system:node:n1", "system:nodes", -1);
    stale.get(MAPS).await.unwrap().expect(200);
    let body = json!({"metadata": {"name": "by-the-node"}});
    stale.post(ALL, &body).await.unwrap().expect(201);
    // While the cloud is away it goes on as well.
    bed.cut().await;
    stale.get(MAPS).await.unwrap().expect(200);
    let lease = json!({"metadata": {"name": "n1"}});
    stale.post(LEASES, &lease).await.unwrap().expect(201);
}
