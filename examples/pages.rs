//! Writes man pages and shell completions of the programs into a directory, for the packages: `cargo run --example pages DIR`. With
//! the feature `hub` those of the hub too.

use clap::Command;
use clap_complete::{Shell, generate_to};
use std::{fs, io, path::Path};

#[cfg(feature = "hub")]
#[path = "../src/bin/shutter-hub.rs"]
#[expect(dead_code, reason = "only its arguments are looked at")]
mod shutter_hub;

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("which directory?"))?;
    let dir = Path::new(&dir);
    fs::create_dir_all(dir)?;
    pages(shutterd::cli::command(), dir)?;
    #[cfg(feature = "hub")]
    pages(<shutter_hub::Args as clap::CommandFactory>::command(), dir)?;
    Ok(())
}

/// One page for all of a program: what is said of its commands stands under them.
fn pages(mut command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, &name, dir)?;
    }
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        // A part of the page begins with its options; title and name are the program's.
        let man = clap_mangen::Man::new(sub.clone());
        page.extend(format!(".SH \"{name} {}\"\n", sub.get_name()).to_uppercase().bytes());
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    fs::write(dir.join(format!("{name}.1")), page)
}
