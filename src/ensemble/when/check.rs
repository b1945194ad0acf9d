//! What can be known of an expression before there is a request.

use std::collections::BTreeSet;

use bytes::Bytes;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};
use cel::common::types::{CelBool, CelString};
use cel::{Context, ExecutionError, Value};

use super::facts::{Asked, FIELDS, Facts, HEADERS, RANDOM, REQUEST};
use super::{WhenError, context, told};
use crate::chat::Request;

/// How deep an expression may be nested: evaluating it recurses, with more than 30 KiB of stack a level in a debug
/// build. A chain of `&&` or `||` is as deep as the logarithm of its length.
const MAX_DEPTH: usize = 24;
/// The function whose second argument is a pattern.
const MATCHES: &str = "matches";

/// Checks whatever does not hang on the request: names, patterns, and by trying each part on a sample, types.
pub(super) fn check(expr: &IdedExpr) -> Result<(), WhenError> {
    let mut walk = Walk::default();
    walk.visit(expr, 0)?;
    let request = Request::parse(Bytes::from_static(SAMPLE.as_bytes())).map_err(|_| WhenError::Unknowable)?;
    let headers = || walk.headers.iter().map(|name| ((*name).to_owned(), TEXT.to_owned())).collect();
    let facts = Facts { model: TEXT, request: &request, request_id: TEXT, path: TEXT, headers: &headers };
    let asked = Asked::of(&facts);
    let context = context(&asked);
    // Inner parts first, so that the cause is named and not what follows from it.
    for part in walk.parts.iter().rev() {
        match Value::resolve_val(part, &context) {
            Err(ExecutionError::UndeclaredReference(name)) => {
                return Err(WhenError::UnknownVariable(name.to_string()));
            }
            Err(error) if !hangs_on_request(&error) => return Err(WhenError::Types(told(&error))),
            Ok(_) | Err(_) => {}
        }
    }
    match Value::resolve_val(expr, &context) {
        Ok(value) if value.downcast_ref::<CelBool>().is_none() => {
            Err(WhenError::NotBool(value.get_type().name().to_owned()))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Has every field; its texts are numerals, so that conversions work.
const SAMPLE: &str = r#"{"messages":[{"role":"user","content":"1"}],"max_tokens":1,"user":"1"}"#;
/// Any text of the sample.
const TEXT: &str = "1";

/// Whether another request may fare better.
fn hangs_on_request(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::NoSuchKey(_)
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::DuplicateKey(_)
            | ExecutionError::FunctionError { .. }
    )
}

/// A walk through an expression, which sees that its names exist.
#[derive(Default)]
struct Walk<'e> {
    /// The headers that it names outright.
    headers: BTreeSet<&'e str>,
    /// What has a value of its own: everything outside of the bodies of comprehensions, outer parts first.
    parts: Vec<&'e IdedExpr>,
    /// The names that are bound by the comprehension around.
    bound: Vec<&'e str>,
}

impl<'e> Walk<'e> {
    fn visit(&mut self, expr: &'e IdedExpr, depth: usize) -> Result<(), WhenError> {
        if depth > MAX_DEPTH {
            return Err(WhenError::TooDeep);
        }
        if self.bound.is_empty() {
            self.parts.push(expr);
        }
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.select(select, depth),
            Expr::Call(call) => {
                self.call(call)?;
                self.each(call.target.as_deref().into_iter().chain(&call.args), depth)
            }
            Expr::List(list) => self.each(&list.elements, depth),
            Expr::Map(map) => self.each(map.entries.iter().flat_map(|entry| parts_of(&entry.expr)), depth),
            Expr::Struct(of) => self.each(of.entries.iter().flat_map(|entry| parts_of(&entry.expr)), depth),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
        }
    }

    fn each(&mut self, exprs: impl IntoIterator<Item = &'e IdedExpr>, depth: usize) -> Result<(), WhenError> {
        exprs.into_iter().try_for_each(|expr| self.visit(expr, depth + 1))
    }

    fn variable(&self, name: &str) -> Result<(), WhenError> {
        if self.bound.contains(&name) || name == RANDOM {
            return Ok(());
        }
        if name == REQUEST {
            return Err(WhenError::BareRequest);
        }
        // The names of types are values.
        let ident = IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) };
        match Value::resolve_val(&ident, &Context::with_env(super::environment())) {
            Ok(_) => Ok(()),
            Err(_) => Err(WhenError::UnknownVariable(name.to_owned())),
        }
    }

    fn select(&mut self, select: &'e SelectExpr, depth: usize) -> Result<(), WhenError> {
        if matches!(&select.operand.expr, Expr::Ident(name) if name == REQUEST && !self.bound.contains(&REQUEST))
        {
            return match FIELDS.contains(&&*select.field) {
                true if select.test => Err(WhenError::AlwaysThere(select.field.clone())),
                true => Ok(()),
                false => Err(WhenError::UnknownField { name: select.field.clone() }),
            };
        }
        self.visit(&select.operand, depth + 1)?;
        if self.is_headers(&select.operand) { self.header(&select.field) } else { Ok(()) }
    }

    fn call(&mut self, call: &'e CallExpr) -> Result<(), WhenError> {
        match (&*call.func_name, &*call.args) {
            (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [map, key])
            | (operators::IN, [key, map]) => match (self.is_headers(map), text(key)) {
                (true, Some(name)) => self.header(name),
                _ => Ok(()),
            },
            (MATCHES, [.., pattern]) => text(pattern).map_or(Err(WhenError::VariablePattern), matches),
            (name, _) => known(name, call.target.is_some()),
        }
    }

    /// One level, over what is short: the time that an evaluation takes stays in proportion to the text.
    fn comprehension(&mut self, of: &'e ComprehensionExpr, depth: usize) -> Result<(), WhenError> {
        if !self.bound.is_empty() {
            return Err(WhenError::Nested);
        }
        if !self.is_headers(&of.iter_range) && !matches!(of.iter_range.expr, Expr::List(_)) {
            return Err(WhenError::Range);
        }
        self.visit(&of.iter_range, depth + 1)?;
        self.bound.extend([&*of.iter_var, &*of.accu_var]);
        self.bound.extend(of.iter_var2.as_deref());
        self.each([&of.accu_init, &of.loop_cond, &of.loop_step, &of.result], depth)?;
        self.bound.clear();
        Ok(())
    }

    fn header(&mut self, name: &'e str) -> Result<(), WhenError> {
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(WhenError::HeaderCase(name.to_ascii_lowercase()));
        }
        self.headers.insert(name);
        Ok(())
    }

    fn is_headers(&self, expr: &IdedExpr) -> bool {
        matches!(&expr.expr, Expr::Select(select) if select.field == HEADERS && !select.test
            && matches!(&select.operand.expr, Expr::Ident(name) if name == REQUEST))
            && !self.bound.contains(&REQUEST)
    }
}

fn parts_of(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let (key, value) = match entry {
        EntryExpr::MapEntry(entry) => (Some(&entry.key), &entry.value),
        EntryExpr::StructField(field) => (None, &field.value),
    };
    key.into_iter().chain([value])
}

fn text(expr: &IdedExpr) -> Option<&str> {
    match &expr.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Sees that a pattern is one, by trying it.
fn matches(pattern: &str) -> Result<(), WhenError> {
    let text = |text: &str| IdedExpr {
        id: 0,
        expr: Expr::Literal(LiteralValue::String(CelString::from(text.to_owned()))),
    };
    let tried = call(MATCHES, Some(text("")), vec![text(pattern)]);
    match tried {
        // The library's message is a drawing of several lines; its last one tells.
        Err(ExecutionError::FunctionError { message, .. }) => {
            let why = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            Err(WhenError::Pattern { pattern: pattern.to_owned(), why: why.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Sees that a function exists, by calling it.
fn known(name: &str, is_member: bool) -> Result<(), WhenError> {
    let null = IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::Null) };
    let is_operator = name.starts_with(|c: char| !c.is_ascii_alphabetic());
    match call(name, is_member.then_some(null), Vec::new()) {
        Err(ExecutionError::UndeclaredReference(_)) if !is_operator => {
            Err(WhenError::UnknownFunction(name.to_owned()))
        }
        _ => Ok(()),
    }
}

fn call(name: &str, target: Option<IdedExpr>, args: Vec<IdedExpr>) -> Result<Value, ExecutionError> {
    let call = CallExpr { func_name: name.to_owned(), target: target.map(Box::new), args };
    let expr = IdedExpr { id: 0, expr: Expr::Call(call) };
    Value::resolve(&expr, &Context::with_env(super::environment()))
}
