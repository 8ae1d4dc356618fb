use proptest::prelude::*;

use super::*;

fn value(text: &str) -> f64 {
    let formula = Formula::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    formula.value(Values { time: 600.0, count: 3.0, factor: 2.0 })
}

fn told(text: &str) -> String {
    Formula::parse(text).unwrap_err().to_string()
}

#[test]
fn arithmetic_is_pythons() {
    for (text, want) in [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("10 - 3 - 2", 5.0),
        ("12 / 3 / 2", 2.0),
        ("7 / 2", 3.5),
        ("2 ** 3 ** 2", 512.0),
        ("-2 ** 2", -4.0),
        ("2 ** -1", 0.5),
        ("- - 3", 3.0),
        ("1 << 2 + 1", 8.0),
        ("1 << 2 << 3", 32.0),
        ("1 if 2 > 1 else 3", 1.0),
        ("1 if 2 < 1 else 3", 3.0),
        ("1 if 0 else 2 if 0 else 3", 3.0),
        ("1 + 1 if count <= 3 else 0", 2.0),
        ("count == 3", 1.0),
        ("count != 3", 0.0),
        ("min(5, 2, 9) + max(1, 2) + pow(2, 3) + abs(-1)", 13.0),
        ("int(7.9) + float(0.5) + sqrt(16)", 11.5),
        ("log(exp(2)) + math.log(math.exp(3))", 5.0),
        (".5 + 1. + 1e2 + 2.5E-1", 101.75),
        ("time + ban.Time + count + ban.Count + factor + banFactor", 1210.0),
    ] {
        assert!((value(text) - want).abs() < 1e-9, "{text} is {}, not {want}", value(text));
    }
}

/// The examples of fail2ban's jail.conf and of its documentation of `bantime.formula`, with the values they state.
#[test]
fn fail2bans_formulas_are_read_as_they_stand() {
    let doubling = "ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor";
    let growing = "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)";
    let at = |text: &str, count: u32, factor: f64| {
        Formula::parse(text).unwrap().value(Values { time: 600.0, count: f64::from(count), factor })
    };
    for (count, want) in
        [(0, 600.0), (1, 1200.0), (2, 2400.0), (20, 600.0 * 1_048_576.0), (99, 600.0 * 1_048_576.0)]
    {
        assert_eq!(at(doubling, count, 1.0), want, "{count}");
        assert_eq!(at(doubling, count, 0.5), want / 2.0, "{count}");
    }
    // There with factor 2.0 / 2.885385, which is the natural logarithm of 2: it doubles, too.
    for (count, want) in [(0, 600.0), (1, 1200.0), (2, 2400.0), (5, 19200.0)] {
        let got = at(growing, count, 2.0 / 2.885_385);
        assert!((got - want).abs() < want / 1e5, "{count}: {got}");
    }
}

#[test]
fn what_has_no_value_stays_without_one() {
    for text in
        ["1 / 0", "0 / 0", "sqrt(-1)", "ln(-1)", "1 << 0.5", "1 << -1", "1 if 0/0 else 2", "max(0/0, 1)"]
    {
        assert!(value(text).is_nan(), "{text} is {}", value(text));
    }
    assert_eq!(value("exp(1000)"), f64::INFINITY);
    assert_eq!(value("1 << 5000"), f64::INFINITY);
    assert_eq!(value("-1 << 5000"), f64::NEG_INFINITY);
}

#[test]
fn a_mistake_is_told_where_it_is() {
    for (text, want) in [
        ("", "at character 1: expected a value, found the end"),
        ("1 +", "at character 4: expected a value, found the end"),
        ("1 + * 2", "at character 5: expected a value, found `*`"),
        ("(1", "at character 3: expected `)`, found the end"),
        ("1 2", "at character 3: expected an operator, found `2`"),
        ("1 if 2", "at character 7: expected `else`, found the end"),
        ("1 < 2 < 3", "at character 7: expected an operator, found `<`"),
        ("2 ^ 3", "at character 3: `^` is not a power in Python; write `**`"),
        ("7 % 3", "at character 3: `%` is not read; known are + - * / ** << ( ) and comparisons"),
        ("ü + 1", "at character 1: `\\u{fc}` does not belong into a formula"),
        ("1 + ü", "at character 5: `\\u{fc}` does not belong into a formula"),
        ("1e999", "at character 1: `1e999` is no number"),
        (".", "at character 1: `.` is no number"),
        ("pow(1)", "at character 6: expected `,`, found `)`"),
        ("pow(1, 2, 3)", "at character 9: expected `)`, found `,`"),
        ("exp 1", "at character 5: expected `(`, found `1`"),
        (
            "ban.time",
            "at character 1: `ban.time` is not known; known are time, count, factor, exp, ln, log, sqrt, pow, min, max, abs, int, float",
        ),
        ("else", "at character 1: expected a value, found `else`"),
    ] {
        assert_eq!(told(text), want, "{text}");
    }
}

#[test]
fn nothing_is_too_deep_or_too_long() {
    for one in ["(", "-", "1**", "exp(", "1 if 1 else ", "1+", "min(1,"] {
        let text = one.repeat(990 / one.len());
        let _ = Formula::parse(&text);
        let _ = Formula::parse(&format!("{text}1"));
    }
    assert!(told(&"(".repeat(60)).ends_with("is nested deeper than 50"));
    assert!(told(&"2**".repeat(60)).ends_with("is nested deeper than 50"));
    assert!(told(&"1".repeat(1001)).ends_with("at most 1000 bytes"));
    assert_eq!(value(&format!("{}1", "-".repeat(900))), 1.0);
}

/// An expression, as text with every part in parentheses and as its value.
fn any_expression() -> impl Strategy<Value = (String, f64)> {
    let leaf = prop_oneof![
        (0u32..20).prop_map(|n| (n.to_string(), f64::from(n))),
        Just(("time".to_owned(), 600.0)),
        Just(("count".to_owned(), 3.0)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        (inner.clone(), inner.clone(), inner, 0u8..6).prop_map(|((a, x), (b, y), (c, z), op)| match op {
            0 => (format!("({a}+{b})"), x + y),
            1 => (format!("({a} - {b})"), x - y),
            2 => (format!("({a}*{b})"), x * y),
            3 => (format!("max({a}, {b})"), x.max(y)),
            4 => (format!("({a} if {b} < {c} else {c})"), if y < z { x } else { z }),
            _ => (format!("-({a})"), -x),
        })
    })
}

proptest! {
    #[test]
    fn has_the_value_that_is_written((text, want) in any_expression()) {
        prop_assert_eq!(value(&text), want, "{}", text);
    }

    #[test]
    fn no_text_is_too_much(text in "[-+*/<>=!(),. a-z0-9]{0,40}|\\PC{0,20}") {
        if let Ok(formula) = Formula::parse(&text) {
            let _ = formula.value(Values { time: 600.0, count: 3.0, factor: 2.0 });
        }
    }
}
