//! The figures of one way to carry streams.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::setup::{Fault, Setup, Way};
use crate::target::{ECHO, PIECE, SINK, SOURCE};

/// How often each row is measured; the median counts.
const ROUNDS: usize = 5;

/// Bytes of one round of bulk.
const BULK: u64 = 1 << 30;

/// Questions of one round.
const QUESTIONS: usize = 10_000;

pub(crate) async fn all(setup: &Setup) -> Result<(), Fault> {
    questions(setup).await?;
    throughput(setup).await?;
    questions_at_once(setup).await?;
    new_streams(setup).await
}

/// Prints one figure.
#[expect(clippy::print_stdout, reason = "it is what a bench is for")]
pub(crate) fn row(way: Way, what: &str, figure: &str, target: &str) {
    println!("{:<6} {what:<48} {figure:<34} {target}", way.label());
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn cpu_target(way: Way) -> &'static str {
    match way {
        Way::Quic => "<= 2.4 CPU s/GB (konnectivity 7.1 to 8.6)",
        Way::H2 => "<= 1.8 CPU s/GB (konnectivity 7.1 to 8.6)",
        Way::Floor => "(1.2 to 1.5 as read)",
    }
}

async fn throughput(setup: &Setup) -> Result<(), Fault> {
    for (streams, role, name) in [
        (1, SOURCE, "down"),
        (8, SOURCE, "down"),
        (1, SINK, "up"),
        (8, SINK, "up"),
    ] {
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (cpu, began) = (setup.cpu()?, Instant::now());
            let mut running = JoinSet::new();
            for _ in 0..streams {
                let stream = setup.dialer.dial(role).await?;
                let bytes = BULK / streams;
                running.spawn(async move {
                    match role {
                        SOURCE => read(stream, bytes).await,
                        _ => write(stream, bytes).await,
                    }
                });
            }
            while let Some(done) = running.join_next().await {
                done??;
            }
            let seconds = began.elapsed().as_secs_f64();
            costs.push((setup.cpu()? - cpu) / (BULK as f64 / 1e9));
            rates.push(BULK as f64 * 8.0 / 1e9 / seconds);
        }
        let figure = format!("{:.2} CPU s/GB, {:.1} Gbit/s", median(costs), median(rates));
        row(
            setup.way,
            &format!("{streams} streams {name}"),
            &figure,
            cpu_target(setup.way),
        );
    }
    Ok(())
}

async fn read(mut stream: UnixStream, bytes: u64) -> Result<(), Fault> {
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut piece).await? {
            0 => return Err("the source has ended".into()),
            count => left = left.saturating_sub(count as u64),
        }
    }
    Ok(())
}

async fn write(mut stream: UnixStream, bytes: u64) -> Result<(), Fault> {
    let piece = vec![7; PIECE];
    for _ in 0..bytes / PIECE as u64 {
        stream.write_all(&piece).await?;
    }
    stream.shutdown().await?;
    stream.read_u8().await?;
    Ok(())
}

/// Asks and waits, over and over; returns how long each took.
pub(crate) async fn ask(stream: &mut UnixStream, count: usize) -> Result<Vec<f64>, Fault> {
    let mut bytes = [7; 64];
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        stream.write_all(&bytes).await?;
        stream.read_exact(&mut bytes).await?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn questions(setup: &Setup) -> Result<(), Fault> {
    let (mut middle, mut worst, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut stream = setup.dialer.dial(ECHO).await?;
        let cpu = setup.cpu()?;
        let times = ask(&mut stream, QUESTIONS).await?;
        costs.push((setup.cpu()? - cpu) * 1e6 / QUESTIONS as f64);
        middle.push(percentile(&times, 50));
        worst.push(percentile(&times, 99));
    }
    let figure = format!(
        "p50 {:.0} µs, p99 {:.0} µs, {:.0} µs CPU",
        median(middle),
        median(worst),
        median(costs)
    );
    row(
        setup.way,
        "64 bytes there and back",
        &figure,
        "p50 <= 45 µs (konnectivity 96 to 183)",
    );
    Ok(())
}

async fn questions_at_once(setup: &Setup) -> Result<(), Fault> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (cpu, began) = (setup.cpu()?, Instant::now());
        let mut running = JoinSet::new();
        for _ in 0..32 {
            let mut stream = setup.dialer.dial(ECHO).await?;
            running.spawn(async move { ask(&mut stream, QUESTIONS / 10).await });
        }
        let mut times = Vec::new();
        while let Some(done) = running.join_next().await {
            times.extend(done??);
        }
        times.sort_by(f64::total_cmp);
        let count = times.len() as f64;
        let rate = count / began.elapsed().as_secs_f64();
        let cost = (setup.cpu()? - cpu) * 1e6 / count;
        rounds.push((rate, percentile(&times, 99), cost));
    }
    let of = |pick: fn(&(f64, f64, f64)) -> f64| median(rounds.iter().map(pick).collect());
    let figure = format!(
        "{:.0}/s, p99 {:.0} µs, {:.0} µs CPU",
        of(|round| round.0),
        of(|round| round.1),
        of(|round| round.2)
    );
    row(
        setup.way,
        "64 bytes there and back, 32 at once",
        &figure,
        "p99 <= 1150 µs (konnectivity 4600)",
    );
    Ok(())
}

async fn new_streams(setup: &Setup) -> Result<(), Fault> {
    const STREAMS: usize = 4000;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (cpu, began) = (setup.cpu()?, Instant::now());
        let mut running = JoinSet::new();
        for _ in 0..16 {
            let dialer = setup.dialer.clone();
            running.spawn(async move {
                for _ in 0..STREAMS / 16 {
                    let mut stream = dialer.dial(ECHO).await?;
                    ask(&mut stream, 1).await?;
                }
                Ok::<_, Fault>(())
            });
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        rates.push(STREAMS as f64 / began.elapsed().as_secs_f64());
        costs.push((setup.cpu()? - cpu) * 1e6 / STREAMS as f64);
    }
    let figure = format!("{:.0}/s, {:.0} µs CPU", median(rates), median(costs));
    let target = ">= 9000/s, <= 110 µs (konnectivity 2200 to 3000, 320 to 370)";
    row(setup.way, "new streams, 16 at once", &figure, target);
    Ok(())
}

pub(crate) async fn idle_streams(setup: &Setup) -> Result<(), Fault> {
    const STREAMS: usize = 500;
    let mut idle = Vec::new();
    // What the first ones make the allocator take is not theirs alone.
    for _ in 0..STREAMS / 5 {
        idle.push(used(setup).await?);
    }
    let before = setup.memory()?;
    for _ in 0..STREAMS {
        idle.push(used(setup).await?);
    }
    let after = setup.memory()?;
    let each = |end: usize| (after[end] - before[end]) / STREAMS as f64;
    let figure = format!("{:.1} + {:.1} KiB", each(0), each(1));
    row(
        setup.way,
        "an idle stream, server and agent",
        &figure,
        "<= 12 KiB together (konnectivity 36.7)",
    );
    Ok(())
}

/// A stream that has carried something and now is idle.
async fn used(setup: &Setup) -> Result<UnixStream, Fault> {
    let mut stream = setup.dialer.dial(ECHO).await?;
    ask(&mut stream, 1).await?;
    Ok(stream)
}

pub(crate) async fn unread_streams(setup: &Setup) -> Result<(), Fault> {
    const STREAMS: usize = 256;
    let mut stream = setup.dialer.dial(ECHO).await?;
    let before = setup.memory()?;
    let (mut ratios, mut growth) = (Vec::new(), [0.0_f64; 2]);
    for _ in 0..ROUNDS {
        let unloaded = percentile(&ask(&mut stream, QUESTIONS).await?, 99);
        let mut unread = Vec::new();
        for _ in 0..STREAMS {
            unread.push(setup.dialer.dial(SOURCE).await?);
        }
        // Until the sources are held up, they load the machine.
        settle(setup).await?;
        let loaded = percentile(&ask(&mut stream, QUESTIONS).await?, 99);
        ratios.push(loaded / unloaded);
        let after = setup.memory()?;
        growth = [0, 1].map(|end| growth[end].max((after[end] - before[end]) / 1024.0));
        drop(unread);
        settle(setup).await?;
    }
    let figure = format!(
        "p99 {:.1} times, {:.0} + {:.0} MiB",
        median(ratios),
        growth[0],
        growth[1]
    );
    row(
        setup.way,
        "beside 256 unread streams",
        &figure,
        "<= 2 times (konnectivity: stall, 1.1 GB)",
    );
    Ok(())
}

/// Waits until server and agent are idle.
async fn settle(setup: &Setup) -> Result<(), Fault> {
    loop {
        let before = setup.cpu()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if setup.cpu()? - before < 0.01 {
            return Ok(());
        }
    }
}
