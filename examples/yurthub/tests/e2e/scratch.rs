//! scratch
use serde_json::json;
use testbed::link::Cut;
use crate::{reading::warm, site::Site, world};

#[tokio::test]
#[ignore = "scratch"]
async fn scratch_first_cut() {
    let mut site = Site::start().await;
    world::make(&site.direct).await.unwrap();
    for round in 0..60 {
        let body = json!({"metadata": {"name": format!("x{round}")}});
        for _ in 0..5 { site.hub.post("/api/v1/namespaces/other/configmaps", &body).await.unwrap(); }
        site.hub.get("/api/v1/namespaces/other/configmaps").await.unwrap();
        warm(&site).await;
        let (a, took) = site.cut(Cut::Refuse, "/api/v1/namespaces/world/configmaps").await;
        println!("{round} {} {took:?}", a.code);
        site.kill_hub();
        site.wipe();
        site.link.mend().await.unwrap();
        site.start_hub().await;
    }
}
