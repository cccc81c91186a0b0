//! What goes wrong besides the cut.

use std::{fmt, fs};

use jiff::{SignedDuration, Timestamp};

use super::site::Site;
use crate::{
    node::{Error, HUB_DATA, NODE_CERTIFICATE},
    pki::Validity,
};

/// What goes wrong besides the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The node's certificate expires during the cut.
    CertificateExpired,
    /// After the power cut the clock is an hour ahead. Not behind: a kubelet then takes the containers of before
    /// for newer than those that it has just made, hub or not.
    ClockAhead,
    /// The hub's disk is full when the power fails.
    DiskFull,
    /// The end of the hub's last segment is not on the disk when the power is back.
    SegmentTruncated,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::None,
        Self::CertificateExpired,
        Self::ClockAhead,
        Self::DiskFull,
        Self::SegmentTruncated,
    ];

    /// What happens before the power fails.
    pub(super) async fn before_power_off(self, site: &Site) -> Result<(), Error> {
        match self {
            Self::DiskFull => site.node.fill_disk().await,
            Self::None | Self::CertificateExpired | Self::ClockAhead | Self::SegmentTruncated => {
                Ok(())
            }
        }
    }

    /// What happens while the node is without power.
    pub(super) fn without_power(self, site: &mut Site) -> Result<(), Error> {
        match self {
            Self::CertificateExpired => certify(site, SignedDuration::from_mins(-1)),
            Self::ClockAhead => {
                site.node.set_clock(SignedDuration::from_hours(1));
                Ok(())
            }
            Self::SegmentTruncated => truncate(site),
            Self::None | Self::DiskFull => Ok(()),
        }
    }

    /// What people or time put right before the link is back.
    pub(super) async fn mend(self, site: &mut Site) -> Result<(), Error> {
        match self {
            Self::CertificateExpired => certify(site, SignedDuration::from_hours(1)),
            Self::DiskFull => site.node.free_disk().await,
            Self::None | Self::ClockAhead | Self::SegmentTruncated => Ok(()),
        }
    }
}

/// Gives the node a certificate that ends so long from now.
fn certify(site: &Site, left: SignedDuration) -> Result<(), Error> {
    let now = Timestamp::now();
    let validity = Validity {
        not_before: now - SignedDuration::from_hours(24),
        not_after: now + left,
    };
    let user = format!("system:node:{}", site.node.name());
    let (certificate, key) = site
        .cluster
        .pki()
        .client_for(&user, &["system:nodes"], validity);
    site.node
        .write_file(NODE_CERTIFICATE, &format!("{certificate}{key}"))
}

/// Cuts the last kilobytes off what the hub has written last.
fn truncate(site: &Site) -> Result<(), Error> {
    const LOST: usize = 2 << 10;
    let folder = site.node.file(&format!("{HUB_DATA}/store"));
    let failed = |step| {
        let path = folder.clone();
        move |source| Error::File { step, path, source }
    };
    let mut segments: Vec<_> = fs::read_dir(&folder)
        .map_err(failed("read"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    segments.sort();
    let Some(last) = segments.pop() else {
        return Ok(());
    };
    let bytes = fs::read(&last).map_err(failed("read"))?;
    // Segments are made at their full length: what was written ends before the zeros.
    let written = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let kept = u64::try_from(written.saturating_sub(LOST)).expect("a length fits");
    fs::File::options()
        .write(true)
        .open(&last)
        .and_then(|file| file.set_len(kept))
        .map_err(failed("truncate"))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "nothing else goes wrong",
            Self::CertificateExpired => "the node's certificate expires meanwhile",
            Self::ClockAhead => "the clock is an hour ahead afterwards",
            Self::DiskFull => "the hub's disk is full",
            Self::SegmentTruncated => "the end of the hub's last segment is lost",
        })
    }
}
