//! The node's link to the network: a pair of interfaces, one end in the node, and the ways to cut it.

use std::{net::Ipv4Addr, process::Command};

use super::{Error, machine::Machine};
use crate::system::{run, words};

/// How a link is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The cable is pulled: both ends notice that nothing is connected, and connections fail within seconds.
    Unplugged,
    /// Every packet is dropped, in both directions, and nobody is told.
    Silent,
}

/// The end that is in the machine's own namespace. It is there while the node is on; how it is cut stays as it is.
#[derive(Debug)]
pub(super) struct Link {
    /// The interface, and the firewall table for it.
    pub(super) name: String,
    pub(super) bridge: String,
    pub(super) gateway: Ipv4Addr,
    pub(super) address: Ipv4Addr,
    pub(super) cut: Option<Cut>,
    pub(super) is_behind_nat: bool,
}

// After connections are known and before anybody else looks. One that is known from the middle only, such as one of
// before a power cut, counts as new.
const ONE_WAY: &str = "table inet one-way {
    chain prerouting {
        type filter hook prerouting priority -150;
        iifname \"eth0\" ct state { new, invalid } drop;
    }
}";

impl Link {
    /// Connects a node that was switched on.
    pub(super) fn plug_in(&self, machine: &Machine) -> Result<(), Error> {
        let Self {
            name,
            bridge,
            gateway,
            address,
            ..
        } = self;
        if self.is_behind_nat {
            run(machine.command("nft").arg(ONE_WAY))?;
        }
        let pid = machine.pid();
        run(&mut words(&format!(
            "ip link add {name} master {bridge} type veth peer name eth0 netns {pid}"
        )))?;
        self.apply()?;
        for inside in [
            format!("address add {address}/24 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {gateway}"),
        ] {
            run(machine.command("ip").args(inside.split(' ')))?;
        }
        Ok(())
    }

    /// Takes it away with the node's end; a node that is switched off loses it anyway, but nobody says when.
    pub(super) fn unplug(&self) {
        _ = run(&mut words(&format!("ip link delete {}", self.name)));
        self.drop_nothing();
    }

    pub(super) fn set(&mut self, cut: Option<Cut>, is_on: bool) -> Result<(), Error> {
        self.cut = cut;
        if is_on { self.apply() } else { Ok(()) }
    }

    fn apply(&self) -> Result<(), Error> {
        self.drop_nothing();
        if self.cut == Some(Cut::Silent) {
            self.drop_all()?;
        }
        let state = match self.cut {
            Some(Cut::Unplugged) => "down",
            Some(Cut::Silent) | None => "up",
        };
        run(&mut words(&format!("ip link set {} {state}", self.name)))?;
        Ok(())
    }

    /// Neighbours are still found: what is silent is beyond them.
    fn drop_all(&self) -> Result<(), Error> {
        let name = &self.name;
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{ type filter hook {hook} device \"{name}\" priority 0; \
                 meta protocol {{ ip, ip6 }} drop; }}\n"
            )
        };
        let rules = format!(
            "table netdev {name} {{\n{}{}}}",
            chain("ingress"),
            chain("egress")
        );
        run(Command::new("nft").arg(rules))?;
        Ok(())
    }

    fn drop_nothing(&self) {
        // There may be no rule.
        _ = run(&mut words(&format!(
            "nft delete table netdev {}",
            self.name
        )));
    }
}
