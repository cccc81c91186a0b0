//! The drill on a real node, with everything that can go wrong besides. How long each step took is printed and
//! not asserted: the machine may be busy.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what a test takes for granted fails the test, and the drill is to be read"
)]

use testbed::{
    cluster::Version,
    drill::{Drill, Fault, ShortReturns},
    node::Cut,
};

async fn drill(version: Version, cut: Cut, fault: Fault) {
    let drill = Drill {
        version,
        cut,
        fault,
        hub: env!("CARGO_BIN_EXE_yurthub").into(),
    };
    println!("{}", drill.run().await.unwrap());
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_oldest_node_outlives_a_silent_cut_and_a_power_cut() {
    drill(Version::Oldest, Cut::Silent, Fault::None).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn the_newest_node_outlives_a_silent_cut_and_a_power_cut() {
    drill(Version::Newest, Cut::Silent, Fault::None).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_outlives_an_unplugged_link_and_a_power_cut() {
    drill(Version::Newest, Cut::Unplugged, Fault::None).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_whose_certificate_expires_during_the_cut_lives_on() {
    drill(Version::Newest, Cut::Silent, Fault::CertificateExpired).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_whose_clock_is_an_hour_ahead_after_the_power_cut_lives_on() {
    drill(Version::Newest, Cut::Silent, Fault::ClockAhead).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_whose_hub_has_a_full_disk_lives_on() {
    drill(Version::Newest, Cut::Silent, Fault::DiskFull).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_node_whose_hub_lost_the_end_of_a_segment_lives_on() {
    drill(Version::Newest, Cut::Silent, Fault::SegmentTruncated).await;
}

#[tokio::test]
#[ignore = "needs a real node: root, containerd, kubelet"]
async fn a_service_answers_after_each_of_several_power_cuts_though_the_link_comes_back_for_moments()
{
    let drill = ShortReturns {
        version: Version::Newest,
        hub: env!("CARGO_BIN_EXE_yurthub").into(),
    };
    let rounds = drill.run().await.unwrap();
    println!("{rounds}");
    assert!(rounds.is_met(), "{rounds}");
}
