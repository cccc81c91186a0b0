//! Runs the drill on this machine and prints what it has shown.

use std::{error::Error, path::PathBuf, process::ExitCode};

use testbed::{
    cluster::Version,
    drill::{Drill, Fault, ShortReturns},
    node::Cut,
};

const USAGE: &str = "usage: drill [--all] [--hub PROGRAM]

A real node with a hub, in namespaces of its own: the link is cut, the power fails, the cloud changes, the link
comes back. Needs root, what `make assets` and `.ci/node` install, and the hub: by default the yurthub beside this
program.

  --all          with everything that can go wrong besides, with both kinds of cut, and with several power cuts in a
                 row while the link comes back for moments
  --hub PROGRAM  the hub to drill";

#[tokio::main]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]
async fn main() -> ExitCode {
    let (is_all, hub) = match arguments() {
        Ok(arguments) => arguments,
        Err(mistake) => {
            eprintln!("{mistake}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut is_met = true;
    for drill in drills(is_all, &hub) {
        match drill.run().await {
            Ok(report) => {
                is_met &= report.is_met();
                println!("{report}\n");
            }
            Err(error) => {
                is_met = false;
                eprintln!("{}: {}\n", drill.fault, told(&error));
            }
        }
    }
    if is_all {
        let version = Version::Newest;
        match (ShortReturns { version, hub }).run().await {
            Ok(rounds) => {
                is_met &= rounds.is_met();
                println!("{rounds}\n");
            }
            Err(error) => {
                is_met = false;
                eprintln!("the short returns: {}\n", told(&error));
            }
        }
    }
    if is_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn drills(is_all: bool, hub: &std::path::Path) -> Vec<Drill> {
    let drill = |version, cut, fault| Drill {
        version,
        cut,
        fault,
        hub: hub.to_owned(),
    };
    let mut drills = vec![
        drill(Version::Oldest, Cut::Silent, Fault::None),
        drill(Version::Newest, Cut::Silent, Fault::None),
    ];
    if is_all {
        drills.push(drill(Version::Oldest, Cut::Unplugged, Fault::None));
        drills.push(drill(Version::Newest, Cut::Unplugged, Fault::None));
        let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::None);
        drills.extend(faults.map(|fault| drill(Version::Newest, Cut::Silent, fault)));
    }
    drills
}

fn arguments() -> Result<(bool, PathBuf), String> {
    let (mut is_all, mut hub) = (false, None);
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--all") => is_all = true,
            Some("--hub") => hub = Some(given.next().ok_or("--hub needs a program")?.into()),
            _ => return Err(format!("{} is unknown", argument.display())),
        }
    }
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("yurthub"));
    let hub: PathBuf = hub.or_else(beside).unwrap_or_default();
    if !hub.is_file() {
        return Err(format!(
            "no hub at {}: cargo build -p yurthub, or name it with --hub",
            hub.display()
        ));
    }
    // Programs of the node start in another folder.
    let hub = std::path::absolute(hub).map_err(|error| error.to_string())?;
    Ok((is_all, hub))
}

fn told(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
