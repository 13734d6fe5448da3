//! What a worker tells about itself beside its releases: connections, and what was not served, by cause.
//!
//! Must not know: who reads it. Main types: [`Totals`]; [`Reason`], why a request was answered by us; [`Cut`], why a
//! connection or a stream was ended by us; [`Unshaken`], why a TLS handshake was. All are labels of metrics: few and fixed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Written by its worker alone, read when somebody asks.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Totals {
    pub(crate) connections: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) outstanding: AtomicU64,
    policy_failures: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    cut: [AtomicU64; Cut::ALL.len()],
    unshaken: [AtomicU64; Unshaken::ALL.len()],
}

impl Totals {
    /// A request was answered by us.
    pub(crate) fn refuse(&self, reason: Reason) {
        add(&self.refused[reason as usize]);
    }

    /// Policies could not be evaluated for one question.
    pub(crate) fn policy_failed(&self) {
        add(&self.policy_failures);
    }

    pub(crate) fn policy_failures(&self) -> u64 {
        self.policy_failures.load(Relaxed)
    }

    /// A connection or a stream was ended by us.
    pub(crate) fn cut(&self, cut: Cut) {
        add(&self.cut[cut as usize]);
    }

    /// A TLS handshake was refused by us.
    pub(crate) fn unshaken(&self, reason: Unshaken) {
        add(&self.unshaken[reason as usize]);
    }

    pub(crate) fn was_unshaken(&self, reason: Unshaken) -> u64 {
        self.unshaken[reason as usize].load(Relaxed)
    }

    pub(crate) fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Relaxed)
    }

    pub(crate) fn was_cut(&self, cut: Cut) -> u64 {
        self.cut[cut as usize].load(Relaxed)
    }
}

/// One writer: a load and a store, and no locked instruction.
fn add(count: &AtomicU64) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $one:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($(#[$of])* $one,)+ }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$one,)+];

            /// As metrics name it.
            pub(crate) fn label(self) -> &'static str {
                match self { $(Self::$one => $label,)+ }
            }
        }
    };
}

labels! {
    /// Why a request was answered by us.
    Reason {
        UnknownHost = "unknown_host",
        /// There is such a stage, and the caller may not know it.
        Hidden = "hidden",
        Unauthenticated = "unauthenticated",
        Forbidden = "forbidden",
        KeysUnavailable = "keys_unavailable",
        /// An alarm: a policy could not be evaluated, and nobody is let in by the others.
        PolicyFailed = "policy_failed",
        Malformed = "malformed",
        Method = "method",
        Expectation = "expectation",
        Version = "version",
        Misdirected = "misdirected",
        TargetTooLong = "target_too_long",
        HostTooLong = "host_too_long",
        HeadTooLarge = "head_too_large",
        HeadTooSlow = "head_too_slow",
        BodyTooSlow = "body_too_slow",
        BodyBroken = "body_broken",
        ChunkExtensions = "chunk_extensions",
        Trailers = "trailers",
        HttpsOnly = "https_only",
        Origin = "origin",
        NotReady = "not_ready",
        NoEndpoint = "no_endpoint",
        ConnectFailed = "connect_failed",
        BadAnswer = "bad_answer",
        TooSlow = "too_slow",
        /// A gRPC call took longer than its caller waits.
        Late = "late",
        Overloaded = "overloaded",
        /// What was asked for is not what the backend's protocol carries.
        WrongProtocol = "wrong_protocol",
    }
}

labels! {
    /// Why a connection or a stream was ended by us, though its client had not finished.
    Cut {
        /// The TLS handshake took too long.
        Handshake = "handshake_too_slow",
        /// Nothing came, or no whole preface.
        FirstBytes = "first_bytes_too_slow",
        /// What had to come first by the PROXY protocol did not, or its peer may not say so.
        ProxyProtocol = "proxy_protocol",
        /// The client does not read.
        Unread = "unread",
        /// The client does not read one stream.
        UnreadStream = "unread_stream",
        /// Whoever asked for it may not any more.
        NoLonger = "no_longer_allowed",
        /// HTTP/2 was broken or flooded: the library ended it.
        Http2 = "http2",
    }
}

labels! {
    /// Why a TLS handshake was refused by us. The first are about what the client showed.
    Unshaken {
        /// No certificate, and one has to be shown.
        NoneShown = "none_shown",
        Expired = "expired",
        NotYetValid = "not_yet_valid",
        UnknownIssuer = "unknown_issuer",
        Revoked = "revoked",
        /// No list says that it is not revoked, or the list has expired.
        RevocationUnknown = "revocation_unknown",
        /// It is for servers, or for something else.
        NotForClients = "not_for_clients",
        /// It cannot be read, or a name in it is none.
        Unreadable = "unreadable",
        /// Anything else about it: its signature, its place in a chain, what its authority may sign.
        Certificate = "certificate",
        /// Nothing that both speak by ALPN.
        Protocol = "no_application_protocol",
        /// A version of TLS, or suites, that we do not speak; or there is no certificate of ours.
        Incompatible = "incompatible",
        /// It was no handshake.
        Broken = "broken",
    }
}

impl Unshaken {
    /// Whether it is about a certificate that a client has to show.
    pub(crate) fn is_of_client(self) -> bool {
        !matches!(self, Self::Protocol | Self::Incompatible | Self::Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn labels_are_words_and_each_counts_for_itself() {
        let totals = Totals::default();
        Reason::ALL.iter().for_each(|reason| totals.refuse(*reason));
        Cut::ALL.iter().for_each(|cut| totals.cut(*cut));
        Unshaken::ALL.iter().for_each(|reason| totals.unshaken(*reason));
        assert!(Unshaken::ALL.iter().all(|reason| totals.was_unshaken(*reason) == 1));
        assert!(Reason::ALL.iter().all(|reason| totals.refused(*reason) == 1));
        assert!(Cut::ALL.iter().all(|cut| totals.was_cut(*cut) == 1));
        let labels: Vec<_> =
            Reason::ALL.iter().map(|one| one.label()).chain(Cut::ALL.iter().map(|one| one.label())).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'2')));
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len());
    }
}
