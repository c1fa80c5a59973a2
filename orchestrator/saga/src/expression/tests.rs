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

/// How many terms a sum inside of `wrap` may have.
fn most_terms(wrap: impl Fn(&str) -> String) -> usize {
    let fits = |terms: usize| compile(&wrap(&vec!["1"; terms].join("+"))).is_ok();
    (1..200).take_while(|terms| fits(*terms)).count()
}

/// The interpreter recurses over all of them.
#[test]
fn every_construct_counts_as_a_level() {
    let plain = most_terms(str::to_owned);
    assert_eq!(plain, 2 * MAX_DEPTH);
    for (levels, before, after) in [
        (1, "[", "]"),
        (1, "(", ").contains(1)"),
        (1, "size(", ")"),
        (1, "input.a[", "]"),
        (2, "input.a[", "].b"),
        (1, "{'a': ", "}"),
        (1, "{", ": 1}"),
        (2, "{'a': ", "}.a"),
        (2, "[", "].map(x, x)"),
        (3, "[1].map(x, ", ")"),
    ] {
        assert_eq!(most_terms(|sum| format!("{before}{sum}{after}")), plain - levels, "{before}...{after}");
    }
    let fields = |count: usize| ["input", &".a".repeat(count)].concat();
    compile(&fields(2 * MAX_DEPTH - 1)).unwrap();
    assert!(matches!(compile(&fields(2 * MAX_DEPTH)), Err(CompileError::TooLarge(_))));
}

#[test]
fn as_deep_and_as_long_as_is_allowed_compiles_and_no_further() {
    type Nested = fn(usize) -> String;
    let nested: [Nested; 5] = [
        |depth| "(".repeat(depth) + "1" + &")".repeat(depth),
        |depth| "[".repeat(depth) + "1" + &"]".repeat(depth),
        |depth| "!".repeat(depth) + "true",
        |depth| "! ".repeat(depth) + "true",
        |depth| "true ? 1 : ".repeat(depth) + "1",
    ];
    for text in nested {
        compile(&text(MAX_DEPTH)).unwrap_or_else(|error| panic!("{}: {error}", text(MAX_DEPTH)));
        let error = compile(&text(MAX_DEPTH + 1));
        assert!(matches!(error, Err(CompileError::TooLarge(_))), "{}: {error:?}", text(MAX_DEPTH + 1));
    }
    let long = |length: usize| format!("'{}'", "x".repeat(length - 2));
    compile(&long(MAX_LENGTH)).unwrap();
    assert!(matches!(compile(&long(MAX_LENGTH + 1)), Err(CompileError::TooLarge(_))));
}

#[test]
fn what_stands_side_by_side_or_in_quotes_is_not_nested() {
    let brackets = "(".repeat(MAX_DEPTH + 1);
    for text in [
        vec!["(1)"; MAX_DEPTH + 1].join("+"),
        vec!["1"; MAX_DEPTH + 2].join("-"),
        format!("input.s == '{brackets}'"),
        format!("input.s == \"it's {brackets}\""),
        format!("input.s == 'it\\'s {brackets}'"),
    ] {
        compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    let deep = format!("{brackets}1{}", ")".repeat(MAX_DEPTH + 1));
    for before in ["'x'", "'x\\\\'", "\"it's\""] {
        let error = compile(&format!("input.s == {before} || {deep} > 0"));
        assert!(matches!(error, Err(CompileError::TooLarge(_))), "after {before}: {error:?}");
    }
}

/// Building the interpreter's context costs far more than most expressions do.
#[test]
fn the_usual_expressions_go_the_short_way() {
    let input = json!({ "a": 7, "b": 2, "s": "x", "t": "y", "yes": true, "no": false, "deep": { "x": 1 } });
    let order = Json::Null;
    let scope = Scope::of_input(&input, &order);
    let quickly = |text: &str| compile(text).unwrap().fast.and_then(|fast| fast.evaluate(&scope).map(Cow::into_owned));
    for (text, value) in [
        ("input", input.clone()),
        ("input.deep.x", json!(1)),
        ("'text'", json!("text")),
        ("-3", json!(-3)),
        ("true", json!(true)),
        ("null", Json::Null),
        ("has(input.a)", json!(true)),
        ("has(input.deep.y)", json!(false)),
        ("!input.yes", json!(false)),
        ("input.yes && input.no", json!(false)),
        ("input.no || input.yes", json!(true)),
        ("input.yes ? input.a : input.b", json!(7)),
        ("input.no ? input.a : input.b", json!(2)),
        ("input.a + input.b", json!(9)),
        ("input.a - input.b", json!(5)),
        ("input.a * input.b", json!(14)),
        ("input.a / input.b", json!(3)),
        ("input.a == 7", json!(true)),
        ("input.a != 7", json!(false)),
        ("input.a < 7", json!(false)),
        ("input.a <= 7", json!(true)),
        ("input.a > 7", json!(false)),
        ("input.a >= 7", json!(true)),
        ("input.s + input.t", json!("xy")),
        ("input.s < input.t", json!(true)),
        ("input.yes == input.no", json!(false)),
        ("input.yes != input.no", json!(true)),
    ] {
        assert_eq!(quickly(text), Some(value.clone()), "{text}");
        assert_eq!(both_ways(text, &input), Ok(value), "{text}");
    }
    for text in ["input.zz", "input.a / 0", "1.5 + 1.5", "input.a == input.s", "size(input.s)", "'a'.contains('b')"] {
        assert_eq!(quickly(text), None, "{text} is the interpreter's");
    }
}

#[test]
fn a_condition_is_a_boolean_and_a_name_is_text_or_a_whole_number() {
    let input = json!({ "n": 7, "f": 1.5, "s": "x", "empty": "", "yes": true, "long": "x".repeat(100) });
    let order = Json::Null;
    let scope = Scope::of_input(&input, &order);
    let fails = |reason: &str| Err(Failure(reason.to_owned()));
    let condition = |text: &str| compile(text).unwrap().condition(&scope);
    assert_eq!(condition("input.yes"), Ok(true));
    assert_eq!(condition("input.n"), Err(Failure("expected true or false, got 7".into())));
    let cut = format!("expected true or false, got \"{}...", "x".repeat(79));
    assert_eq!(condition("input.long"), Err(Failure(cut)), "a long value is cut");
    let name = |text: &str| compile(text).unwrap().name(&scope);
    assert_eq!(name("input.s"), Ok("x".to_owned()));
    assert_eq!(name("input.n"), Ok("7".to_owned()));
    assert_eq!(name("input.f"), fails("expected text or a whole number, got 1.5"));
    assert_eq!(name("input.empty"), fails("expected text or a whole number, got \"\""));
}

#[test]
fn expressions_of_the_same_text_are_equal_wherever_they_stand() {
    let elsewhere = Position { line: 7, ..at() };
    assert_eq!(compile("input.a").unwrap(), Expression::compile("input.a", &elsewhere).unwrap());
    assert_ne!(compile("input.a").unwrap(), compile("input.b").unwrap());
}
