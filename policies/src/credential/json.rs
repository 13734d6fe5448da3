//! JSON as strangers send it: every name of an object once, whole numbers told from others.
//!
//! Two readers of an object with a name twice may take different values, so that is refused at any depth. RFC 7519 §4 leaves
//! the choice between that and taking the last one.
//!
//! Must not know: what the values mean.
//!
//! Main type: [`Json`].

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value. Strings are borrowed from the text where they have no escapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// A whole number, written without a point or an exponent, that fits.
    Whole(i64),
    /// Any other number. Nothing here reads it.
    Other,
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Object<'a>),
}

/// Names and values.
pub(crate) type Object<'a> = BTreeMap<Cow<'a, str>, Json<'a>>;

/// Why a text is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// It is not JSON, not an object, or nested deeper than 128.
    NoObject,
    /// A name stands twice in one object.
    Repeated,
}

/// Reads an object; nothing may stand behind it.
pub(crate) fn object(text: &[u8]) -> Result<Object<'_>, NotRead> {
    let repeated = Cell::new(false);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Seed(&repeated).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Json::Object(object)) => Ok(object),
        Err(_) if repeated.get() => Err(NotRead::Repeated),
        _ => Err(NotRead::NoObject),
    }
}

impl Json<'_> {
    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The strings, if it is a list of strings, or the one, if it is a string.
    pub(crate) fn texts(&self) -> Option<Vec<&str>> {
        match self {
            Self::Text(text) => Some(vec![text]),
            Self::List(values) => values.iter().map(Self::text).collect(),
            _ => None,
        }
    }
}

/// Reads a value, and leaves a mark when a name stands twice.
#[derive(Clone, Copy)]
struct Seed<'m>(&'m Cell<bool>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(i64::try_from(value).map_or(Json::Other, Json::Whole))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut object = Object::new();
        while let Some(name) = map.next_key_seed(Name)? {
            let value = map.next_value_seed(self)?;
            if object.insert(name, value).is_some() {
                self.0.set(true);
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(Json::Object(object))
    }
}

/// Reads a name, borrowed where it can be.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(value.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stand_twice_are_refused_at_any_depth() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"b":[{"a":1,"a":2}]}"#,
            r#"{"b":{"c":{"a":1,"x":0,"a":2}}}"#,
        ] {
            assert_eq!(object(text.as_bytes()), Err(NotRead::Repeated), "{text}");
        }
        assert!(object(br#"{"a":{"a":1},"b":{"a":2}}"#).is_ok());
    }

    #[test]
    fn whole_numbers_are_told_from_others() {
        for (text, expected) in [
            ("0", Json::Whole(0)),
            ("-7", Json::Whole(-7)),
            ("9223372036854775807", Json::Whole(i64::MAX)),
            ("9223372036854775808", Json::Other),
            ("1.0", Json::Other),
            ("1e3", Json::Other),
            ("\"1\"", Json::Text("1".into())),
            ("null", Json::Null),
        ] {
            let text = format!("{{\"n\":{text}}}");
            assert_eq!(object(text.as_bytes()).map(|object| object["n"].clone()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        for text in ["", "[]", "1", "{} {}", "{}x", "{\"a\":}", "{'a':1}", "{\"a\":\"\\ud800\"}", "{\"a\":01}", &deep] {
            assert_eq!(object(text.as_bytes()), Err(NotRead::NoObject), "{text}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), Err(NotRead::NoObject));
        assert_eq!(object(b"{\"a\":1}\0"), Err(NotRead::NoObject));
    }
}
