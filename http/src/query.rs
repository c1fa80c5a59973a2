//! Query parameters taken by name; one that nobody took, or that comes twice, is refused instead of ignored.

use crate::{Code, Problem};
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Longest value taken.
const MAX_VALUE: usize = 512;

/// The query of one call.
#[derive(Debug, Default)]
pub struct Params {
    left: BTreeMap<String, String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Problem::new(Code::InvalidParameter, error.to_string()))?;
        Self::of(pairs)
    }
}

impl Params {
    fn of(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut left = BTreeMap::new();
        for (name, value) in pairs {
            let shown: String = name.chars().take(64).collect();
            if name.contains('\0') || value.contains('\0') {
                return Err(Problem::new(Code::NulCharacter, format!("parameter `{}`", shown.replace('\0', "\\0"))));
            }
            if value.len() > MAX_VALUE {
                return Err(wrong(&shown, &format!("at most {MAX_VALUE} bytes")));
            }
            if left.insert(name, value).is_some() {
                return Err(wrong(&shown, "given twice"));
            }
        }
        Ok(Self { left })
    }

    /// A text, if given.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// An integer, if given.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let Some(text) = self.left.remove(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(wrong(name, &format!("expected an integer from {} to {}", range.start(), range.end()))),
        }
    }

    /// A flag: present without value, `true` or `false`.
    pub fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.left.remove(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(wrong(name, "expected true or false")),
        }
    }

    /// One of a few words, if given.
    pub fn one_of(&mut self, name: &str, words: &[&str]) -> Result<Option<String>, Problem> {
        match self.left.remove(name) {
            Some(text) if words.contains(&text.as_str()) => Ok(Some(text)),
            None => Ok(None),
            Some(_) => Err(wrong(name, &format!("expected one of {}", words.join(", ")))),
        }
    }

    /// All parameters whose name starts with `prefix`, without it.
    pub fn prefixed(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let (taken, left) = std::mem::take(&mut self.left).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.left = left;
        let taken: BTreeMap<String, String> = taken;
        taken.into_iter().map(|(name, value)| (name[prefix.len()..].to_owned(), value)).collect()
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), Problem> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(wrong(&name.chars().take(64).collect::<String>(), "unknown")),
        }
    }
}

fn wrong(name: &str, detail: &str) -> Problem {
    Problem::new(Code::InvalidParameter, format!("parameter `{name}`: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Result<Params, Problem> {
        Params::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_is_ignored() {
        let mut given = params(&[("limit", "10"), ("search.user", "u1"), ("verbose", "")]).unwrap();
        assert_eq!(given.integer("limit", 1..=100).unwrap(), Some(10));
        assert_eq!(given.prefixed("search.").get("user").map(String::as_str), Some("u1"));
        assert!(given.flag("verbose").unwrap());
        given.finish().unwrap();
        assert_eq!(params(&[("x", "1")]).unwrap().finish().unwrap_err().code, Code::InvalidParameter);
        assert_eq!(params(&[("x", "1"), ("x", "2")]).unwrap_err().code, Code::InvalidParameter);
        assert_eq!(params(&[("x", "a\0b")]).unwrap_err().code, Code::NulCharacter);
        assert!(params(&[("limit", "-1")]).unwrap().integer("limit", 1..=100).is_err());
        assert!(params(&[("limit", "99999999999999999999")]).unwrap().integer("limit", 1..=100).is_err());
    }
}
