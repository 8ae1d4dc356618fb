//! The manual page and the command line name the same commands and options.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};

const PAGE: &str = include_str!("../../packaging/man/stockade.8");

/// What stands between `begin` and the next section.
fn section(begin: &str) -> &'static str {
    let text = PAGE.split_once(begin).unwrap_or_else(|| panic!("no {begin}")).1;
    text.split_once("\n.Sh ").map_or(text, |(section, _)| section)
}

/// The parts of the synopsis, each with the commands that it is about.
fn synopsis() -> Vec<(Vec<&'static str>, &'static str)> {
    section(".Sh SYNOPSIS\n")
        .split(".Nm\n")
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let names = part.lines().next().unwrap().strip_prefix(".Cm ").unwrap();
            let word = |name: &'static str| name.split_whitespace().next().unwrap();
            (names.split('|').map(word).collect(), part)
        })
        .collect()
}

/// The long options in a piece of the page.
fn options(text: &str) -> BTreeSet<&str> {
    text.split("Fl -").skip(1).map(|rest| rest.split_whitespace().next().unwrap()).collect()
}

/// The long options of a command but those that all have.
fn of(command: &Command) -> BTreeSet<&str> {
    command
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|name| !["help", "version", "config"].contains(name))
        .collect()
}

#[test]
fn the_page_says_every_command_and_option_and_no_other() {
    let cli = stockade::cli::Cli::command();
    let synopsis = synopsis();
    for command in cli.get_subcommands() {
        let name = command.get_name();
        assert!(
            section(".Sh DESCRIPTION\n").contains(&format!("\n.It Cm {name}\n")) || name == "version",
            "{name} is not described"
        );
        assert!(synopsis.iter().any(|(names, _)| names.contains(&name)), "{name} is not in the synopsis");
    }
    for (names, part) in synopsis {
        let commands: Vec<&Command> = names
            .iter()
            .map(|name| {
                cli.find_subcommand(name)
                    .unwrap_or_else(|| panic!("{name} is in the synopsis and is no command"))
            })
            .collect();
        let taken: BTreeSet<&str> = commands.iter().flat_map(|command| of(command)).collect();
        let said: BTreeSet<&str> = options(part).into_iter().filter(|name| *name != "config").collect();
        assert_eq!(said, taken, "left: in the synopsis, right: what {names:?} take");
    }
}
