//! Why a handshake failed, as it is counted.

use std::error::Error as _;

use rustls::{AlertDescription, CertificateError};
use yurt_core::transport::Error;

/// Why a peer was refused, or has refused us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There was no certificate.
    #[error("no certificate")]
    NoCertificate,
    /// The certificate's authority is not trusted.
    #[error("a certificate of an unknown authority")]
    UnknownAuthority,
    /// The certificate has expired.
    #[error("an expired certificate")]
    Expired,
    /// The certificate is not valid yet.
    #[error("a certificate that is not valid yet")]
    NotYetValid,
    /// The certificate was issued for another use: a server's for a client's, or the reverse.
    #[error("a certificate for another use")]
    WrongUsage,
    /// The certificate was issued for another name.
    #[error("a certificate for another name")]
    WrongName,
    /// Authenticated, but not authorized to connect.
    #[error("an identity that is not authorized")]
    Unauthorized,
    /// The operator denies the node.
    #[error("a node that the operator denies")]
    Denied,
    /// The peer speaks another protocol, or another version of ours.
    #[error("another protocol")]
    Protocol,
    /// The handshake took too long.
    #[error("a handshake that took too long")]
    HandshakeTimeout,
    /// There are too many handshakes already.
    #[error("too many handshakes at once")]
    TooManyHandshakes,
    /// The peer ended the connection, as an agent does whose other transport was faster.
    #[error("a peer that hung up")]
    HungUp,
    /// Anything else.
    #[error("a handshake that failed")]
    Other,
}

impl Refusal {
    /// Every reason, so that each has a counter from the start.
    pub const ALL: [Self; 13] = [
        Self::NoCertificate,
        Self::UnknownAuthority,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongUsage,
        Self::WrongName,
        Self::Unauthorized,
        Self::Denied,
        Self::Protocol,
        Self::HandshakeTimeout,
        Self::TooManyHandshakes,
        Self::HungUp,
        Self::Other,
    ];

    /// Returns the reason as a label of a metric.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongUsage => "wrong_usage",
            Self::WrongName => "wrong_name",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::Protocol => "protocol",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::HungUp => "hung_up",
            Self::Other => "other",
        }
    }

    /// Returns the reason that the error of a handshake carries.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let source = error.source().and_then(|source| source.downcast_ref());
        source.copied().unwrap_or(Self::Other)
    }

    /// Returns the reason that TLS gives.
    #[must_use]
    pub fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            rustls::Error::NoApplicationProtocol
            | rustls::Error::PeerIncompatible(_)
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. } => Self::Protocol,
            _ => Self::Other,
        }
    }

    /// Returns the reason that an alert tells of (RFC 8446, section 6.2).
    #[must_use]
    pub fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::UnknownCA => Self::UnknownAuthority,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::UnsupportedCertificate => Self::WrongUsage,
            AlertDescription::NoApplicationProtocol
            | AlertDescription::ProtocolVersion
            | AlertDescription::DecodeError
            | AlertDescription::UnexpectedMessage => Self::Protocol,
            _ => Self::Other,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Self::UnknownAuthority
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongUsage
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            _ => Self::Other,
        }
    }
}
