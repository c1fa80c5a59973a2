//! The CEL interpreter: one environment for the process, JSON in and JSON out.

use super::path::{Root, Roots};
use super::{Failure, Scope};
use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value};
use endstate_events::Json;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// Building an environment takes tens of microseconds; it never changes, so there is one.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

pub(super) fn parse(text: &str) -> Result<Program, String> {
    ENVIRONMENT.compile(text).map_err(|errors| {
        let messages = errors.errors.iter().map(|error| format!("{} (character {})", error.msg, error.pos.1));
        messages.collect::<Vec<_>>().join("; ")
    })
}

pub(super) fn run(program: &Program, roots: Roots, scope: &Scope<'_>) -> Result<Json, Failure> {
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    let functions = [context.add_function("sum", sum), context.add_function("share", share)];
    functions.into_iter().collect::<Result<(), _>>().map_err(|error| Failure(error.to_string()))?;
    for root in Root::ALL.into_iter().filter(|root| roots.has(*root)) {
        if let Some(value) = scope.interpreted(root) {
            context.add_variable_from_value(root.label(), value);
        }
    }
    let value = program.execute(&context).map_err(|error| Failure(explain(&error)))?;
    value.json().map_err(|_| Failure("the value has no JSON form".to_owned()))
}

/// `sum(list)`: the sum of whole numbers.
fn sum(list: Arc<Vec<Value>>) -> Result<i64, ExecutionError> {
    list.iter().try_fold(0i64, |total, value| match value {
        Value::Int(number) => {
            total.checked_add(*number).ok_or_else(|| ExecutionError::function_error("sum", "integer overflow"))
        }
        _ => Err(ExecutionError::function_error("sum", "expected a list of whole numbers")),
    })
}

/// `share(amount, part, whole)`: the part's share of an amount, rounded down; 0 of a whole of 0.
fn share(amount: i64, part: i64, whole: i64) -> Result<i64, ExecutionError> {
    if whole == 0 {
        return Ok(0);
    }
    let share = (i128::from(amount) * i128::from(part)).div_euclid(i128::from(whole));
    i64::try_from(share).map_err(|_| ExecutionError::function_error("share", "integer overflow"))
}

/// JSON to CEL. Every whole number becomes `int`: CEL does not mix `int` and `uint`.
pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(fields) => {
            let map: HashMap<Key, Value> =
                fields.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), from_json(value))).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// The interpreter's errors in the words of a definition's author.
fn explain(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(name) => format!("there is no `{name}`"),
        ExecutionError::UndeclaredReference(name) => format!("there is no `{name}` here"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "index out of bounds".to_owned(),
        other => other.to_string(),
    }
}
