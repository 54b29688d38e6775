//! `thermite pull`, in a program without it.

use crate::cli::PullArgs;
use crate::error::Error;

pub(crate) fn run(_: &PullArgs) -> Result<(), Error> {
    let reason = "this program was built without `pull`: `cargo install --path crates/thermite --features pull` \
                  builds one with it";
    Err(Error::Usage(reason.to_owned()))
}
