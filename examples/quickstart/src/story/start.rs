//! Chapter 1: a cloud, a link, a hub.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use testbed::endpoint::Endpoint;
use testbed::link::Link;
use tokio::time::Instant;

use super::{Broken, FILL_PATIENCE, PATIENCE, Scene, Stage};
use crate::hub::Orders;
use crate::object::{GEESE, STATIONS};
use crate::reader::Reader;
use crate::report::{Fact, Promise};
use crate::teller::count;

const THIS: Promise = Promise::Same;

pub(super) async fn start(stage: &mut Stage<'_>) -> Result<Scene, Broken> {
    stage.teller.step("A cloud, a link, and a hub");
    let cloud = stage.cloud;
    let told = format!("cloud  {}, {}", cloud.url, cloud.words);
    stage.teller.fact(Fact::new(told));
    let begun = Instant::now();
    THIS.within(
        FILL_PATIENCE,
        "write the objects into the cloud",
        cloud.fill(),
    )
    .await?;
    let told = format!(
        "       in it {} ConfigMaps and {} geese",
        count(STATIONS),
        GEESE.len()
    );
    stage.teller.fact(Fact::new(told).took(begun.elapsed()));
    let token = THIS
        .within(PATIENCE, "ask for a token", cloud.token())
        .await?;

    let link = Link::start(cloud.address).map_err(|error| THIS.broken("start the link", error))?;
    let told = format!("link   {}, the only way to the cloud", link.addr());
    stage.teller.fact(Fact::new(told));

    let orders = orders(stage, link.addr())?;
    let begun = Instant::now();
    let starting = stage.start_hub(&orders);
    let hub = THIS.within(PATIENCE, "start the hub", starting).await?;
    let took = begun.elapsed();
    let told = format!("hub    https://{}, a process of its own", hub.address);
    stage.teller.fact(Fact::new(told).took(took));
    let memory = stage.hub_memory().map(|size| format!(", {size} of memory"));
    let told = format!("       pid {}{}", hub.id, memory.unwrap_or_default());
    stage.teller.fact(Fact::new(told));
    let ca_pem = std::fs::read_to_string(&hub.ca_file);
    let endpoint = Endpoint {
        url: format!("https://{}", hub.address),
        ca_pem: ca_pem.map_err(|error| THIS.broken("read the hub's CA", error))?,
        admin_token: token,
    };
    let reader = Reader::new(&endpoint).map_err(|error| THIS.broken("make a client", error))?;
    Ok(Scene {
        // The same port after a restart: clients do not look for it.
        orders: Orders {
            listen: hub.address,
            ..orders
        },
        link,
        endpoint,
        reader,
    })
}

fn orders(stage: &Stage<'_>, link: SocketAddr) -> Result<Orders, Broken> {
    let file = |name: &str, text: &str| {
        let path = stage.folder.join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| THIS.broken("write the hub's files", error))?;
        Ok::<PathBuf, Broken>(path)
    };
    let ca_file = file("ca.pem", &stage.cloud.ca_pem)?;
    let (client_certificate, client_key) = match &stage.cloud.node {
        Some((certificate, key)) => (
            Some(file("node.pem", certificate)?),
            Some(file("node.key", key)?),
        ),
        None => (None, None),
    };
    Ok(Orders {
        server: format!("https://{link}"),
        ca_file,
        client_certificate,
        client_key,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: stage.folder.join("hub"),
    })
}
