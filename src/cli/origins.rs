//! Where the value of each flag came from: matches of clap → origins by the flag's name.

use std::collections::BTreeMap;

use clap::ArgMatches;
use clap::parser::ValueSource;
use ktrace_bundle::manifest::PlanSource;

use super::layers::Layer;

/// Where each flag's value came from, by the flag's name without dashes in front.
#[derive(Debug, Default)]
pub struct Origins(BTreeMap<String, PlanSource>);

impl Origins {
    /// Of the values that these are; what neither the command line nor the environment gave may be the layer's.
    pub(super) fn of(matches: &ArgMatches, layer: &Layer) -> Self {
        let origin = |id: &clap::Id| {
            let flag = id.as_str().replace('_', "-");
            let from = match matches.value_source(id.as_str())? {
                ValueSource::CommandLine => PlanSource::Flag,
                ValueSource::EnvVariable => PlanSource::Env,
                _ => layer.get(&flag).map_or(PlanSource::Default, |(_, from)| *from),
            };
            Some((flag, from))
        };
        Self(matches.ids().filter_map(origin).collect())
    }

    /// Origin of `flag`; a flag that nobody gave has its default.
    pub fn get(&self, flag: &str) -> PlanSource {
        self.0.get(flag).copied().unwrap_or(PlanSource::Default)
    }
}
