//! The works: what is asked of every contender in the same way.

use std::fmt;

/// The host behind which the HTTP/1.1 origin stands.
pub(crate) const HELLO: &str = "hello.production.localhost";
/// The host behind which the gRPC origin stands.
pub(crate) const GREETER: &str = "greeter.production.localhost";

/// One line of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) task: Task,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Task {
    /// Requests over HTTP/1.1 connections that are kept, one at a time on each.
    Http1 { connections: usize, tls: bool, path: &'static str, body_bytes: u64 },
    /// The same, each request with an ES256 token of its own.
    Tokens { connections: usize },
    /// Requests over HTTP/2, so many streams at a time on each connection, to the HTTP/1.1 origin.
    Http2 { connections: usize, streams: usize, tls: bool },
    /// gRPC calls without TLS, to the gRPC origin.
    Grpc { connections: usize, streams: usize },
    /// A connection with a full TLS handshake for each request, so many at a time.
    Handshakes { at_once: usize },
    /// Connections that have had one request each and are kept.
    Idle { connections: usize },
}

/// All of them, in the order of the table.
pub(crate) const WORKS: [Work; 11] = [
    Work {
        name: "W1",
        title: "HTTP/1.1 keep-alive, 100 B, 64 connections",
        task: Task::Http1 { connections: 64, tls: false, path: "/", body_bytes: 100 },
    },
    Work {
        name: "W2",
        title: "HTTP/1.1 keep-alive over TLS 1.3, 100 B, 64 connections",
        task: Task::Http1 { connections: 64, tls: true, path: "/", body_bytes: 100 },
    },
    Work {
        name: "W3",
        title: "full TLS 1.3 handshake (ECDSA P-256) and one request of 100 B, 16 at a time",
        task: Task::Handshakes { at_once: 16 },
    },
    Work {
        name: "W4a",
        title: "HTTP/2 to HTTP/1.1, 100 B, 16 connections x 32 streams",
        task: Task::Http2 { connections: 16, streams: 32, tls: false },
    },
    Work {
        name: "W4b",
        title: "HTTP/2 over TLS 1.3 to HTTP/1.1, 100 B, 16 connections x 32 streams",
        task: Task::Http2 { connections: 16, streams: 32, tls: true },
    },
    Work {
        name: "W5a",
        title: "gRPC unary, HTTP/2 to HTTP/2, 16 connections x 32 streams",
        task: Task::Grpc { connections: 16, streams: 32 },
    },
    Work {
        name: "W5b",
        title: "gRPC unary, HTTP/2 to HTTP/2, 64 connections x 1 stream",
        task: Task::Grpc { connections: 64, streams: 1 },
    },
    Work {
        name: "W6a",
        title: "HTTP/1.1 keep-alive over TLS 1.3, 64 KiB, 64 connections",
        task: Task::Http1 { connections: 64, tls: true, path: "/64k", body_bytes: 64 << 10 },
    },
    Work {
        name: "W6b",
        title: "HTTP/1.1 keep-alive, 1 MiB, 16 connections",
        task: Task::Http1 { connections: 16, tls: false, path: "/1m", body_bytes: 1 << 20 },
    },
    Work {
        name: "W7",
        title: "memory of 10,000 idle connections, clear and TLS 1.3",
        task: Task::Idle { connections: 10_000 },
    },
    Work {
        name: "W8",
        title: "W1, each request with an ES256 token of its own",
        task: Task::Tokens { connections: 64 },
    },
];

impl Task {
    /// The figures by which contenders are compared.
    pub(crate) fn compared(self) -> &'static [&'static str] {
        match self {
            Self::Idle { .. } => &["clear_mb", "tls_mb"],
            _ => &["cpu_us"],
        }
    }
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Pointsman,
    /// With both credentials asked for, and policies.
    PointsmanPolicy,
    Nginx,
    Haproxy,
    /// With both credentials asked for, and a rule.
    EnvoyPolicy,
}

impl Kind {
    /// Whether it looks at who asks.
    pub(crate) fn asks_who(self) -> bool {
        matches!(self, Self::PointsmanPolicy | Self::EnvoyPolicy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pointsman => "pointsman",
            Self::PointsmanPolicy => "pointsman-policy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::EnvoyPolicy => "envoy-policy",
        })
    }
}
