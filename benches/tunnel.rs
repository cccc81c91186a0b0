//! What the tunnel costs: CPU, memory, time. The servers are the release binaries, their CPU is the system's figure.
//!
//! `cargo build --release -p yurt-tunnel-server -p yurt-tunnel-agent && cargo bench -p benches --bench tunnel`
//!
//! With `-- quic`, `-- h2` or `-- floor` it measures that one only. It prints one row a figure, the median of
//! five, with the target beside it. Client, target, server and agent share the machine: read CPU and ratios.

#[path = "tunnel/agents.rs"]
mod agents;
#[path = "tunnel/client.rs"]
mod client;
#[path = "tunnel/floor.rs"]
mod floor;
#[path = "tunnel/lost.rs"]
mod lost;
#[path = "tunnel/process.rs"]
mod process;
#[path = "tunnel/rows.rs"]
mod rows;
#[path = "tunnel/setup.rs"]
mod setup;
#[path = "tunnel/site.rs"]
mod site;
#[path = "tunnel/target.rs"]
mod target;

use self::setup::{Fault, Setup, Way};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Fault> {
    let arguments: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    if let [role, rest @ ..] = arguments.as_slice()
        && role == floor::ROLE
    {
        return floor::relay(rest).await;
    }
    for way in [Way::Quic, Way::H2, Way::Floor] {
        if arguments.is_empty() || arguments.iter().any(|word| word == way.label()) {
            // Memory is that of processes that have done nothing else before.
            rows::idle_streams(&Setup::start(way).await?).await?;
            if way != Way::Floor {
                agents::rows(&Setup::start(way).await?).await?;
                lost::restart(way).await?;
                lost::one_of_two(way).await?;
            }
            rows::unread_streams(&Setup::start(way).await?).await?;
            rows::all(&Setup::start(way).await?).await?;
        }
    }
    Ok(())
}
