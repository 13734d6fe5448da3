//! What a request presents, as far as it counts, in the one form in which a caller is remembered.
//!
//! Must not know: what any of it means, or for how long.
//!
//! Main types: [`Counted`], of a request; [`Kept`], the same in memory.

use policies::credential::{Given, Presented, bearer};

use crate::recent::{Hashing, add};

/// How tokens are kept, however their scheme was written.
const BEARER: &[u8] = b"Bearer ";

/// What counts. `authorization` beside `proxy-authorization` does not: it is the application's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'a> {
    api_key: Given<'a>,
    field: Field<'a>,
    by_proxy: bool,
    certificate: &'a [String],
    certificate_until_s: Option<u64>,
}

/// The field that may name a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field<'a> {
    Nothing,
    Token(&'a [u8]),
    Other(&'a [u8]),
    Several,
}

/// What was presented. Two that differ in how a scheme is written, or in blanks before a token, are the same.
#[derive(Debug, Default)]
pub(super) struct Kept {
    api_key: Option<Box<[u8]>>,
    field: Option<Box<[u8]>>,
    by_proxy: bool,
    certificate: Box<[String]>,
    certificate_until_s: Option<u64>,
}

impl<'a> Counted<'a> {
    pub(super) fn of(presented: &Presented<'a>) -> Self {
        let by_proxy = presented.proxy_authorization != Given::Nothing;
        let field = match if by_proxy { presented.proxy_authorization } else { presented.authorization } {
            Given::Nothing => Field::Nothing,
            Given::One(value) => bearer(value).map_or(Field::Other(value), Field::Token),
            Given::Several => Field::Several,
        };
        let Presented { api_key, certificate, certificate_until_s, .. } = *presented;
        Self { api_key, field, by_proxy, certificate, certificate_until_s }
    }

    /// The token that names the user, if there is one.
    pub(super) fn token(&self) -> Option<&'a [u8]> {
        if let Field::Token(token) = self.field { Some(token) } else { None }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.api_key == Given::Nothing && self.field == Field::Nothing && self.certificate.is_empty()
    }

    /// Whether it can be known again, and takes no more than this.
    pub(super) fn fits(&self, most: usize) -> bool {
        let key = if let Given::One(key) = self.api_key { key.len() } else { 0 };
        let field = match self.field {
            Field::Token(bytes) | Field::Other(bytes) => bytes.len(),
            Field::Nothing | Field::Several => 0,
        };
        let names: usize = self.certificate.iter().map(String::len).sum();
        self.api_key != Given::Several && self.field != Field::Several && key + field + names <= most
    }

    pub(super) fn hash(&self, hashing: &Hashing) -> u64 {
        hashing.hash(|hasher| {
            match self.api_key {
                Given::Nothing => add(hasher, b"-"),
                Given::One(value) => add(hasher, value),
                Given::Several => add(hasher, b"+"),
            }
            match self.field {
                Field::Nothing => add(hasher, b"-"),
                Field::Token(value) | Field::Other(value) => add(hasher, value),
                Field::Several => add(hasher, b"+"),
            }
            add(hasher, &[u8::from(self.by_proxy)]);
            self.certificate.iter().for_each(|name| add(hasher, name.as_bytes()));
            add(hasher, &self.certificate_until_s.unwrap_or_default().to_le_bytes());
        })
    }
}

impl Kept {
    pub(super) fn of(counted: &Counted<'_>) -> Self {
        let api_key = if let Given::One(key) = counted.api_key { Some(key.into()) } else { None };
        let field = match counted.field {
            Field::Token(token) => Some([BEARER, token].concat().into()),
            Field::Other(value) => Some(value.into()),
            Field::Nothing | Field::Several => None,
        };
        let Counted { by_proxy, certificate, certificate_until_s, .. } = *counted;
        Self { api_key, field, by_proxy, certificate: certificate.into(), certificate_until_s }
    }

    pub(super) fn is(&self, counted: &Counted<'_>) -> bool {
        let is_key = match counted.api_key {
            Given::Nothing => self.api_key.is_none(),
            Given::One(key) => self.api_key.as_deref() == Some(key),
            Given::Several => false,
        };
        let field = self.field.as_deref();
        let is_field = match counted.field {
            Field::Nothing => field.is_none(),
            Field::Token(token) => field.and_then(|field| field.strip_prefix(BEARER)) == Some(token),
            Field::Other(value) => field == Some(value),
            Field::Several => false,
        };
        let is_certificate =
            *self.certificate == *counted.certificate && self.certificate_until_s == counted.certificate_until_s;
        is_key && is_field && is_certificate && self.by_proxy == counted.by_proxy
    }

    /// As if it were presented again.
    pub(super) fn presented(&self) -> Presented<'_> {
        let given = |bytes| if let Some(bytes) = bytes { Given::One(bytes) } else { Given::Nothing };
        let field = given(self.field.as_deref());
        Presented {
            api_key: given(self.api_key.as_deref()),
            authorization: if self.by_proxy { Given::Nothing } else { field },
            proxy_authorization: if self.by_proxy { field } else { Given::Nothing },
            certificate: &self.certificate,
            certificate_until_s: self.certificate_until_s,
        }
    }
}
