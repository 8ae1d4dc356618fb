//! A formula's text cut into numbers, words and signs.

use super::{FormulaError, error};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) what: What<'t>,
    /// Counted in characters, from 1.
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What<'t> {
    Number(f64),
    Word(&'t str),
    Sign(&'t str),
    End,
}

impl Token<'_> {
    pub(super) fn shown(&self) -> String {
        match self.what {
            What::Number(n) => format!("`{n}`"),
            What::Word(text) | What::Sign(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
            What::End => "the end".to_owned(),
        }
    }
}

const SIGNS: [&str; 15] = ["**", "<<", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, FormulaError> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut at = 1;
    loop {
        let spaces = rest.len() - rest.trim_start().len();
        at += rest.get(..spaces).unwrap_or_default().chars().count();
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            out.push(Token { what: What::End, at });
            return Ok(out);
        };
        let (what, length) = if first.is_ascii_digit() || first == '.' {
            let length = number_length(rest);
            let digits = rest.get(..length).unwrap_or_default();
            let number = digits.parse::<f64>().ok().filter(|n| n.is_finite());
            (What::Number(number.ok_or_else(|| error(at, format!("`{digits}` is no number")))?), length)
        } else if first.is_ascii_alphabetic() || first == '_' {
            let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
            (What::Word(rest.get(..length).unwrap_or_default()), length)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (What::Sign(sign), sign.len())
        } else {
            let what = match first {
                '^' => "`^` is not a power in Python; write `**`".to_owned(),
                '%' => "`%` is not read; known are + - * / ** << ( ) and comparisons".to_owned(),
                c => format!("`{}` does not belong into a formula", c.escape_default()),
            };
            return Err(error(at, what));
        };
        out.push(Token { what, at });
        // All of these are ASCII.
        at += length;
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Digits, at most one dot, and an exponent.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        if bytes.get(exponent).is_some_and(u8::is_ascii_digit) {
            end = digits(exponent);
        }
    }
    end
}
