//! A node's control group: the kubelet puts all pods below it, so that they are found without asking anybody.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Error, machine::kill};

const MOUNT: &str = "/sys/fs/cgroup";

/// Makes the group where there are groups at all.
pub(super) fn make(name: &str) -> Result<(), Error> {
    for hierarchy in hierarchies() {
        let path = hierarchy.join(name);
        fs::create_dir_all(&path).map_err(|source| Error::File {
            step: "make",
            path,
            source,
        })?;
    }
    Ok(())
}

/// Kills every process in the group, and those that come meanwhile; returns how many there were.
pub(super) fn kill_all(name: &str) -> usize {
    let mut killed = BTreeSet::new();
    loop {
        let found = processes(name);
        if found.is_subset(&killed) {
            return killed.len();
        }
        found.iter().copied().for_each(kill);
        killed.extend(found);
    }
}

/// Removes the group when its last process has gone, as a reboot would; it may not be there.
pub(super) fn remove(name: &str) {
    for hierarchy in hierarchies() {
        let path = hierarchy.join(name);
        let mut attempts = 100;
        while path.exists() && attempts > 0 {
            remove_tree(&path);
            attempts -= 1;
            std::thread::sleep(Duration::from_millis(if path.exists() { 10 } else { 0 }));
        }
    }
}

fn processes(name: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    // Every process is in each of the hierarchies.
    if let Some(hierarchy) = hierarchies().first() {
        collect(&hierarchy.join(name), &mut found);
    }
    found
}

fn collect(group: &Path, found: &mut BTreeSet<u32>) {
    let own = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    found.extend(own.lines().filter_map(|line| line.parse::<u32>().ok()));
    for below in folders(group) {
        collect(&below, found);
    }
}

// Groups are removed one by one; the files in them are the kernel's.
fn remove_tree(group: &Path) {
    for below in folders(group) {
        remove_tree(&below);
    }
    _ = fs::remove_dir(group);
}

/// One with version 2, one for each controller with version 1.
fn hierarchies() -> Vec<PathBuf> {
    let mount = Path::new(MOUNT);
    if mount.join("cgroup.controllers").exists() {
        return vec![mount.to_owned()];
    }
    let mut found = folders(mount);
    found.retain(|folder| folder.join("cgroup.procs").exists());
    found
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // A link is another name of a hierarchy.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}
