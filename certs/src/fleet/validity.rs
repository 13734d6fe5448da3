//! From when until when a certificate is good, and moments as people read them.
//!
//! Must not know: whose certificate it is, or what follows from its end.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The time in which a certificate is good, both ends included (RFC 5280 §4.1.2.5), in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

impl Validity {
    /// As it stands in a certificate (DER); `None` for what is none, and for times before 1970.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Self::within(&certificate)
    }

    pub(super) fn within(certificate: &X509Certificate<'_>) -> Option<Self> {
        let moment = |time: &x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(time.timestamp()).ok()?))
        };
        let validity = certificate.validity();
        Some(Self { from: moment(&validity.not_before)?, until: moment(&validity.not_after)? })
    }

    /// How long it is good in all; nothing when it ends before it begins.
    pub(super) fn lifetime(&self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    /// The middle of it.
    pub(super) fn middle(&self) -> SystemTime {
        self.from + self.lifetime() / 2
    }
}

/// A moment as rustls has it; before 1970 it is 1970.
pub(super) fn unix(moment: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A moment as rustls has it, in the standard library's type.
pub(super) fn system(moment: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(moment.as_secs())).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `2026-11-21T18:40:05Z` (RFC 3339), to the second.
pub fn rfc3339(moment: SystemTime) -> String {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(seconds) else { return "after the year 9999".to_owned() };
    let (month, day) = (u8::from(at.month()), at.day());
    format!("{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at.year(), at.hour(), at.minute(), at.second())
}
