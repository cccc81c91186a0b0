//! What a test does to a node: its link, its power, its programs and its containers.

use std::{path::Path, time::Duration};

use jiff::SignedDuration;
use rustix::process::Signal;

use super::{
    Cut, Error, Memory, Node, Program, cgroup, eventually, inside::fetch, machine::Machine,
    process::Process,
};

/// How long containerd or the hub may take until it answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

impl Node {
    // === The link ===

    /// Cuts the link, also for the time after a power cut.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn cut(&mut self, cut: Cut) -> Result<(), Error> {
        self.link.set(Some(cut), self.machine.is_some())
    }

    /// Mends the link, however it was cut.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn mend(&mut self) -> Result<(), Error> {
        self.link.set(None, self.machine.is_some())
    }

    // === Power ===

    /// Cuts the power: every process is killed at once, and all goes that a reboot clears: `/run` and other file
    /// systems in RAM, mounts, interfaces, firewall rules, connections, control groups.
    ///
    /// What was written to `/etc`, `/var/lib` and `/var/log` stays, also what was not synced: the machine itself
    /// goes on. Does nothing while the node is off.
    pub fn power_off(&mut self) {
        // With the first process all others are killed, before it is gone.
        self.machine = None;
        for (_, process) in std::mem::take(&mut self.processes) {
            process.forget();
        }
        self.link.unplug();
        cgroup::kill_all(&self.id);
        cgroup::remove(&self.id);
    }

    /// Switches the node on and starts its programs, containerd and the hub first, as a boot would.
    ///
    /// Returns when they are started; the kubelet and kube-proxy find their way alone.
    ///
    /// # Errors
    ///
    /// When it is on, or containerd or the hub does not answer in 30 s.
    ///
    /// # Cancel safety
    ///
    /// The programs that were started run on.
    pub async fn power_on(&mut self) -> Result<(), Error> {
        self.power_on_bare().await?;
        for program in self.programs() {
            self.start_program(program).await?;
        }
        Ok(())
    }

    /// Switches the node on, with none of its programs.
    ///
    /// # Errors
    ///
    /// When it is on.
    ///
    /// # Cancel safety
    ///
    /// Does not wait for anything.
    pub async fn power_on_bare(&mut self) -> Result<(), Error> {
        if self.machine.is_some() {
            return Err(self.power_error());
        }
        cgroup::make(&self.id)?;
        let machine = Machine::power_on(&self.name, &self.persistent, self.disk.as_deref())?;
        self.link.plug_in(&machine)?;
        self.machine = Some(machine);
        Ok(())
    }

    // === Programs ===

    /// The programs of this node, in the order in which a boot starts them.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        self.lines.programs()
    }

    /// Adds a program, which a boot starts after all others and which is not started yet. What it prints is in the
    /// [log](Node::log) of its name; it is started again when it ends by itself, and ends with the node.
    ///
    /// As for all of the node's programs, the file must not be below `/etc`, `/run`, `/var/lib` or `/var/log`.
    pub fn add_program(
        &mut self,
        name: &'static str,
        program: &Path,
        arguments: &[&str],
    ) -> Program {
        let added = Program::Other(name);
        self.lines.add(added, program, arguments);
        added
    }

    /// Starts a program that does not run, and waits until containerd or the hub answers; the kubelet and
    /// kube-proxy are not waited for.
    ///
    /// # Errors
    ///
    /// When the node is off, the program runs, or does not answer in 30 s.
    ///
    /// # Cancel safety
    ///
    /// The program runs on.
    pub async fn start_program(&mut self, program: Program) -> Result<(), Error> {
        if self.processes.contains_key(&program) {
            let is_running = true;
            return Err(Error::Program {
                program,
                is_running,
            });
        }
        let log = self.log_file(program);
        let process = Process::start(self.machine()?, self.lines.of(program), &log)?;
        let process = process.with_clock(self.clock);
        let process = process.map_err(|source| Error::Clock { program, source })?;
        self.processes.insert(program, process);
        match program {
            Program::Containerd => self.answers(program, &["ctr", "version"]).await,
            Program::Hub => self.answers(program, &fetch(self.lines.hub_probe())).await,
            Program::Kubelet | Program::KubeProxy | Program::Other(_) => Ok(()),
        }
    }

    /// Sets how far the clock of the node's programs is from the machine's, in whole seconds, for those that are
    /// started from now on: as after a boot without a battery for the clock.
    ///
    /// Containers have the right time, and so has a program that was started again because it had ended by itself.
    /// Only on x86-64.
    pub fn set_clock(&mut self, offset: SignedDuration) {
        self.clock = offset;
    }

    /// Kills a program with SIGKILL; containers go on without containerd. It stays away until it is started.
    ///
    /// # Errors
    ///
    /// When it was not started.
    pub fn kill(&mut self, program: Program) -> Result<(), Error> {
        let process = self.processes.remove(&program).ok_or(Error::Program {
            program,
            is_running: false,
        })?;
        process.kill();
        Ok(())
    }

    /// Kills a program and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Node::kill`] and [`Node::start_program`].
    ///
    /// # Cancel safety
    ///
    /// As of [`Node::start_program`].
    pub async fn restart(&mut self, program: Program) -> Result<(), Error> {
        self.kill(program)?;
        self.start_program(program).await
    }

    /// Stops a program where it is, with SIGSTOP: it keeps its connections and says nothing.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self, program: Program) -> Result<(), Error> {
        self.signal(program, Signal::STOP)
    }

    /// Lets a program go on that was [frozen](Node::freeze).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn thaw(&self, program: Program) -> Result<(), Error> {
        self.signal(program, Signal::CONT)
    }

    fn signal(&self, program: Program, signal: Signal) -> Result<(), Error> {
        let process = self.processes.get(&program).ok_or(Error::Program {
            program,
            is_running: false,
        })?;
        let sent = process.signal(signal);
        sent.map_err(|source| Error::Signal { program, source })
    }

    /// Kills every container, sandboxes too, with SIGKILL and without telling anybody; returns how many
    /// processes there were.
    pub fn kill_containers(&self) -> usize {
        cgroup::kill_all(&self.id)
    }

    /// Returns the number of a program's process outside; another number means that it was started again.
    #[must_use]
    pub fn pid(&self, program: Program) -> Option<u32> {
        self.processes.get(&program)?.pid()
    }

    /// Returns how much memory a program has in RAM, `None` while it does not run.
    #[must_use]
    pub fn memory(&self, program: Program) -> Option<Memory> {
        self.processes.get(&program)?.memory()
    }

    async fn answers(&self, program: Program, probe: &[&str]) -> Result<(), Error> {
        eventually(
            &format!("an answer of {program}"),
            ANSWER_LIMIT,
            async || {
                let probed = self.run(probe).await;
                let log = || {
                    let log = self.log(program);
                    log.lines().last().unwrap_or_default().to_owned()
                };
                probed
                    .map(drop)
                    .map_err(|error| format!("{error}\n{}", log()))
            },
        )
        .await
    }
}
