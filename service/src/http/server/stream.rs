//! A client's connection, which ends when the client is too slow, and which tells a client that has sent all
//! it wants to send from one that has gone.
//!
//! A client may close its side of the connection when its request is sent, and wait for the answer (RFC 9112,
//! 9.6). To the server that looks as if the client had gone. The difference shows when something is sent:
//! whoever is there takes an interim answer, which every client has to understand (RFC 9110, 15.2), and for
//! whoever has gone the kernel answers with a reset.

use std::future::Future as _;
use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::ConnectionLimits;
use super::activity::{Activity, Phase};

/// What is sent to learn whether the client is there.
const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How long after that it is looked for a reset the first time, and at the most.
const RESET: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// A client's connection.
pub(super) struct ClientStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    limits: ConnectionLimits,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Until when something has to come.
    reading: Option<Pin<Box<Sleep>>>,
    /// Until when what has been begun has to be taken.
    writing: Option<Pin<Box<Sleep>>>,
    /// When it is looked again whether the client has gone that has closed its side.
    looking: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl ClientStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>, limits: ConnectionLimits) -> Self {
        let closed = Box::pin(activity.closed().clone().cancelled_owned());
        Self { stream, activity, limits, closed, reading: None, writing: None, looking: None }
    }

    /// Nothing has come: whether it may go on so.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let (deadline, end) = match self.activity.phase() {
            Phase::Idle(_) if self.closed.as_mut().poll(context).is_ready() => return Poll::Ready(Ok(())),
            Phase::Idle(since) => (since + self.limits.keep_alive, Ok(())),
            Phase::Head(since) => {
                let slow = Error::new(ErrorKind::TimedOut, "the head of a request did not come in time");
                (since + self.limits.head, Err(slow))
            }
            // Its body has a time of its own, and so has the answer.
            Phase::Busy(_) | Phase::Answered => return Poll::Pending,
        };
        let reading = self.reading.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if reading.deadline() != deadline {
            reading.as_mut().reset(deadline);
        }
        ready!(reading.as_mut().poll(context));
        Poll::Ready(end)
    }

    /// The client has closed its side while it is being answered. Pending for as long as it may be there.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let Some((timer, pause)) = &mut self.looking else {
                // In the middle of an answer, nothing may be sent; and an old client understands no interim
                // one.
                let may_send = self.writing.is_none();
                if let Phase::Busy(Version::HTTP_11) = self.activity.phase()
                    && may_send
                {
                    self.stream.try_write(INTERIM).ok();
                }
                self.looking = Some((Box::pin(sleep(RESET.0)), RESET.0));
                continue;
            };
            ready!(timer.as_mut().poll(context));
            // A read says no more than that the client has closed its side.
            if let Some(reset) = self.stream.take_error()? {
                return Poll::Ready(Err(reset));
            }
            *pause = (*pause * 2).min(RESET.1);
            timer.as_mut().reset(Instant::now() + *pause);
        }
    }

    /// The time of an answer runs from when the client first did not take it.
    fn poll_taken<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        if written.is_ready() {
            return written;
        }
        let within = self.limits.write;
        let writing = self.writing.get_or_insert_with(|| Box::pin(sleep(within)));
        ready!(writing.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client did not read its answer in time")))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() == before && buffer.remaining() > 0 => {
                match this.activity.phase() {
                    Phase::Busy(_) | Phase::Answered => this.poll_gone(context),
                    Phase::Idle(_) | Phase::Head(_) => Poll::Ready(Ok(())),
                }
            }
            Poll::Ready(result) => {
                this.activity.received();
                Poll::Ready(result)
            }
            Poll::Pending => this.poll_patience(context),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.poll_taken(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.poll_taken(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        // Everything has been taken.
        this.writing = None;
        if this.activity.flushed() {
            // The time until the next request runs from here. Nobody need read meanwhile; when it is over,
            // whoever is woken does.
            let _registered = this.poll_patience(context);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
