//! What differs from commit to commit.

/// How the service greets.
pub const GREETING: &str = "Hello";

/// Of a thousand requests, how many are answered with an error.
pub const ERRORS_PER_THOUSAND: u32 = 0;
