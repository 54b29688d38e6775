//! A server for the time of a measurement.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cli::RunArgs;
use crate::error::Error;

/// A model that takes longer to load is none that one waits for.
const START: Duration = Duration::from_secs(300);

/// `thermite serve` in a process of its own, which ends with this.
pub(super) struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts a server of `model` on a free port.
    pub(super) async fn start(model: &str, run: &RunArgs) -> Result<Self, Error> {
        let failed = |reason: String| Error::Measured { url: "thermite serve".to_owned(), reason };
        let program = std::env::current_exe().map_err(|e| failed(e.to_string()))?;
        let mut command = Command::new(program);
        command.args(["serve", model, "--port", "0"]).args(run.to_args());
        command.env("RUST_LOG", "info").env_remove("THERMITE_API_KEYS");
        command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let log = child.stderr.take().ok_or_else(|| failed("it has no log".to_owned()))?;
        let mut lines = BufReader::new(log).lines();
        let url = async {
            let mut last = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(url) = address(&line) {
                    return Ok(url.to_owned());
                }
                last = line;
            }
            // what it says last is why; that it is an error is said here
            Err(failed(last.trim_start_matches("error: ").to_owned()))
        };
        let url = timeout(START, url).await.map_err(|_| failed("it does not begin".to_owned()))??;
        // what else it says is of no use here, but must go somewhere
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, url })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Memory that it holds, where the system says so.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

/// The address in a line of the log.
fn address(line: &str) -> Option<&str> {
    let url = &line[line.find("http://")?..];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/:.[]".contains(c);
    Some(&url[..url.find(|c| !is_part(c)).unwrap_or(url.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_address() {
        assert_eq!(address("INFO listening on http://127.0.0.1:80"), Some("http://127.0.0.1:80"));
        assert_eq!(address("http://[::1]:80\u{1b}[0m x=1"), Some("http://[::1]:80"));
        assert_eq!(address("loading"), None);
    }
}
