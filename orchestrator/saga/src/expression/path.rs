//! What an expression reads: paths from a root, found in the compiled tree.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue};
use std::fmt;

/// What an expression can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// The saga's input.
    Input,
    /// The definition's `values`.
    Values,
    /// Replies of steps.
    Steps,
    /// Events taken by waits.
    Waits,
    /// The order that this saga belongs to.
    Order,
    /// The event at hand.
    Event,
    /// The item at hand, under `each`.
    Item,
    /// The saga's id, number, key, owner, definition and start.
    Saga,
}

impl Root {
    /// All roots.
    pub const ALL: [Self; 8] =
        [Self::Input, Self::Values, Self::Steps, Self::Waits, Self::Order, Self::Event, Self::Item, Self::Saga];

    /// The spelling in expressions.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Values => "values",
            Self::Steps => "steps",
            Self::Waits => "waits",
            Self::Order => "order",
            Self::Event => "event",
            Self::Item => "item",
            Self::Saga => "saga",
        }
    }

    /// The root of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|root| root.label() == name)
    }
}

/// A set of roots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roots(u8);

impl Roots {
    pub(super) fn add(&mut self, root: Root) {
        self.0 |= 1 << root as u8;
    }

    pub(super) fn has(self, root: Root) -> bool {
        self.0 & (1 << root as u8) != 0
    }
}

/// One step along a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// A field of a mapping.
    Field(String),
    /// Some element of a list (or some value of a mapping).
    Element,
}

/// A path that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Where it begins.
    pub root: Root,
    /// How it goes on.
    pub segments: Vec<Segment>,
    /// True when the last segment is only tested with `has(...)`.
    pub tested: bool,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.label())?;
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Field(name) => write!(f, ".{name}"),
            Segment::Element => f.write_str("[]"),
        })
    }
}

/// What a walk over an expression found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) paths: Vec<Path>,
    pub(super) roots: Roots,
    /// Names that are neither roots nor bound by a macro.
    pub(super) strangers: Vec<String>,
    /// Names of the functions called; operators are left out.
    pub(super) functions: Vec<String>,
    /// The deepest nesting.
    pub(super) depth: usize,
    /// Variables bound by macros around the place of the walk, and the path of their elements if it is known.
    bound: Vec<(String, Option<Path>)>,
}

impl Findings {
    pub(super) fn of(expr: &Expr) -> Self {
        let mut findings = Self::default();
        findings.visit(expr, 1);
        findings
    }

    fn visit(&mut self, expr: &Expr, depth: usize) {
        self.depth = self.depth.max(depth);
        if let Some(path) = self.path_of(expr) {
            self.note(path);
            // Only an index can hold an expression of its own.
            self.visit_indices(expr, depth);
            return;
        }
        match expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.stranger(name),
            Expr::Select(select) => self.visit(&select.operand.expr, depth + 1),
            Expr::Call(call) => self.visit_call(call, depth),
            Expr::Comprehension(comprehension) => self.visit_comprehension(comprehension, depth),
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(&element.expr, depth + 1)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.visit_entry(&entry.expr, depth)),
            Expr::Struct(fields) => fields.entries.iter().for_each(|entry| self.visit_entry(&entry.expr, depth)),
        }
    }

    fn visit_entry(&mut self, entry: &EntryExpr, depth: usize) {
        match entry {
            EntryExpr::StructField(field) => self.visit(&field.value.expr, depth + 1),
            EntryExpr::MapEntry(entry) => {
                self.visit(&entry.key.expr, depth + 1);
                self.visit(&entry.value.expr, depth + 1);
            }
        }
    }

    fn visit_call(&mut self, call: &CallExpr, depth: usize) {
        if call.func_name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            self.functions.push(call.func_name.clone());
        }
        if let Some(target) = &call.target {
            self.visit(&target.expr, depth + 1);
        }
        call.args.iter().for_each(|arg| self.visit(&arg.expr, depth + 1));
    }

    fn visit_comprehension(&mut self, comprehension: &ComprehensionExpr, depth: usize) {
        let range = &comprehension.iter_range.expr;
        self.visit(range, depth + 1);
        let element = self.path_of(range).map(|mut path| {
            path.segments.push(Segment::Element);
            path
        });
        let before = self.bound.len();
        self.bound.push((comprehension.iter_var.clone(), element));
        self.bound.extend(comprehension.iter_var2.iter().map(|name| (name.clone(), None)));
        self.bound.push((comprehension.accu_var.clone(), None));
        let parts =
            [&comprehension.accu_init, &comprehension.loop_cond, &comprehension.loop_step, &comprehension.result];
        parts.into_iter().for_each(|part| self.visit(&part.expr, depth + 1));
        self.bound.truncate(before);
    }

    fn visit_indices(&mut self, expr: &Expr, depth: usize) {
        match expr {
            Expr::Select(select) => self.visit_indices(&select.operand.expr, depth + 1),
            Expr::Call(call) => {
                self.visit_indices(&call.args[0].expr, depth + 1);
                self.visit(&call.args[1].expr, depth + 1);
            }
            Expr::Unspecified
            | Expr::Literal(_)
            | Expr::Ident(_)
            | Expr::Comprehension(_)
            | Expr::List(_)
            | Expr::Map(_)
            | Expr::Struct(_) => {}
        }
        self.depth = self.depth.max(depth);
    }

    /// The path that an expression spells, if it is nothing but fields and indices from a root or a bound variable.
    fn path_of(&self, expr: &Expr) -> Option<Path> {
        match expr {
            Expr::Ident(name) => match self.bound.iter().rev().find(|(bound, _)| bound == name) {
                Some((_, path)) => path.clone(),
                None => Root::named(name).map(|root| Path { root, segments: Vec::new(), tested: false }),
            },
            Expr::Select(select) => {
                let mut path = self.path_of(&select.operand.expr)?;
                path.segments.push(Segment::Field(select.field.clone()));
                path.tested = select.test;
                Some(path)
            }
            Expr::Call(call) if call.func_name == "_[_]" && call.target.is_none() && call.args.len() == 2 => {
                let mut path = self.path_of(&call.args[0].expr)?;
                path.segments.push(match &call.args[1].expr {
                    Expr::Literal(LiteralValue::String(name)) => Segment::Field(name.inner().to_owned()),
                    _ => Segment::Element,
                });
                Some(path)
            }
            _ => None,
        }
    }

    /// The list whose elements the expression's value has at most as many of: a path, or `map` and `filter` over one.
    pub(super) fn list_of(expr: &Expr) -> Option<Path> {
        match expr {
            Expr::Comprehension(comprehension) => match &comprehension.accu_init.expr {
                Expr::List(list) if list.elements.is_empty() => Self::list_of(&comprehension.iter_range.expr),
                _ => None,
            },
            _ => Self::default().path_of(expr),
        }
    }

    fn note(&mut self, path: Path) {
        self.roots.add(path.root);
        self.paths.push(path);
    }

    fn stranger(&mut self, name: &str) {
        if !self.bound.iter().any(|(bound, _)| bound == name) {
            self.strangers.push(name.to_owned());
        }
    }
}
