//! Payloads: JSON in which some values are expressions.

use super::{CompileError, Expression, Failure, Scope};
use crate::definition::{Kind, Node};
use endstate_events::Json;
use serde_json::Map;
use std::borrow::Cow;

/// A value of a definition: literal, computed, or a mixture.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// As written.
    Literal(Json),
    /// Computed.
    Computed(Expression),
    /// A list with a computed part.
    List(Vec<Template>),
    /// A mapping with a computed part.
    Map(Vec<(String, Template)>),
}

impl Template {
    /// Compiles a node; each error comes with the node it is about.
    ///
    /// # Errors
    /// The first expression that does not compile.
    pub fn compile(node: &Node) -> Result<Self, (Node, CompileError)> {
        match &node.kind {
            Kind::Text(text) => match text.strip_prefix('=') {
                Some(expression) => Expression::compile(expression.trim(), &node.at)
                    .map(Self::Computed)
                    .map_err(|error| (node.clone(), error)),
                None => Ok(Self::Literal(Json::String(text.clone()))),
            },
            Kind::List(items) => {
                let items = items.iter().map(Self::compile).collect::<Result<Vec<_>, _>>()?;
                Ok(Self::of_list(items))
            }
            Kind::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Ok((key.name.clone(), Self::compile(value)?)))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Self::of_map(entries))
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => Ok(Self::Literal(node.json())),
        }
    }

    fn of_list(items: Vec<Self>) -> Self {
        let literal = items.iter().map(|item| item.literal().cloned()).collect::<Option<Vec<_>>>();
        literal.map_or(Self::List(items), |values| Self::Literal(Json::Array(values)))
    }

    fn of_map(entries: Vec<(String, Self)>) -> Self {
        let literal = entries.iter().map(|(name, value)| Some((name.clone(), value.literal()?.clone()))).collect();
        match literal {
            Some(values) => Self::Literal(Json::Object(values)),
            None => Self::Map(entries),
        }
    }

    fn literal(&self) -> Option<&Json> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Computed(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// Evaluates to JSON. The failure names the part that failed: `.unit: there is no ...`.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate<'s>(&'s self, scope: &'s Scope<'_>) -> Result<Cow<'s, Json>, Failure> {
        match self {
            Self::Literal(value) => Ok(Cow::Borrowed(value)),
            Self::Computed(expression) => expression.evaluate(scope),
            Self::List(items) => {
                let values = items.iter().map(|item| item.evaluate(scope).map(Cow::into_owned));
                values.collect::<Result<Vec<_>, _>>().map(|values| Cow::Owned(Json::Array(values)))
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (name, template) in entries {
                    let value = template.evaluate(scope).map_err(|failure| Failure(format!("{name}: {failure}")))?;
                    map.insert(name.clone(), value.into_owned());
                }
                Ok(Cow::Owned(Json::Object(map)))
            }
        }
    }

    /// Every expression in it.
    #[must_use]
    pub fn expressions(&self) -> Vec<&Expression> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Computed(expression) => vec![expression],
            Self::List(items) => items.iter().flat_map(Self::expressions).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(_, value)| value.expressions()).collect(),
        }
    }
}
