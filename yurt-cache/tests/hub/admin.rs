//! Health and metrics.

use testbed::api::ApiConfig;
use yurt_cache::hub::{Error, Hub};

use super::site::{Bed, Site};

const FROM_MIRROR: &str = "/api/v1/namespaces/default/configmaps?resourceVersion=0";

/// What the node's people are promised.
const FAMILIES: [&str; 19] = [
    "yurthub_requests",
    "yurthub_request_duration_seconds",
    "yurthub_mirrors",
    "yurthub_mirror_objects",
    "yurthub_mirror_bytes",
    "yurthub_mirror_age_seconds",
    "yurthub_mirror_watchers",
    "yurthub_mirror_upstream_bytes",
    "yurthub_mirror_malformed",
    "yurthub_cloud_reachable",
    "yurthub_cut_off_seconds",
    "yurthub_server_up",
    "yurthub_store_records",
    "yurthub_store_live_bytes",
    "yurthub_store_disk_bytes",
    "yurthub_store_written_bytes",
    "yurthub_store_syncs",
    "yurthub_store_segments",
    "yurthub_store_damaged",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_parse_and_have_every_family() {
    let bed = Bed::with(ApiConfig::default(), Site::on_disk).await;
    let node = bed.site.node();
    node.get(FROM_MIRROR).await.unwrap().expect(200);
    bed.site.is_live("v1/configmaps in default").await;
    let (code, text) = bed.site.page("/metrics").await;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "OpenMetrics ends so");
    let mut seen = std::collections::HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        value.parse::<f64>().expect(line);
        assert!(seen.insert(series), "{series} is there twice");
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("yurthub_"), "{line}");
        let labels = &series[name.len()..];
        assert!(
            labels.is_empty() || (labels.starts_with('{') && labels.ends_with('}')),
            "{line}"
        );
    }
    for family in FAMILIES {
        assert!(
            text.contains(&format!("# TYPE {family} ")),
            "{family} is missing"
        );
        assert!(
            text.contains(&format!("# HELP {family} ")),
            "{family} is not explained"
        );
    }
    let served = "verb=\"list\",resource=\"configmaps\",served_from=\"mirror\",code=\"200\"";
    assert!(
        bed.site.metric("yurthub_requests_total", served).await > 0.5,
        "{text}"
    );
    assert!(
        bed.site.metric("yurthub_mirror_bytes", "").await > 100.0,
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_is_who_can_answer_and_who_cannot_says_why() {
    let bed = Bed::start().await;
    assert_eq!(bed.site.page("/readyz").await.0, 200);
    assert_eq!(bed.site.page("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(bed.site.page("/secrets").await.0, 404);
    bed.cut().await;
    let (code, why) = bed.site.page("/readyz").await;
    assert_eq!(code, 503);
    assert!(
        why.contains("[-] cloud not reachable") && why.contains("not ready"),
        "{why}"
    );
    assert_eq!(bed.site.page("/healthz").await.0, 200, "it lives");
    bed.mend().await;
    bed.site.node().get(FROM_MIRROR).await.unwrap().expect(200);
    bed.cut().await;
    let (code, why) = bed.site.page("/readyz").await;
    assert_eq!(code, 200, "{why}");
    assert!(why.contains("answering from 1 mirrors"), "{why}");
    assert!(bed.site.metric("yurthub_cloud_reachable", "").await < 0.5);
}

#[tokio::test]
async fn what_of_a_configuration_does_not_work_is_said_by_step_and_address() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let pki = std::sync::Arc::new(testbed::pki::Pki::new());
    let mut site = Site::new(pki, vec![address]);
    site.adjust(move |config| config.listen = vec![address]);
    let error = site.make().unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("listen on {address}"));
    site.adjust(|config| config.client_ca_file = Some("/does/not/exist".into()));
    let error = site.make().unwrap_err();
    assert_eq!(error.to_string(), "set up the serving certificate");
    site.adjust(|config| config.upstream.servers = Vec::new());
    let error: Box<dyn std::error::Error> = site.make().map(|_: Hub| ()).unwrap_err().into();
    assert_eq!(error.to_string(), "set up the way to the API servers");
    assert_eq!(
        error.source().unwrap().to_string(),
        "no API server is configured"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_answers_at_every_address() {
    let bed = Bed::with(ApiConfig::default(), |mut site| {
        site.adjust(|config| config.listen.push(([127, 0, 0, 2], 0).into()));
        site
    })
    .await;
    let addresses = bed.site.addresses();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let mut endpoint = bed.site.endpoint();
        endpoint.url = format!("https://{address}");
        let client = testbed::client::Client::new(&endpoint).unwrap();
        client.get(FROM_MIRROR).await.unwrap().expect(200);
    }
}
