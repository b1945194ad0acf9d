//! Which requests are an ensemble's: an operator's expression over the request, in the Common Expression
//! Language (<https://cel.dev>).
//!
//! It sees `request.…` ([`Facts`]) and `random`, the standard functions and macros, `matches` (RE2-like
//! patterns), and optionals (`request.headers[?"x-tier"].orValue("")`).

mod check;
mod facts;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::{Context, Env, ExecutionError, ParseErrors, Value};
use tracing::warn;

pub use facts::Facts;
use facts::{Asked, FIELDS};

use crate::telemetry::Seldom;

/// How long an expression may be, in bytes: what it costs at most grows with it.
const MAX_BYTES: usize = 4096;
/// The parser recurses with every operator of an expression, before anyone can say that it is nested too
/// deeply; this is enough for the longest one.
const PARSER_STACK: usize = 64 << 20;

/// A compiled condition. Clones are one condition, and count their failures together.
#[derive(Clone)]
pub struct When(Arc<Compiled>);

struct Compiled {
    source: String,
    expr: IdedExpr,
    failures: AtomicU64,
    told: Seldom,
}

/// Why an expression is no condition.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// More than can be evaluated for every request.
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Nested deeper than can be evaluated.
    #[error("is nested too deeply")]
    TooDeep,
    /// No expression of the language.
    #[error("is no CEL expression: line {line}, column {column}: {what}")]
    Syntax {
        /// From 1.
        line: isize,
        /// From 1.
        column: isize,
        /// What the parser says.
        what: String,
    },
    /// A variable that is none.
    #[error("knows no variable `{0}`: there are `request.…` and `random`")]
    UnknownVariable(String),
    /// A field that a request does not have.
    #[error("knows no `request.{name}`: a request has {fields}", fields = FIELDS.join(", "))]
    UnknownField {
        /// What stands after the dot.
        name: String,
    },
    /// The request as a whole is no value.
    #[error("can use `request` only with a field: {fields}", fields = FIELDS.join(", "))]
    BareRequest,
    /// A question whose answer is known.
    #[error("asks has(request.{0}), which always holds: compare it, `max_tokens` with null")]
    AlwaysThere(String),
    /// A function that does not exist.
    #[error("knows no function `{0}`")]
    UnknownFunction(String),
    /// A header name that no header has.
    #[error("names a header in upper case: here all names are in lower case, {0:?}")]
    HeaderCase(String),
    /// A pattern that is none.
    #[error("has the pattern {pattern:?}, which is none: {why}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern that callers would write.
    #[error("has a pattern in `matches` that is no text in quotes")]
    VariablePattern,
    /// A comprehension in another one.
    #[error("has a comprehension (`all`, `exists`, `filter`, `map`) within another one")]
    Nested,
    /// A comprehension over something else.
    #[error(
        "has a comprehension (`all`, `exists`, `filter`, `map`) over something else than `request.headers` or a list"
    )]
    Range,
    /// Types that never fit.
    #[error("can never be evaluated: {0}")]
    Types(String),
    /// Neither true nor false.
    #[error("must be true or false, and is of the type {0}")]
    NotBool(String),
    /// The machine, or a defect of the parser or of ours.
    #[error("could not be checked")]
    Unknowable,
}

/// Why a condition could not be evaluated for a request; without a word of that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WhenFailed(String);

impl When {
    /// Compiles `expression`, and checks whatever does not hang on the request: syntax, names, patterns, and
    /// types as far as they show on a sample.
    ///
    /// # Errors
    /// When it can never be true or false, or could cost too much.
    pub fn parse(expression: &str) -> Result<Self, WhenError> {
        if expression.len() > MAX_BYTES {
            return Err(WhenError::TooLong);
        }
        let expr = std::thread::scope(|scope| {
            let checked = || -> Result<IdedExpr, WhenError> {
                let expr = environment().parser().parse(expression).map_err(syntax)?;
                check::check(&expr)?;
                Ok(expr)
            };
            let thread = std::thread::Builder::new().stack_size(PARSER_STACK).spawn_scoped(scope, checked);
            thread.ok().and_then(|thread| thread.join().ok()).unwrap_or(Err(WhenError::Unknowable))
        })?;
        let compiled = Compiled {
            source: expression.to_owned(),
            expr,
            failures: AtomicU64::new(0),
            told: Seldom::new(),
        };
        Ok(Self(Arc::new(compiled)))
    }

    /// Whether a request is the ensemble's. A failure is counted, and told seldom.
    ///
    /// # Errors
    /// When that cannot be said: a header that the expression reads is missing, or a value is of another type
    /// than it expects.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, WhenFailed> {
        let asked = Asked::of(facts);
        let context = context(&asked);
        let failed = match Value::resolve_val(&self.0.expr, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(holds) => return Ok(*holds.inner()),
                None => format!("it is of the type {}", value.get_type().name()),
            },
            Err(error) => told(&error),
        };
        let failed = WhenFailed(failed);
        self.failed(facts.model, &failed);
        Err(failed)
    }

    /// How often it could not be evaluated.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    fn failed(&self, alias: &str, why: &WhenFailed) {
        let failures = self.0.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if self.0.told.is_due() {
            warn!(alias, failures, %why, "`when` could not be evaluated; the ensemble took the request");
        }
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.0.source).finish()
    }
}

/// The standard functions and macros: none of them makes more of a text than it is.
fn environment() -> Arc<Env> {
    static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    Arc::clone(&STANDARD)
}

fn context<'a>(asked: &'a Asked<'a>) -> Context<'a, 'a> {
    let mut context = Context::with_env(environment());
    context.set_variable_resolver(asked);
    context
}

fn syntax(errors: ParseErrors) -> WhenError {
    let first = errors.errors.into_iter().next();
    let ((line, column), what) = first.map_or(((1, 1), String::new()), |e| (e.pos, e.msg));
    if what.contains("Recursion limit") {
        return WhenError::TooDeep;
    }
    WhenError::Syntax { line, column, what }
}

/// What went wrong, without the values that it went wrong with: they may be a caller's words.
fn told(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UndeclaredReference(_) => error.to_string(),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("'{operator}' does not go with {} and {}", left.type_of(), right.type_of())
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::NoSuchKey(_) => "a header or key that it reads is missing".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::FunctionError { function, .. } => format!("'{function}' cannot take a value"),
        _ => "a value is of another type than it expects".to_owned(),
    }
}

#[cfg(test)]
mod tests;
