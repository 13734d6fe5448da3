//! Keys that issuers publish (RFC 7517).
//!
//! Keys are looked at when they are read: what the library would take and nobody should use is left out then.
//!
//! Must not know: where keys come from, or when.
//!
//! Main types: [`KeyRing`], [`KeySet`].

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use api::Digest;
use aws_lc_rs::signature::{ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use super::algorithm::{Algorithm, Kind};
use super::fault::Fault;
use super::json::{self, Json, Object};

/// The longest set that is read, in bytes. Large issuers' sets, with certificates, have some 20 KiB; while a set of nothing but
/// empty lists is read, it takes about thirty times its length.
pub const SET_BYTES: usize = 256 * 1024;

/// How many keys are kept of a set. Real ones have up to about ten.
const KEYS: usize = 100;

/// Longest `kid` that counts, in bytes.
pub(crate) const KEY_ID_BYTES: usize = 256;

/// The keys of all issuers as they were fetched last.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// By the issuer's name. None: they were never fetched.
    pub issuers: BTreeMap<Arc<str>, Arc<KeySet>>,
    /// Another number for each ring that is published.
    pub generation: u64,
}

/// One issuer's keys (RFC 7517). Never empty.
pub struct KeySet {
    /// Of what was written, in whatever order.
    written: Digest,
    keys: Vec<Key>,
    /// Places in `keys` by `kid`: one for each kind of key.
    by_id: HashMap<Box<str>, Vec<usize>, foldhash::fast::RandomState>,
}

/// A key that can be used.
struct Key {
    id: Option<Box<str>>,
    kind: Kind,
    /// Those that may use it.
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

// === impl KeySet ===

impl KeySet {
    /// Reads a JSON Web Key Set (RFC 7517).
    ///
    /// Left out is what cannot verify a signature that we know: other types and curves, RSA of less than 2,048 or more than
    /// 8,192 bits or with an exponent that is even, 1 or longer than 32 bits, points that are not on their curve, a `use` other than "sig", `key_ops` without "verify", an `alg` that
    /// does not fit, a `kid` of more than 256 bytes, and keys whose private half stands beside them, which are anybody's. Of
    /// keys with the same `kid` one of each kind is kept; several of a kind are all left out, since nobody can say which
    /// counts. At most 100 are kept.
    ///
    /// # Errors
    /// A sentence: it is too long, no such set, or holds no key that can be used.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        if json.len() > SET_BYTES {
            return Err(format!("the key set has {} bytes, more than {SET_BYTES}", json.len()));
        }
        let set = json::object(json).map_err(|not_read| match not_read {
            json::NotRead::NoObject => "not a JSON object: maybe an error page in place of a key set",
            json::NotRead::Repeated => "a name stands twice in an object of the key set",
        })?;
        let Some(Json::List(listed)) = set.get("keys") else {
            return Err("not a key set (RFC 7517 §5): it has no list named \"keys\"".to_owned());
        };
        let keys: Vec<Key> = listed.iter().filter_map(Key::read).take(KEYS).collect();
        let set = Self::of(keys, written(json));
        if set.keys.is_empty() {
            return Err(format!("none of its {} keys can be used", listed.len()));
        }
        Ok(set)
    }

    /// How many keys can be used, 1 to 100.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Whether both were written with the same keys, in whatever order.
    pub fn is_same(&self, other: &Self) -> bool {
        self.written == other.written
    }

    /// Leaves out keys that share `kid` and kind with another.
    fn of(mut keys: Vec<Key>, written: Digest) -> Self {
        let is_twin = |key: &Key, other: &Key| key.id.is_some() && key.id == other.id && key.kind == other.kind;
        let single: Vec<bool> =
            keys.iter().map(|key| keys.iter().filter(|other| is_twin(key, other)).count() < 2).collect();
        let mut single = single.into_iter();
        keys.retain(|_| single.next().expect("one for each key"));
        let mut by_id: HashMap<Box<str>, Vec<usize>, _> = HashMap::default();
        for (place, key) in keys.iter().enumerate() {
            if let Some(id) = &key.id {
                by_id.entry(id.clone()).or_default().push(place);
            }
        }
        Self { written, keys, by_id }
    }

    /// The key for a token with this `kid` and `alg`. Without a `kid` it has to be the only key.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Result<&DecodingKey, Fault> {
        let only = [0];
        let places = match (id, &*self.keys) {
            (Some(id), _) => self.by_id.get(id).ok_or(Fault::UnknownKey)?.as_slice(),
            (None, [_]) => only.as_slice(),
            (None, _) => return Err(Fault::KeyIdMissing),
        };
        let mut keys = places.iter().map(|place| &self.keys[*place]);
        let key = keys.find(|key| key.algorithms.contains(&algorithm));
        key.map(|key| &key.decoding).ok_or(Fault::AlgorithmOfOtherKey)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (key.id.as_deref(), key.kind))).finish()
    }
}

// === impl Key ===

impl Key {
    /// Reads one (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2), if it can be used.
    fn read(listed: &Json<'_>) -> Option<Self> {
        let Json::Object(key) = listed else { return None };
        let fits = |name: &str, is_right: &dyn Fn(&Json<'_>) -> bool| key.get(name).is_none_or(is_right);
        let may_verify = fits("use", &|value| value.text() == Some("sig"))
            && fits("key_ops", &|value| value.texts().is_some_and(|operations| operations.contains(&"verify")))
            && !key.contains_key("d");
        if !may_verify {
            return None;
        }
        let id = match key.get("kid") {
            None => None,
            Some(Json::Text(id)) if (1..=KEY_ID_BYTES).contains(&id.len()) => Some(Box::from(&**id)),
            Some(_) => return None,
        };
        let only = match key.get("alg") {
            None => None,
            Some(named) => Some(named.text().and_then(Algorithm::named)?),
        };
        let (kind, material) = Self::material(key)?;
        let algorithms: Vec<_> = Algorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.kind() == kind && only.is_none_or(|only| only == *algorithm))
            .filter(|algorithm| material.is_usable(*algorithm))
            .collect();
        (!algorithms.is_empty()).then(|| Self { id, kind, algorithms, decoding: material.decoding(kind) })
    }

    /// What kind of key it is, and its numbers.
    fn material(key: &Object<'_>) -> Option<(Kind, Material)> {
        let text = |name: &str| key.get(name)?.text();
        let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let point = |bytes: usize| {
            let (x, y) = (number("x")?, number("y")?);
            // RFC 7518 §6.2.1.2: always the curve's full length.
            (x.len() == bytes && y.len() == bytes).then(|| Material::Point([&[4], &*x, &*y].concat()))
        };
        match (text("kty")?, text("crv")) {
            ("RSA", _) => Some((Kind::Rsa, rsa(number("n")?, number("e")?)?)),
            ("EC", Some("P-256")) => Some((Kind::P256, point(32)?)),
            ("EC", Some("P-384")) => Some((Kind::P384, point(48)?)),
            ("OKP", Some("Ed25519")) => {
                number("x").filter(|x| x.len() == 32).map(|x| (Kind::Ed25519, Material::Point(x)))
            }
            _ => None,
        }
    }
}

/// What is written about keys, without the order of keys and of their members.
fn written(json: &[u8]) -> Digest {
    // It is an object with a list, or was refused.
    let set: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let key = |key: &serde_json::Value| {
        let members = key.as_object().into_iter().flatten();
        let mut members: Vec<String> = members.map(|(name, value)| format!("{name:?}:{value}")).collect();
        members.sort_unstable();
        members.join(",")
    };
    let mut keys: Vec<String> = set["keys"].as_array().into_iter().flatten().map(key).collect();
    keys.sort_unstable();
    Digest::of(keys.join("\n").as_bytes())
}

/// The numbers of an RSA key. The library reads any exponent; with 1 a signature is the message itself.
fn rsa(mut n: Vec<u8>, mut e: Vec<u8>) -> Option<Material> {
    // Some issuers put a zero in front, as DER does.
    for number in [&mut n, &mut e] {
        number.drain(..number.iter().take_while(|byte| **byte == 0).count());
    }
    let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    // FIPS 186-5 §A.1.1 wants more than 2^16, but 3 is in use. More than 32 bits only cost time.
    let has_exponent = is_odd(&e) && e != [1] && e.len() <= 4;
    ((2048..=8192).contains(&bits) && is_odd(&n) && has_exponent).then_some(Material::Rsa { n, e })
}

/// The numbers of a key.
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// As the curve writes it: uncompressed for P-256 and P-384.
    Point(Vec<u8>),
}

impl Material {
    /// Whether it is a key at all: a point may lie beside its curve.
    fn is_usable(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { n, e } => {
                algorithm.rsa().is_some_and(|rsa| RsaPublicKeyComponents { n, e }.to_parsed_public_key(rsa).is_ok())
            }
            Self::Point(point) => algorithm.curve().is_some_and(|curve| ParsedPublicKey::new(curve, point).is_ok()),
        }
    }

    /// As the library takes it.
    fn decoding(&self, kind: Kind) -> DecodingKey {
        match self {
            Self::Rsa { n, e } => DecodingKey::from_rsa_raw_components(n, e),
            Self::Point(point) if kind == Kind::Ed25519 => DecodingKey::from_ed_der(point),
            Self::Point(point) => DecodingKey::from_ec_der(point),
        }
    }
}

#[cfg(test)]
mod tests;
