//! A certificate with its key, on its way to where it is served.
//!
//! Must not know: who issued it, or who serves it.

use serde::{Deserialize, Serialize};

/// A certificate with its key, as it travels to proxies.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Material {
    /// The names it answers.
    pub dns_names: Vec<String>,
    /// Leaf first.
    pub chain_der: Vec<Vec<u8>>,
    /// PKCS #8.
    pub key_der: Vec<u8>,
    /// End of its validity, seconds since the Unix epoch.
    pub expires_s: u64,
}

impl std::fmt::Debug for Material {
    // Without the key: what is shown ends in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Material");
        shown.field("dns_names", &self.dns_names).field("expires_s", &self.expires_s);
        shown.field("certificates", &self.chain_der.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let material = Material {
            dns_names: vec!["hello.example.com".into()],
            chain_der: vec![vec![201, 202]],
            key_der: vec![203, 204],
            expires_s: 1,
        };
        let shown = format!("{material:?}");
        assert!(shown.contains("hello.example.com") && !shown.contains("203"), "{shown}");
    }
}
