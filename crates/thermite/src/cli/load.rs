//! The load that `thermite bench --serve` puts on a server.

use clap::Args;

use super::model::at_least_one;

/// The load that `thermite bench --serve` puts on a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load on a server")]
pub(crate) struct LoadArgs {
    /// Measure a server under load: one that is started for it, or the one at --url
    #[arg(long, conflicts_with_all = ["shape", "depth", "sequences", "runs"])]
    pub(crate) serve: bool,
    /// A server that runs: http://127.0.0.1:8080
    #[arg(long, value_name = "URL", requires = "serve")]
    pub(crate) url: Option<String>,
    /// Requests at a time: a next one is sent when one is done
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1usize, 2, 4, 8, 16, 32, 64], value_parser = at_least_one, requires = "serve")]
    pub(crate) concurrency: Vec<usize>,
    /// Requests a second instead, at moments of a Poisson process, whether others are done or not
    #[arg(long, value_name = "R", value_delimiter = ',', value_parser = positive, requires = "serve", conflicts_with = "concurrency")]
    pub(crate) rate: Vec<f64>,
    /// Seconds that each is measured for, after one second that warms up
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = positive, requires = "serve")]
    pub(crate) duration: f64,
    /// Key of the server's API
    #[arg(long, value_name = "KEY", env = "THERMITE_API_KEY", hide_env_values = true, requires = "serve")]
    pub(crate) api_key: Option<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        Ok(_) => Err("must be above 0 and at most 1000000".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}
