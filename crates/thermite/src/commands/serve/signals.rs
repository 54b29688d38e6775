//! Ctrl-C and SIGTERM.

use std::io;

use tokio::sync::mpsc::Sender;

/// Tells of each signal to end.
#[cfg(unix)]
pub(super) fn forward(tell: Sender<()>) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            let _ = tokio::select! {
                signal = interrupt.recv() => signal,
                signal = terminate.recv() => signal,
            };
            if tell.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Tells of each Ctrl-C.
#[cfg(not(unix))]
pub(super) fn forward(tell: Sender<()>) -> io::Result<()> {
    tokio::spawn(
        async move { while tokio::signal::ctrl_c().await.is_ok() && tell.send(()).await.is_ok() {} },
    );
    Ok(())
}
