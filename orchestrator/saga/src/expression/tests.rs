//! Expressions: both ways of evaluating agree, and what is dangerous is refused.

use super::*;
use serde_json::json;

fn at() -> Position {
    Position { file: Arc::from("a.yaml"), line: 1, column: 1 }
}

fn compile(text: &str) -> Result<Expression, CompileError> {
    Expression::compile(text, &at())
}

fn both_ways(text: &str, input: &Json) -> Result<Json, Failure> {
    let expression = compile(text).unwrap();
    let order = Json::Null;
    let scope = Scope::of_input(input, &order);
    let value = expression.evaluate(&scope).map(Cow::into_owned);
    let interpreted = interpret::run(&expression.program, expression.roots, &scope);
    assert_eq!(value, interpreted, "{text}: the short and the long way differ");
    value
}

#[test]
fn the_short_way_gives_what_the_interpreter_gives() {
    let input = json!({ "a": 7, "b": 2, "big": i64::MAX, "s": "x", "t": "y", "yes": true, "no": false, "f": 1.5,
        "nil": null, "list": [1, 2, 3], "deep": { "x": { "y": "z" } }, "items": [{ "n": 1 }, { "n": 2 }] });
    for text in [
        "input.a",
        "input",
        "input.deep.x",
        "input.a + input.b * 3 - 1",
        "input.a / input.b",
        "input.s + '/' + input.t",
        "input.a == 7",
        "input.a == input.s",
        "input.a != 7",
        "input.a > 7 || input.yes",
        "input.a >= 7 && input.no",
        "input.s < input.t",
        "!input.yes",
        "!input.a",
        "has(input.a)",
        "has(input.zz)",
        "has(input.zz.y)",
        "has(input.a) ? input.b : 0",
        "input.big + 1",
        "input.zz",
        "input.a / 0",
        "input.f + 1.0",
        "input.f == 1.5",
        "input.nil == null",
        "input.nil",
        "input.zz > 1 || input.yes",
        "input.yes || input.zz",
        "input.no && input.zz",
        "input.list[1]",
        "input.list[9]",
        "input.items.map(i, i.n)",
        "sum(input.items.map(i, i.n))",
        "sum(input.list)",
        "share(100, 1, 3)",
        "share(1, 1, 0)",
        "size(input.list)",
        "input.items.filter(i, i.n == 2)[0].n",
        "-input.a",
        "input.a - -1",
        "\"a\" in [\"a\"]",
        "{'x': input.a}",
        "input.a + 1.5",
        "input.yes == true",
        "input.a > input.s",
    ] {
        let _ = both_ways(text, &input);
    }
    assert_eq!(both_ways("input.a - 20000", &input), Ok(json!(-19993)), "whole numbers are signed");
    assert_eq!(both_ways("input.totl", &input), Err(Failure("there is no `totl`".into())));
}

#[test]
fn what_could_exhaust_the_stack_is_refused() {
    for text in [
        "(".repeat(500) + "1" + &")".repeat(500),
        "!".repeat(1_900),
        "-".repeat(1_900) + "1",
        "[".repeat(900) + &"]".repeat(900),
        vec!["1"; 900].join("+"),
        vec!["input.a"; 200].join(" && "),
        "true ? 1 : ".repeat(150) + "1",
        "x".repeat(3_000),
        ["input", &".a".repeat(900)].concat(),
        ["input", &"[0]".repeat(600)].concat(),
    ] {
        let error = compile(&text).unwrap_err();
        assert!(matches!(error, CompileError::TooLarge(_) | CompileError::Syntax(_)), "{error}");
    }
    compile("input.a > 0 && input.b > 0 && input.c > 0 && input.d > 0 || has(input.e)").unwrap();
}

#[test]
fn names_that_nothing_binds_are_refused() {
    assert!(matches!(compile("inptu.a"), Err(CompileError::Unknown(name, _)) if name == "inptu"));
    assert!(matches!(compile("summ(input.a)"), Err(CompileError::Unknown(name, _)) if name == "summ"));
    assert!(matches!(compile("input.a ="), Err(CompileError::Syntax(_))));
    compile("input.lines.all(l, l.quantity > 0)").unwrap();
    assert!(
        matches!(compile("input.lines.all(l, m.quantity > 0)"), Err(CompileError::Unknown(name, _)) if name == "m")
    );
}

#[test]
fn paths_are_found_through_macros_and_indices() {
    let paths = |text: &str| compile(text).unwrap().paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(paths("input.lines.map(l, l.sku)"), ["input.lines", "input.lines[].sku"]);
    assert_eq!(paths("input.lines[0].sku + input['x'].y"), ["input.lines[].sku", "input.x.y"]);
    assert_eq!(paths("has(input.coupon) && values.due > 0"), ["input.coupon", "values.due"]);
    assert!(compile("has(input.coupon)").unwrap().paths[0].tested);
}
