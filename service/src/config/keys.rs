//! The keys of the configuration with their help texts, taken from the doc comments of
//! [`Config`]: as flags, and as a commented file.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Config, ConfigError, Sources};

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigKey {
    /// `section.key`.
    pub path: String,
    /// Its doc comment.
    pub help: String,
    /// The default, as it would stand in the file; `None` when unset.
    pub default: Option<String>,
    /// The values that there are, where they have names.
    pub choices: Vec<String>,
    /// Whether the whole section is absent unless it is given.
    pub optional_section: bool,
}

/// All keys that have one value, in the order of the struct.
pub fn keys() -> Vec<ConfigKey> {
    let generator = SchemaSettings::default().with(|s| s.inline_subschemas = true).into_generator();
    let schema = generator.into_root_schema_for::<Config>();
    let config = Config::default();
    let with_all_sections = Config { lock: config.lock.clone().with_all_sections(), ..config };
    let json =
        |config: &Config| serde_json::to_value(config).expect("a configuration can be written as JSON");
    let mut keys = Vec::new();
    collect("", schema.as_value(), &json(&with_all_sections), Some(&json(&Config::default())), &mut keys);
    keys
}

fn collect(prefix: &str, schema: &Value, shown: &Value, defaults: Option<&Value>, keys: &mut Vec<ConfigKey>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let shown = &shown[name];
        // An optional section or enumeration is `anyOf: [it, null]`.
        let inner = property["anyOf"].get(0).unwrap_or(property);
        if inner["properties"].is_object() {
            let defaults = defaults.map(|defaults| &defaults[name]).filter(|defaults| !defaults.is_null());
            collect(&path, inner, shown, defaults, keys);
        } else if property["type"] != "array" {
            let help = property["description"].as_str().unwrap_or_default().split_whitespace();
            keys.push(ConfigKey {
                path,
                help: help.collect::<Vec<_>>().join(" "),
                choices: choices(inner),
                default: (!shown.is_null()).then(|| shown.to_string()),
                optional_section: defaults.is_none(),
            });
        }
    }
}

/// The names of an enumeration's values; none for anything else.
fn choices(schema: &Value) -> Vec<String> {
    let described = schema["oneOf"].as_array().into_iter().flatten().map(|variant| &variant["const"]);
    let plain = schema["enum"].as_array().into_iter().flatten();
    described.chain(plain).filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A file with every key, its help text and its default; what is unset by default is commented out.
pub fn reference() -> String {
    let mut text = String::from("# The configuration of order-service: every key with its default.\n");
    let mut section = String::new();
    for key in keys() {
        let (this_section, name) = key.path.rsplit_once('.').expect("every key is in a section");
        let comment = |unset: bool| if unset { "# " } else { "" };
        if this_section != section {
            section = this_section.into();
            text += &format!("\n{}[{section}]\n", comment(key.optional_section));
        }
        let unset = key.optional_section || key.default.is_none();
        text += &format!(
            "# {}\n{}{name} = {}\n",
            key.help,
            comment(unset),
            key.default.as_deref().unwrap_or("…")
        );
    }
    text += "\n# Products that are created at start when they are absent.\n";
    text += "# [[catalog]]\n# sku = \"hair-dryer\"\n# name = \"Hair dryer\"\n# stock = 100\n";
    text
}

/// `--config FILE` and one flag for every key, as `clap` arguments.
impl Args for Sources {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(std::path::PathBuf))
            .help("The configuration file [default: order-service.toml if it exists]");
        let flags = keys().into_iter().map(|key| {
            let help = match &key.default {
                Some(default) => format!("{} [default: {}]", key.help, default.trim_matches('"')),
                None => key.help,
            };
            let flag = Arg::new(key.path.clone())
                .long(key.path)
                .value_name("VALUE")
                .help(help)
                .help_heading("Configuration (also STOCKLOCK__SECTION__KEY in the environment)");
            match key.choices.is_empty() {
                true => flag,
                false => flag.value_parser(PossibleValuesParser::new(key.choices)).hide_possible_values(true),
            }
        });
        command.arg(file).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Sources {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |key: ConfigKey| {
            matches.get_one::<String>(&key.path).map(|value| (key.path.clone(), value.clone()))
        };
        let refuse = |error: ConfigError| clap::Error::raw(clap::error::ErrorKind::InvalidUtf8, error);
        Ok(Self {
            file: matches.get_one("config").cloned(),
            environment: Self::environment().map_err(refuse)?,
            overrides: keys().into_iter().filter_map(given).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
