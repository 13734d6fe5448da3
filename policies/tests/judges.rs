//! Other implementations as judges: PyJWT (on Debian's python3-cryptography) and the crate jsonwebtoken. What they sign we
//! accept, what we sign they accept.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use api::fleet::Issuer;
use pointsman_policies::credential::assertion::{self, Key, Signer};
use pointsman_policies::credential::{Fault, Identity, Issuers, KeyRing, KeySet, Standing, User};
use serde_json::{Value, json};

const NOW_S: u64 = 1_800_000_000;

const ISS: &str = "https://login.example.com";

const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Runs a program with Debian's own Python, which has the packages that scripts/setup names.
fn python(program: &str, input: &Value) -> Value {
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: scripts/setup");
    child.stdin.take().expect("is a pipe").write_all(input.to_string().as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("ends");
    assert!(output.status.success(), "python3 with python3-jwt and python3-cryptography: scripts/setup");
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

fn issuers(audience: &str, iss: &str) -> Issuers {
    let (issuer, audiences) = (iss.to_owned(), vec![audience.to_owned()]);
    let issuer = Issuer { issuer, audiences, leeway_ms: 0, refresh_ms: 30_000, ..Default::default() };
    Issuers::new([("corp", &issuer)].into_iter()).expect("is right")
}

fn ring(set: &str) -> KeyRing {
    let set = Arc::new(KeySet::read(set.as_bytes()).expect("has keys"));
    KeyRing { issuers: [("corp".into(), set)].into(), generation: 1 }
}

/// Draws a key of each kind, two of RSA, and signs the claims with each algorithm.
const SIGN: &str = r#"
import base64, json, sys, jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

def b64(value, length=None):
    if isinstance(value, int):
        value = value.to_bytes(length or (value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

def rsa_key(kid, bits, exponent):
    key = rsa.generate_private_key(exponent, bits)
    numbers = key.public_key().public_numbers()
    return key, {"kty": "RSA", "kid": kid, "n": b64(numbers.n), "e": b64(numbers.e)}

def curve(kid, name, kind, length):
    key = ec.generate_private_key(kind)
    numbers = key.public_key().public_numbers()
    return key, {"kty": "EC", "crv": name, "kid": kid, "x": b64(numbers.x, length), "y": b64(numbers.y, length)}

edwards = ed25519.Ed25519PrivateKey.generate()
point = edwards.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
keys = {
    "r1": rsa_key("r1", 2048, 65537), "r2": rsa_key("r2", 3072, 3),
    "e1": curve("e1", "P-256", ec.SECP256R1(), 32), "e2": curve("e2", "P-384", ec.SECP384R1(), 48),
    "d1": (edwards, {"kty": "OKP", "crv": "Ed25519", "kid": "d1", "x": b64(point)}),
}
claims = json.load(sys.stdin)
tokens = []
for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]:
    kids = {"ES256": ["e1"], "ES384": ["e2"], "EdDSA": ["d1"]}.get(algorithm, ["r1", "r2"])
    for kid in kids:
        tokens.append([algorithm, kid, jwt.encode(claims, keys[kid][0], algorithm=algorithm, headers={"kid": kid})])
json.dump({"keys": [key[1] for key in keys.values()], "tokens": tokens}, sys.stdout)
"#;

#[test]
fn judge_pyjwt_signs_with_every_algorithm_and_we_accept() {
    let claims =
        json!({ "iss": ISS, "aud": ["x", "pointsman"], "sub": "älice", "exp": NOW_S + 60, "nbf": NOW_S, "iat": NOW_S });
    let made = python(SIGN, &claims);
    let ring = ring(&json!({ "keys": made["keys"] }).to_string());
    let issuers = issuers("pointsman", ISS);
    let mut seen = Vec::new();
    for token in made["tokens"].as_array().expect("is a list") {
        let [algorithm, kid, token] = [0, 1, 2].map(|place| token[place].as_str().expect("is text"));
        let Standing::Valid(user) = issuers.user(token.as_bytes(), &ring, NOW_S) else {
            panic!("{algorithm} {kid}: {:?}", issuers.user(token.as_bytes(), &ring, NOW_S))
        };
        assert_eq!((&*user.subject, user.until_s), ("älice", NOW_S + 60));
        assert_eq!(issuers.user(token.as_bytes(), &ring, NOW_S + 60), Standing::Refused(Fault::Expired));
        // The signature belongs to its header and claims, and to nothing else.
        let (message, signature) = token.rsplit_once('.').expect("has three parts");
        let (header, _) = message.split_once('.').expect("has three parts");
        let swapped = format!("{header}.{}.{signature}", jsonwebtoken_claims(&json!({ "iss": ISS, "sub": "root" })));
        assert_eq!(issuers.user(swapped.as_bytes(), &ring, NOW_S), Standing::Refused(Fault::Signature), "{algorithm}");
        seen.push(algorithm);
    }
    seen.dedup();
    assert_eq!(seen, ALGORITHMS);
}

fn jsonwebtoken_claims(claims: &Value) -> String {
    let token =
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &jsonwebtoken::EncodingKey::from_secret(b"any"));
    token.expect("is signed").split('.').nth(1).expect("has three parts").to_owned()
}

fn asserted() -> (String, String) {
    let key = Key::draw();
    let signer = Signer::new("https://fleet.example", "a1", &key.pkcs8).expect("is a key");
    let user = User {
        issuer: "corp".into(),
        subject: "älice".to_owned(),
        client: None,
        groups: vec!["staff".into()],
        attributes: [].into(),
        until_s: 0,
    };
    let identity = Identity {
        application: Standing::Absent,
        user: Standing::Valid(Arc::new(user)),
        until_s: None,
        by_proxy_authorization: false,
    };
    (signer.sign(&identity, "hello/staging", "r1", NOW_S), assertion::jwks(&[("a1".to_owned(), key.public)]))
}

/// Finds the key by `kid` as an endpoint would, and prints the claims.
const VERIFY: &str = r#"
import json, sys, jwt
given = json.load(sys.stdin)
kid = jwt.get_unverified_header(given["token"])["kid"]
key = next(key for key in jwt.PyJWKSet.from_dict(json.loads(given["keys"])).keys if key.key_id == kid)
options = {"verify_exp": False, "verify_iat": False, "require": ["iss", "aud", "exp", "iat", "jti"]}
json.dump(jwt.decode(given["token"], key.key, algorithms=["ES256"], audience="hello/staging",
                     issuer="https://fleet.example", options=options), sys.stdout)
"#;

#[test]
fn judge_pyjwt_accepts_our_assertions() {
    let (token, keys) = asserted();
    let claims = python(VERIFY, &json!({ "token": token, "keys": keys }));
    let expected = json!({
        "iss": "https://fleet.example", "aud": "hello/staging", "iat": NOW_S, "exp": NOW_S + 60, "jti": "r1",
        "sub": "älice", "idp": "corp", "groups": ["staff"],
    });
    assert_eq!(claims, expected);
}

#[test]
fn judge_jsonwebtoken_and_we_accept_each_other() {
    let (token, keys) = asserted();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&keys).expect("is a key set");
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find("a1").expect("is there")).expect("is a key");
    let mut terms = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    terms.validate_exp = false;
    terms.set_audience(&["hello/staging"]);
    terms.set_issuer(&["https://fleet.example"]);
    let read = jsonwebtoken::decode::<Value>(&token, &key, &terms).expect("is right");
    assert_eq!(read.claims["sub"], "älice");

    let key = Key::draw();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
    header.kid = Some("j1".to_owned());
    let claims = json!({ "iss": ISS, "aud": "pointsman", "sub": "alice", "exp": NOW_S + 60 });
    let token = jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ec_der(&key.pkcs8));
    let ring = ring(&assertion::jwks(&[("j1".to_owned(), key.public)]));
    let standing = issuers("pointsman", ISS).user(token.expect("is signed").as_bytes(), &ring, NOW_S);
    assert_eq!(standing.valid().map(|user| &*user.subject), Some("alice"));
}
