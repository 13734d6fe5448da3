//! The fingerprint of a set of resources: equal on controller and proxy when both hold the same bytes.

use crate::fleet::Resource;

/// Sum, lane by lane, of the SHA-256 of each resource.
///
/// A sum does not depend on order and is brought up to date in constant time when one resource of thousands changes.
/// It finds accidents (a lost change, a damaged file), not an adversary: both sides are authenticated anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fingerprint([u64; 4]);

impl Fingerprint {
    /// Adds a resource.
    pub fn add(&mut self, resource: &Resource) {
        self.zip(resource, u64::wrapping_add);
    }

    /// Takes away a resource that was added before.
    pub fn remove(&mut self, resource: &Resource) {
        self.zip(resource, u64::wrapping_sub);
    }

    /// 32 bytes, as messages carry it.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&lane.to_be_bytes());
        }
        bytes
    }

    fn zip(&mut self, resource: &Resource, combine: fn(u64, u64) -> u64) {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        // Lengths before the parts: ("a", "bc") and ("ab", "c") differ.
        for part in [resource.kind.as_bytes(), resource.name.as_bytes(), &resource.body, &resource.schema.to_be_bytes()]
        {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        for (lane, bytes) in self.0.iter_mut().zip(context.finish().as_ref().chunks_exact(8)) {
            *lane = combine(*lane, u64::from_be_bytes(bytes.try_into().expect("chunks of 8")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, body: &'static [u8]) -> Resource {
        Resource { kind: "stage".into(), name: name.into(), body: body.into(), schema: 1 }
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (a, b) = (resource("a", b"1"), resource("b", b"2"));
        let (mut left, mut right) = (Fingerprint::default(), Fingerprint::default());
        left.add(&a);
        left.add(&b);
        right.add(&b);
        right.add(&a);
        assert_eq!(left, right);
        right.remove(&a);
        assert_ne!(left, right);
        right.remove(&b);
        assert_eq!(right, Fingerprint::default());
    }

    #[test]
    fn every_part_counts() {
        let base = {
            let mut f = Fingerprint::default();
            f.add(&resource("a", b"1"));
            f
        };
        for other in [
            resource("b", b"1"),
            resource("a", b"2"),
            Resource { schema: 2, ..resource("a", b"1") },
            Resource { kind: "split".into(), ..resource("a", b"1") },
        ] {
            let mut f = Fingerprint::default();
            f.add(&other);
            assert_ne!(f, base);
        }
    }
}
