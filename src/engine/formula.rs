//! The formula of an escalation: arithmetic in fail2ban's spelling, which is Python's, and nothing else of Python.
//!
//! A text is read once into a list of operations for a stack, so that working it out neither recurses nor can fail: what
//! has no value is NaN, what is too large is infinite, and [`Escalation`](super::Escalation) says what becomes of both.

mod token;

use thiserror::Error;

use self::token::{Token, What, tokens};

/// So many bytes a formula may have.
const LENGTH_MAX: usize = 1000;
/// So deep it may be nested: reading it recurses.
const DEPTH_MAX: usize = 50;

/// What a formula is worked out from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values {
    /// The length of the first ban in seconds: `time`, `ban.Time`.
    pub time: f64,
    /// Bans before this one: `count`, `ban.Count`.
    pub count: f64,
    /// The configured factor: `factor`, `banFactor`.
    pub factor: f64,
}

/// A formula that was read without a mistake.
///
/// From the loosest to the tightest: `a if c else b`; one comparison; `<<`; `+` and `-`; `*` and `/`; a sign; `**`.
#[derive(Clone, Debug, PartialEq)]
pub struct Formula(Box<[Op]>);

// No number in it is NaN: the reader takes none.
impl Eq for Formula {}

/// What is wrong with the text of a formula, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("at character {column}: {what}")]
pub struct FormulaError {
    /// The character it is about; the first is 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Number(f64),
    Time,
    Count,
    Factor,
    Unary(Unary),
    Binary(Binary),
    /// Of three: the first if the second is not 0, else the third.
    Select,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unary {
    Minus,
    Exp,
    Ln,
    Sqrt,
    Int,
    Float,
    Abs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
    ShiftLeft,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
    Min,
    Max,
}

const COMPARISONS: [(&str, Binary); 6] = [
    ("<", Binary::Less),
    ("<=", Binary::LessOrEqual),
    (">", Binary::Greater),
    (">=", Binary::GreaterOrEqual),
    ("==", Binary::Equal),
    ("!=", Binary::Unequal),
];

impl Formula {
    /// Reads a formula.
    ///
    /// # Errors
    /// The first character that does not fit, and why.
    pub fn parse(text: &str) -> Result<Self, FormulaError> {
        if text.len() > LENGTH_MAX {
            return Err(error(1, format!("a formula has at most {LENGTH_MAX} bytes")));
        }
        let tokens = tokens(text)?;
        let mut reader = Reader { tokens, next: 0, depth: 0, ops: Vec::new() };
        reader.choice()?;
        match reader.take() {
            Token { what: What::End, .. } => Ok(Self(reader.ops.into())),
            Token { what: What::Word("if"), at } => {
                Err(error(at, "put `a if c else b` in parentheses".to_owned()))
            }
            token => Err(error(token.at, format!("expected an operator, found {}", token.shown()))),
        }
    }

    /// Its value; NaN where it has none, such as after a division by 0.
    #[must_use]
    pub fn value(&self, values: Values) -> f64 {
        let mut stack: Vec<f64> = Vec::new();
        for op in &self.0 {
            // The reader puts no operation where its operands are missing.
            let mut pop = || stack.pop().unwrap_or(f64::NAN);
            let value = match *op {
                Op::Number(n) => n,
                Op::Time => values.time,
                Op::Count => values.count,
                Op::Factor => values.factor,
                Op::Unary(op) => op.of(pop()),
                Op::Binary(op) => {
                    let right = pop();
                    op.of(pop(), right)
                }
                Op::Select => {
                    let (other, condition, first) = (pop(), pop(), pop());
                    match condition {
                        c if c.is_nan() => f64::NAN,
                        0.0 => other,
                        _ => first,
                    }
                }
            };
            stack.push(value);
        }
        stack.pop().unwrap_or(f64::NAN)
    }
}

impl Unary {
    fn of(self, x: f64) -> f64 {
        match self {
            Self::Minus => -x,
            Self::Exp => x.exp(),
            Self::Ln => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Int => x.trunc(),
            Self::Float => x,
            Self::Abs => x.abs(),
        }
    }
}

impl Binary {
    fn of(self, a: f64, b: f64) -> f64 {
        let truth = |is: bool| if a.is_nan() || b.is_nan() { f64::NAN } else { f64::from(u8::from(is)) };
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            // Python knows no infinite quotient, either.
            Self::Divide if b == 0.0 => f64::NAN,
            Self::Divide => a / b,
            Self::Power => a.powf(b),
            // In Python only of whole numbers.
            Self::ShiftLeft if a.fract() == 0.0 && b.fract() == 0.0 && b >= 0.0 => a * b.exp2(),
            Self::ShiftLeft => f64::NAN,
            Self::Less => truth(a < b),
            Self::LessOrEqual => truth(a <= b),
            Self::Greater => truth(a > b),
            Self::GreaterOrEqual => truth(a >= b),
            Self::Equal => truth(a == b),
            Self::Unequal => truth(a != b),
            // Unlike `f64::min`: what has no value does not vanish.
            Self::Min | Self::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Self::Min => a.min(b),
            Self::Max => a.max(b),
        }
    }
}

struct Reader<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
    depth: usize,
    ops: Vec<Op>,
}

impl Reader<'_> {
    fn peek(&self) -> What<'_> {
        self.tokens.get(self.next).map_or(What::End, |t| t.what)
    }

    fn take(&mut self) -> Token<'_> {
        // The last token, the end, is never passed.
        let token = self.tokens.get(self.next).or_else(|| self.tokens.last()).copied();
        self.next += 1;
        token.unwrap_or(Token { what: What::End, at: 1 })
    }

    /// Passes the next token if it is this sign or word.
    fn passes(&mut self, text: &str) -> bool {
        let is = matches!(self.peek(), What::Sign(s) | What::Word(s) if s == text);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, text: &str) -> Result<(), FormulaError> {
        if self.passes(text) {
            return Ok(());
        }
        let token = self.take();
        Err(error(token.at, format!("expected `{text}`, found {}", token.shown())))
    }

    fn choice(&mut self) -> Result<(), FormulaError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(error(self.take().at, format!("is nested deeper than {DEPTH_MAX}")));
        }
        self.comparison()?;
        if self.passes("if") {
            self.comparison()?;
            self.expect("else")?;
            self.choice()?;
            self.ops.push(Op::Select);
        }
        self.depth -= 1;
        Ok(())
    }

    fn comparison(&mut self) -> Result<(), FormulaError> {
        self.shift()?;
        if let What::Sign(sign) = self.peek()
            && let Some((_, op)) = COMPARISONS.iter().find(|(word, _)| *word == sign)
        {
            self.next += 1;
            self.shift()?;
            self.ops.push(Op::Binary(*op));
        }
        Ok(())
    }

    fn shift(&mut self) -> Result<(), FormulaError> {
        self.left_to_right(&[("<<", Binary::ShiftLeft)], Self::sum)
    }

    fn sum(&mut self) -> Result<(), FormulaError> {
        self.left_to_right(&[("+", Binary::Add), ("-", Binary::Subtract)], Self::product)
    }

    fn product(&mut self) -> Result<(), FormulaError> {
        self.left_to_right(&[("*", Binary::Multiply), ("/", Binary::Divide)], Self::signed)
    }

    fn left_to_right(
        &mut self,
        signs: &[(&str, Binary)],
        operand: fn(&mut Self) -> Result<(), FormulaError>,
    ) -> Result<(), FormulaError> {
        operand(self)?;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.passes(sign)) {
            operand(self)?;
            self.ops.push(Op::Binary(*op));
        }
        Ok(())
    }

    fn signed(&mut self) -> Result<(), FormulaError> {
        let mut minus = false;
        loop {
            match self.peek() {
                What::Sign("-") => minus = !minus,
                What::Sign("+") => {}
                _ => break,
            }
            self.next += 1;
        }
        self.power()?;
        if minus {
            self.ops.push(Op::Unary(Unary::Minus));
        }
        Ok(())
    }

    /// `2 ** 3 ** 2` is 2 to the ninth, and `-2 ** 2` is −4, as in Python.
    fn power(&mut self) -> Result<(), FormulaError> {
        self.atom()?;
        if self.passes("**") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(error(self.take().at, format!("is nested deeper than {DEPTH_MAX}")));
            }
            self.signed()?;
            self.ops.push(Op::Binary(Binary::Power));
            self.depth -= 1;
        }
        Ok(())
    }

    fn atom(&mut self) -> Result<(), FormulaError> {
        let token = self.take();
        let at = token.at;
        let op = match token.what {
            What::Number(n) => Op::Number(n),
            What::Word("time" | "ban.Time") => Op::Time,
            What::Word("count" | "ban.Count") => Op::Count,
            What::Word("factor" | "banFactor") => Op::Factor,
            What::Word(word) if !matches!(word, "if" | "else") => {
                let word = word.to_owned();
                return self.call(&word, at);
            }
            What::Sign("(") => {
                self.choice()?;
                return self.expect(")");
            }
            _ => return Err(error(at, format!("expected a value, found {}", token.shown()))),
        };
        self.ops.push(op);
        Ok(())
    }

    fn call(&mut self, word: &str, at: usize) -> Result<(), FormulaError> {
        let name = word.strip_prefix("math.").unwrap_or(word);
        let unary = match name {
            "exp" => Some(Unary::Exp),
            "ln" | "log" => Some(Unary::Ln),
            "sqrt" => Some(Unary::Sqrt),
            "int" => Some(Unary::Int),
            "float" => Some(Unary::Float),
            "abs" => Some(Unary::Abs),
            _ => None,
        };
        let binary = match name {
            "min" => Some(Binary::Min),
            "max" => Some(Binary::Max),
            "pow" => Some(Binary::Power),
            _ => None,
        };
        if unary.is_none() && binary.is_none() {
            let known = "time, count, factor, exp, ln, log, sqrt, pow, min, max, abs, int, float";
            let word: String = word.chars().take(40).collect();
            return Err(error(at, format!("`{word}` is not known; known are {known}")));
        }
        self.expect("(")?;
        self.choice()?;
        if let Some(op) = unary {
            self.ops.push(Op::Unary(op));
        } else if let Some(op) = binary {
            self.expect(",")?;
            self.choice()?;
            self.ops.push(Op::Binary(op));
            while op != Binary::Power && self.passes(",") {
                self.choice()?;
                self.ops.push(Op::Binary(op));
            }
        }
        self.expect(")")
    }
}

fn error(column: usize, what: String) -> FormulaError {
    FormulaError { column, what }
}

#[cfg(test)]
mod tests;
