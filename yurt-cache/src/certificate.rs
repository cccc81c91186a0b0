//! The hub's own certificates: made by a CA of its own or signed by the cluster, kept, and renewed in time.

mod authority;
mod csr;
mod enroll;
mod error;
mod files;
mod renewal;
mod serving;

pub(crate) use self::csr::Purpose;
pub(crate) use self::enroll::{CLIENT_FILE, CLIENT_KEY, Enrolment, load};
pub(crate) use self::error::CertificateError;
pub(crate) use self::serving::ServingCertificate;
