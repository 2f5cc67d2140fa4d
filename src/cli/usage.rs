//! What clap refuses → an error in the project's own words, with a hint.
//!
//! `--help` and `--version` arrive here too, since clap hands them out as errors; they are printed
//! to stdout and succeed.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::CliError;
use super::nearest::nearest;
use crate::error::{self, Exit, Hint};

const SEE_HELP: &str = "see `ktrace --help`";

/// A command line that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct UsageError {
    message: String,
    hint: String,
}

impl Hint for UsageError {
    fn hint(&self) -> Option<String> {
        Some(self.hint.clone())
    }
}

/// Prints the help, the version or the error, whichever `error` is, and returns the exit code for it.
pub fn report(error: &CliError) -> Exit {
    let error = match error {
        CliError::Usage(error) => error,
        CliError::Layer(error) => {
            error::report(error);
            return Exit::Usage;
        }
        CliError::NotHere(error) => {
            error::report(error);
            return Exit::Usage;
        }
    };
    if error.use_stderr() {
        error::report(&explain(error));
        return Exit::Usage;
    }
    // a reader that has gone away, as in `ktrace --help | head`, is not an error
    let _ = error.print();
    Exit::Complete
}

fn explain(error: &clap::Error) -> UsageError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let suggestion = text(ContextKind::SuggestedArg).or_else(|| text(ContextKind::SuggestedSubcommand));
    let did_you_mean = || suggestion.map_or_else(|| SEE_HELP.into(), |it| format!("did you mean `{it}`"));
    match error.kind() {
        // a word behind a flag is reported as a conflict with the command that it might be
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::ArgumentConflict => {
            let word = text(ContextKind::InvalidArg).or_else(|| text(ContextKind::InvalidSubcommand)).unwrap_or("");
            unknown(word, did_you_mean())
        }
        ErrorKind::MissingRequiredArgument => UsageError {
            message: format!("{} is missing", text(ContextKind::InvalidArg).unwrap_or("a word")),
            hint: did_you_mean(),
        },
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue) == Some("") => {
            let flag = text(ContextKind::InvalidArg).and_then(|it| it.split(' ').next()).unwrap_or("the flag");
            UsageError { message: format!("`{flag}` needs a value"), hint: SEE_HELP.into() }
        }
        _ => UsageError { message: first_line(error), hint: did_you_mean() },
    }
}

fn unknown(word: &str, hint: String) -> UsageError {
    match word {
        "true" | "false" => UsageError {
            message: format!("`{word}` is not a command"),
            hint: format!("a boolean takes its value after an equals sign, as in `--with-security={word}`"),
        },
        _ if super::command().find_subcommand(word).is_some() => UsageError {
            message: format!("flags of a capture cannot stand before `{word}`"),
            hint: format!("see `ktrace {word} --help`"),
        },
        _ if word.starts_with('-') => UsageError { message: format!("unknown flag `{word}`"), hint },
        _ if hint != SEE_HELP => UsageError { message: format!("unknown command `{word}`"), hint },
        _ => {
            let command = super::command();
            let known =
                nearest(word, command.get_subcommands().filter(|it| !it.is_hide_set()).map(clap::Command::get_name));
            let to_run = || format!("to capture while it runs: `ktrace -- {word}`");
            let hint = known.map_or_else(to_run, |it| format!("did you mean `{it}`"));
            UsageError { message: format!("unknown command `{word}`"), hint }
        }
    }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(args: &[&str]) -> (String, String) {
        let Err(CliError::Usage(error)) = crate::cli::parse([&["ktrace"], args].concat()) else { panic!("{args:?}") };
        let error = explain(&error);
        (error.message, error.hint)
    }

    #[test]
    fn a_misspelt_flag_is_met_with_the_right_one() {
        assert_eq!(
            explained(&["--durations", "5s"]),
            ("unknown flag `--durations`".into(), "did you mean `--duration`".into())
        );
    }

    #[test]
    fn an_unknown_flag_without_a_neighbour_points_to_the_help() {
        assert_eq!(explained(&["--xyzzy"]), ("unknown flag `--xyzzy`".into(), SEE_HELP.into()));
    }

    #[test]
    fn a_boolean_value_after_a_space_is_explained() {
        let (_, hint) = explained(&["--with-security", "false"]);
        assert_eq!(hint, "a boolean takes its value after an equals sign, as in `--with-security=false`");
    }

    #[test]
    fn a_word_that_is_no_command_is_named_wherever_it_stands() {
        let to_run = "to capture while it runs: `ktrace -- curl`".to_owned();
        assert_eq!(explained(&["--quiet", "curl"]), ("unknown command `curl`".into(), to_run));
        assert_eq!(explained(&["--quiet", "-x"]).0, "unknown flag `-x`");
        assert_eq!(explained(&["chekc"]), ("unknown command `chekc`".into(), "did you mean `check`".into()));
    }

    #[test]
    fn a_flag_without_its_value_is_named() {
        assert_eq!(explained(&["--duration"]).0, "`--duration` needs a value");
    }

    #[test]
    fn a_hook_without_its_name_is_asked_for() {
        assert_eq!(explained(&["hooks", "show"]), ("<NAME> is missing".into(), SEE_HELP.into()));
        assert_eq!(explained(&["hooks", "lst"]).1, "did you mean `list`");
    }

    #[test]
    fn check_with_flags_of_a_capture_is_refused() {
        assert_eq!(explained(&["--quiet", "check"]).0, "flags of a capture cannot stand before `check`");
        assert_eq!(explained(&["check", "--quiet"]).0, "unknown flag `--quiet`");
    }
}
