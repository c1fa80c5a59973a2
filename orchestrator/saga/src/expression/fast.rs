//! The short way: paths, comparisons, sums and conditions straight over JSON, without the interpreter.
//!
//! It answers only where its answer is certainly the interpreter's; anything else (a missing field, a float, an
//! overflow, operands of different kinds) is `None` and goes the long way, so that values and errors are the same.

use super::Scope;
use super::path::Root;
use cel::common::ast::{CallExpr, Expr, LiteralValue};
use endstate_events::Json;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A compiled simple expression.
#[derive(Debug, PartialEq)]
pub(super) enum Fast {
    Literal(Json),
    Path(Root, Vec<String>),
    /// `has(path.field)`.
    Has(Root, Vec<String>, String),
    Not(Box<Fast>),
    And(Box<Fast>, Box<Fast>),
    Or(Box<Fast>, Box<Fast>),
    If(Box<Fast>, Box<Fast>, Box<Fast>),
    Binary(Operator, Box<Fast>, Box<Fast>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Fast {
    /// Compiles, if every part of the expression is simple.
    pub(super) fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::Literal(literal) => literal_of(literal).map(Self::Literal),
            Expr::Ident(_) => path_of(expr).map(|(root, fields)| Self::Path(root, fields)),
            Expr::Select(select) if select.test => {
                let (root, fields) = path_of(&select.operand.expr)?;
                Some(Self::Has(root, fields, select.field.clone()))
            }
            Expr::Select(_) => path_of(expr).map(|(root, fields)| Self::Path(root, fields)),
            Expr::Call(call) if call.target.is_none() => Self::of_call(call),
            Expr::Call(_)
            | Expr::Unspecified
            | Expr::Comprehension(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Struct(_) => None,
        }
    }

    fn of_call(call: &CallExpr) -> Option<Self> {
        let part = |index: usize| Self::of(&call.args.get(index)?.expr).map(Box::new);
        let operator = match call.func_name.as_str() {
            "!_" => return Some(Self::Not(part(0)?)),
            "_&&_" => return Some(Self::And(part(0)?, part(1)?)),
            "_||_" => return Some(Self::Or(part(0)?, part(1)?)),
            "_?_:_" => return Some(Self::If(part(0)?, part(1)?, part(2)?)),
            "_+_" => Operator::Add,
            "_-_" => Operator::Subtract,
            "_*_" => Operator::Multiply,
            "_/_" => Operator::Divide,
            "_==_" => Operator::Equal,
            "_!=_" => Operator::NotEqual,
            "_<_" => Operator::Less,
            "_<=_" => Operator::LessOrEqual,
            "_>_" => Operator::Greater,
            "_>=_" => Operator::GreaterOrEqual,
            _ => return None,
        };
        Some(Self::Binary(operator, part(0)?, part(1)?))
    }

    /// The value, or `None` for the long way.
    pub(super) fn evaluate<'s>(&'s self, scope: &'s Scope<'_>) -> Option<Cow<'s, Json>> {
        match self {
            Self::Literal(value) => Some(Cow::Borrowed(value)),
            Self::Path(root, fields) => scope.walk(*root, fields),
            Self::Has(root, fields, field) => {
                let holder = scope.walk(*root, fields)?;
                Some(boolean(holder.as_object()?.contains_key(field)))
            }
            Self::Not(inner) => Some(boolean(!inner.evaluate(scope)?.as_bool()?)),
            Self::And(a, b) => {
                let result = a.evaluate(scope)?.as_bool()? && b.evaluate(scope)?.as_bool()?;
                Some(boolean(result))
            }
            Self::Or(a, b) => {
                let result = a.evaluate(scope)?.as_bool()? || b.evaluate(scope)?.as_bool()?;
                Some(boolean(result))
            }
            Self::If(condition, yes, no) => {
                if condition.evaluate(scope)?.as_bool()? {
                    yes.evaluate(scope)
                } else {
                    no.evaluate(scope)
                }
            }
            Self::Binary(operator, a, b) => operator.apply(&*a.evaluate(scope)?, &*b.evaluate(scope)?).map(Cow::Owned),
        }
    }
}

fn boolean<'s>(value: bool) -> Cow<'s, Json> {
    Cow::Owned(Json::Bool(value))
}

impl Operator {
    fn apply(self, a: &Json, b: &Json) -> Option<Json> {
        match (a, b) {
            (Json::Number(a), Json::Number(b)) => self.of_integers(a.as_i64()?, b.as_i64()?),
            (Json::String(a), Json::String(b)) => match self {
                Self::Add => Some(Json::String([a.as_str(), b.as_str()].concat())),
                Self::Subtract | Self::Multiply | Self::Divide => None,
                Self::Equal
                | Self::NotEqual
                | Self::Less
                | Self::LessOrEqual
                | Self::Greater
                | Self::GreaterOrEqual => self.compare(a.cmp(b)),
            },
            (Json::Bool(a), Json::Bool(b)) => match self {
                Self::Equal => Some(Json::Bool(a == b)),
                Self::NotEqual => Some(Json::Bool(a != b)),
                Self::Add
                | Self::Subtract
                | Self::Multiply
                | Self::Divide
                | Self::Less
                | Self::LessOrEqual
                | Self::Greater
                | Self::GreaterOrEqual => None,
            },
            _ => None,
        }
    }

    fn of_integers(self, a: i64, b: i64) -> Option<Json> {
        let number = match self {
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide => a.checked_div(b),
            Self::Equal | Self::NotEqual | Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                return self.compare(a.cmp(&b));
            }
        };
        number.map(Json::from)
    }

    fn compare(self, order: Ordering) -> Option<Json> {
        let result = match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Add | Self::Subtract | Self::Multiply | Self::Divide => return None,
        };
        Some(Json::Bool(result))
    }
}

fn literal_of(literal: &LiteralValue) -> Option<Json> {
    match literal {
        LiteralValue::Boolean(flag) => Some(Json::Bool(*flag.inner())),
        LiteralValue::Int(number) => Some(Json::from(*number.inner())),
        LiteralValue::String(text) => Some(Json::String(text.inner().to_owned())),
        LiteralValue::Null => Some(Json::Null),
        LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::UInt(_) => None,
    }
}

fn path_of(expr: &Expr) -> Option<(Root, Vec<String>)> {
    match expr {
        Expr::Ident(name) => Root::named(name).map(|root| (root, Vec::new())),
        Expr::Select(select) if !select.test => {
            let (root, mut fields) = path_of(&select.operand.expr)?;
            fields.push(select.field.clone());
            Some((root, fields))
        }
        _ => None,
    }
}
