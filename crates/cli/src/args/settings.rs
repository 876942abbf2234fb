//! The flags of a broker's settings: one for each row of the table of `lakebed_broker::config`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{
    Arg, ArgAction, ArgMatches, Args as ClapArgs, Command, FromArgMatches, Subcommand, ValueEnum, value_parser,
};
use lakebed_broker::Config;
use lakebed_broker::config::{Kind, Mode, Setting, TABLE, Value};

use crate::config::{FILE_VARIABLE, Sources};

/// Which verb's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModeArg(Mode);

impl ValueEnum for ModeArg {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Mode::Serve), Self(Mode::Dev)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self.0 {
            Mode::Serve => "serve",
            Mode::Dev => "dev",
        }))
    }
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        mode.0
    }
}

/// What `dev` is told.
#[derive(Debug)]
pub(crate) struct DevArgs {
    pub(crate) settings: SettingArgs,
}

/// What `serve` and `config show` are told.
#[derive(Debug)]
pub(crate) struct SettingArgs {
    file: Option<PathBuf>,
    flags: Vec<(&'static Setting, String)>,
}

impl SettingArgs {
    /// Where values come from: these flags, the file that they name, and the environment.
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.file.clone(), flags: self.flags.clone(), variables: std::env::vars_os().collect() }
    }
}

/// What `config` is told.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show every setting of a broker as the flags, variables and file given here make it; it takes the flags of `serve`.
    #[command(before_help = "Examples:
  lakebed config show
  lakebed config show --origin --config lakebed.toml     also where each value came from
  lakebed config show --for dev -o json")]
    Show {
        /// Show where each value came from: default, file:line:column, variable or flag.
        #[arg(long)]
        origin: bool,
        /// Whose defaults.
        #[arg(long = "for", value_name = "VERB", value_enum, default_value = "serve")]
        mode: ModeArg,
        #[command(flatten)]
        settings: SettingArgs,
    },
    /// Print a file with every setting and what it does, all commented out.
    #[command(before_help = "Examples:
  lakebed config template > lakebed.toml")]
    Template {
        /// Whose defaults.
        #[arg(long = "for", value_name = "VERB", value_enum, default_value = "serve")]
        mode: ModeArg,
    },
}

/// The flags, with the defaults of `mode` in their help.
fn augment(command: Command, mode: Mode) -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help(format!(
        "TOML file with settings; variables and flags go before it [env: {FILE_VARIABLE}]; see `lakebed config template`"
    ));
    let defaults = Config::of(mode);
    TABLE.iter().fold(command.arg(config), |command, setting| {
        let command = command.arg(flag(setting, &defaults));
        if setting.kind == Kind::Switch { command.arg(off_flag(setting)) } else { command }
    })
}

fn flag(setting: &'static Setting, defaults: &Config) -> Arg {
    let default = match setting.value(defaults) {
        Value::Text(text) if text.is_empty() => "required".to_owned(),
        Value::Auto => format!("default: {}", setting.auto.unwrap_or_default()),
        value => format!("default: {value}"),
    };
    let about = format!("[{default}] [env: {}]", setting.variable());
    let arg = Arg::new(setting.name)
        .long(setting.flag())
        .value_name(setting.kind.placeholder())
        .help_heading(setting.group)
        .help(format!("{} {about}", setting.what))
        .long_help(format!("{} {about}\n{}", setting.what, setting.effect))
        .hide(setting.for_tests);
    match setting.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

/// `--no-…` turns a switch off.
fn off_flag(setting: &'static Setting) -> Arg {
    let name = format!("no-{}", setting.flag());
    Arg::new(name.clone()).long(name).action(ArgAction::SetTrue).conflicts_with(setting.name).hide(true)
}

fn read(matches: &ArgMatches) -> SettingArgs {
    let flags = TABLE.iter().filter_map(|setting| {
        let is_off = setting.kind == Kind::Switch && matches.get_flag(&format!("no-{}", setting.flag()));
        let said = if is_off { Some("false".to_owned()) } else { matches.get_one::<String>(setting.name).cloned() };
        said.map(|said| (setting, said))
    });
    SettingArgs { file: matches.get_one::<PathBuf>("config").cloned(), flags: flags.collect() }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(read(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = read(matches);
        Ok(())
    }
}

impl ClapArgs for SettingArgs {
    fn augment_args(command: Command) -> Command {
        augment(command, Mode::Serve)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DevArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { settings: read(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.settings = read(matches);
        Ok(())
    }
}

impl ClapArgs for DevArgs {
    fn augment_args(command: Command) -> Command {
        augment(command, Mode::Dev)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
