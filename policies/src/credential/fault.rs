//! Why a credential is not valid, each reason with a number and a sentence of its own.
//!
//! Must not know: how an answer is written. A caller is never told any of this.
//!
//! Main type: [`Fault`].

/// Writes each fault once: name, number, and the sentence that is documentation and reason.
macro_rules! faults {
    ($($name:ident = $number:literal, $reason:literal;)*) => {
        /// Why a credential is not valid: for logs and operators, never for the caller. `u8`: as it is sealed into a denial's
        /// id; a number is never used for anything else afterwards. 0 stands for none.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Fault {
            $(#[doc = $reason] $name = $number,)*
        }

        impl Fault {
            /// All that there are, by number.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// A sentence for operators, without a full stop.
            pub fn reason(self) -> &'static str {
                match self {
                    $(Self::$name => $reason,)*
                }
            }

            /// The fault with that number, if there is one.
            pub fn from_u8(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    Repeated = 1, "the field came more than once, or holds a list";
    NotBearer = 2, "the field is not \"Bearer\" and a token (RFC 6750 §2.1)";

    TokenLength = 10, "the token has more than 16 KiB";
    TokenShape = 11, "the token is not three parts between dots (RFC 7515 §7.1)";
    TokenEncoding = 12, "a part of the token is not base64url without padding";
    HeaderJson = 13, "the token's header is not a JSON object";
    HeaderType = 14, "alg or kid of the token's header is missing or no string";
    HeaderRepeated = 15, "a name stands twice in the token's header";
    AlgorithmNone = 16, "the token's alg is none: it is not signed";
    AlgorithmSymmetric = 17, "the token's alg is symmetric (HS256, HS384, HS512), for which issuers publish no keys";
    AlgorithmUnknown = 18, "the token's alg is not one that we know";
    AlgorithmNotAccepted = 19, "the token's alg is not accepted from its issuer";
    AlgorithmOfOtherKey = 20, "the token's alg does not fit the key that its kid names";
    Critical = 21, "the token's header has crit: extensions that have to be understood";
    Unencoded = 22, "the token's header has b64 (RFC 7797)";
    KeyInHeader = 23, "the token's header brings a key or says where one is (jwk, jku, x5c, x5u)";
    KeyIdLength = 24, "the token's kid is empty or has more than 256 bytes";
    KeyIdMissing = 25, "the token has no kid, and its issuer has not exactly one key";
    UnknownKey = 26, "the token's kid is not among its issuer's keys";
    KeysMissing = 27, "the keys of the token's issuer have never been fetched";
    Signature = 28, "the token's signature is not right";

    ClaimsJson = 40, "the token's claims are not a JSON object";
    ClaimsRepeated = 41, "a name stands twice in the token's claims";
    IssuerMissing = 42, "the token has no iss, or it is no string";
    UnknownIssuer = 43, "the token's iss is none that we know";
    AudienceMissing = 44, "the token has no aud";
    AudienceType = 45, "the token's aud is neither a string nor a list of strings";
    OtherAudience = 46, "the token's aud holds none of ours";
    ExpiryMissing = 47, "the token has no exp";
    ExpiryType = 48, "the token's exp is not a whole number of seconds";
    ExpiryFar = 49, "the token's exp is more than 400 days away";
    Expired = 50, "the token has expired";
    NotBeforeType = 51, "the token's nbf is not a whole number of seconds";
    NotYet = 52, "the token does not count yet (nbf)";
    IssuedAtType = 53, "the token's iat is not a whole number of seconds";
    IssuedLater = 54, "the token was issued in the future (iat)";
    SubjectMissing = 55, "the token has no sub, or it is no string";
    SubjectLength = 56, "the token's sub is empty or has more than 255 bytes";
    ClientType = 57, "the token's azp or client_id is not a string of 1 to 255 bytes";
    GroupClaimType = 58, "a claim that a rule for groups reads is neither a string nor a list of strings";
    AttributeClaimType = 59, "a claim that becomes an attribute is of another type";

    KeyLength = 80, "the API key has not 61 characters";
    KeyShape = 81, "the API key is not \"pm_\", an id, \"_\", and base64url";
    KeyChecksum = 82, "the API key's checksum is not right: it may be mistyped";
    KeyUnknown = 83, "the API key is none of an application: it may be revoked";
    KeyExpired = 84, "the API key does not count any more";

    CertificateAmbiguous = 90, "the client certificate stands for several applications";
    CertificateExpired = 91, "the client certificate does not count any more";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_keep_their_numbers() {
        for number in 0..=u8::MAX {
            assert!(Fault::from_u8(number).is_none_or(|fault| fault as u8 == number), "{number}");
        }
        assert!(Fault::ALL.iter().all(|fault| Fault::from_u8(*fault as u8) == Some(*fault)));
        assert_eq!(Fault::from_u8(0), None);
        // These are sealed into ids that people may keep: see them change on purpose only.
        assert_eq!((Fault::UnknownKey as u8, Fault::Expired as u8, Fault::KeyUnknown as u8), (26, 50, 83));
    }
}
