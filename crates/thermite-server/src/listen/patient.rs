//! A stream that waits only so long for its reader, and does not take one who says no more for one who is gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep};

use super::exchange::{Exchange, Phase};

/// How often to look whether a client that says no more still listens.
const LOOK: Duration = Duration::from_millis(10);

/// Until when the rest of a request, which the client had sent before, is handed over.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// What clients of HTTP/1.1 expect before any answer (RFC 9110, 15.2); the system of one that is gone answers with a
/// reset.
const STILL_THERE: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A stream whose writes fail when nothing was taken for a time, and which ends before its answer is given only if nobody
/// listens to that any more. A client that closes one direction and one that closes both send the same; only what is
/// sent to them tells them apart.
pub(super) struct Patient {
    stream: TcpStream,
    exchange: Exchange,
    time: Duration,
    /// The end of the time, while a write waits.
    end: Pin<Box<Sleep>>,
    waiting: bool,
    silence: Option<Silence>,
}

/// A client that says no more.
struct Silence {
    since: Instant,
    /// When to look whether it listens.
    looks: Interval,
    /// Whether it was sent something since then.
    is_told: bool,
}

impl Silence {
    fn new() -> Self {
        let since = Instant::now();
        Self { since, looks: interval_at(since + LOOK, LOOK), is_told: false }
    }
}

impl Patient {
    pub(super) fn new(stream: TcpStream, exchange: Exchange, time: Duration) -> Self {
        Self { stream, exchange, time, end: Box::pin(sleep(time)), waiting: false, silence: None }
    }

    /// Of a client that says no more: whether it may still listen to the answer of its request.
    ///
    /// # Errors
    /// That of a stream of which it has closed both directions.
    fn may_listen(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let silence = self.silence.get_or_insert_with(Silence::new);
        match self.exchange.phase() {
            Phase::Waiting { .. } => Ok(false),
            Phase::Asking => Ok(silence.since.elapsed() < HANDED_OVER),
            Phase::Answering | Phase::Answered => Ok(true),
            Phase::Asked { version } if version < Version::HTTP_11 => Ok(false),
            // in the middle of what is sent of an earlier answer, nothing else can be
            Phase::Asked { .. } if silence.is_told || self.waiting => Ok(true),
            Phase::Asked { .. } => {
                silence.is_told = match self.stream.try_write(STILL_THERE) {
                    Ok(sent) if sent < STILL_THERE.len() => return Err(io::ErrorKind::WriteZero.into()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    sent => sent.is_ok(),
                };
                Ok(true)
            }
        }
    }

    /// What became of a write: it fails if it has waited for too long.
    fn written<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = false;
            return poll;
        }
        if !self.waiting {
            self.waiting = true;
            self.end.as_mut().reset(Instant::now() + self.time);
        }
        ready!(self.end.as_mut().poll(cx));
        let message = format!("the client has taken nothing for {} seconds", self.time.as_secs_f64());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        loop {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() > filled || buf.remaining() == 0 || !self.may_listen()? {
                return Poll::Ready(Ok(()));
            }
            ready!(self.silence.get_or_insert_with(Silence::new).looks.poll_tick(cx));
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        if poll.is_ready() {
            self.exchange.sent();
        }
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
