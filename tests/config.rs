//! The configuration from outside: what a file says, and what an administrator is told about a wrong one.
//!
//! Every `tests/config/*.yaml` ends with what it is told: `#!` lines are the mistakes, `#?` lines the warnings, all of
//! them and in that order, without the name of the file.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use stockade::config::{Config, ConfigError, Shipped};

const NPM_404: &str = "{ format: npm, match: { status: 404 } }";

const SHIPPED: Shipped<'static> = Shipped {
    names: &["npm-404", "sshd", "broken"],
    text: |name| match name {
        "npm-404" => Some(NPM_404),
        "sshd" => Some("failregex: '^x <HOST>$'"),
        "broken" => Some("failregexx: x\nformat: a\n"),
        _ => None,
    },
};

/// What a text is told, as in the files.
fn told(text: &str) -> Vec<String> {
    match Config::parse(text, "f", &SHIPPED) {
        Ok(config) => config.warnings.iter().map(|w| w.to_string().replacen("f:", "#? ", 1)).collect(),
        Err(e) => {
            assert!(!e.mistakes().is_empty(), "no configuration, and no reason");
            e.mistakes().iter().map(|m| m.to_string().replacen("f:", "#! ", 1)).collect()
        }
    }
}

fn judge(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name);
    let text = fs::read_to_string(&path).unwrap();
    let wanted: Vec<_> = text.lines().filter(|l| l.starts_with("#!") || l.starts_with("#?")).collect();
    let got = told(&text);
    assert!(!wanted.is_empty(), "{name} expects nothing; expected and got differ:\n{}", got.join("\n"));
    assert_eq!(wanted, got, "\n{name} was told:\n{}\n", got.join("\n"));
}

macro_rules! judge {
    ($($test:ident $file:literal),* $(,)?) => {
        $(#[test] fn $test() { judge($file); })*

        #[test]
        fn every_file_is_judged() {
            let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config"))
                .unwrap()
                .map(|f| f.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            assert_eq!(files, [$($file),*]);
        }
    };
}

judge! {
    addresses "addresses.yaml",
    aliases "aliases.yaml",
    doubtful "doubtful.yaml",
    duplicates "duplicates.yaml",
    filters "filters.yaml",
    jails "jails.yaml",
    oddities "oddities.yaml",
    unknown_keys "unknown-keys.yaml",
    values "values.yaml",
}
