//! What the program says about itself: version, completions, manual pages. All are made from
//! the definitions in [`super::args`].

use std::path::Path;

use clap::CommandFactory;

use super::args::{BuildCli, Cli, CompletionArgs, ManArgs};
use super::failure::Failure;
use super::program::Program;

/// `cooper version`.
pub(crate) fn version(program: &Program) -> Result<(), Failure> {
    let text = format!("cooper {}", env!("CARGO_PKG_VERSION"));
    program.console.result(&text).map_err(Failure::stdout)
}

/// `cooper completion`.
pub(crate) fn completion(program: &Program, args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "cooper", &mut script);
    program
        .console
        .result(&String::from_utf8_lossy(&script))
        .map_err(Failure::stdout)
}

/// `cooper man`.
pub(crate) fn pages(program: &Program, args: &ManArgs) -> Result<(), Failure> {
    let dir = &args.dir;
    std::fs::create_dir_all(dir).map_err(|error| Failure::file("create", dir, error))?;
    for (name, page) in rendered().map_err(Failure::stdout)? {
        let path = dir.join(&name);
        std::fs::write(&path, page).map_err(|error| Failure::file("write", &path, error))?;
        print(program, &path)?;
    }
    Ok(())
}

fn print(program: &Program, path: &Path) -> Result<(), Failure> {
    let text = path.display().to_string();
    program.console.result(&text).map_err(Failure::stdout)
}

/// Renders a page for the program and one for each command.
fn rendered() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    render(&Cli::command(), "cooper", &mut pages)?;
    render(&BuildCli::command(), "build", &mut pages)?;
    Ok(pages)
}

fn render(
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> std::io::Result<()> {
    let mut page = Vec::new();
    // The page name has dashes where the command line has spaces.
    let titled = command.clone().display_name(name.to_owned());
    clap_mangen::Man::new(titled).render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    for child in command.get_subcommands() {
        if child.get_name() != "help" {
            render(child, &format!("{name}-{}", child.get_name()), pages)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_every_shell_a_script() {
        let pages = rendered().unwrap();
        for name in [
            "cooper.1",
            "cooper-build.1",
            "cooper-debug-dump-llb.1",
            "build.1",
        ] {
            let page = pages.iter().find(|(page, _)| page == name);
            let text = String::from_utf8(page.unwrap().1.clone()).unwrap();
            assert!(text.contains("Dockerfile"), "{name}");
        }
        for shell in <clap_complete::Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "cooper", &mut script);
            assert!(
                String::from_utf8_lossy(&script).contains("dump-llb"),
                "{shell}"
            );
        }
    }
}
