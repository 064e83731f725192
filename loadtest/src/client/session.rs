//! A buyer's connection to one replica: the hot path of a run.
//!
//! A [`Client`](super::Client) has a pool for any number of callers, and a task for each connection. A buyer
//! waits for one answer before it sends the next order, so it can have a connection of its own and drive it
//! itself: there is no pool to ask, and no other task to be woken for each request and each answer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use order_service::api::IDEMPOTENCY_KEY;
use serde::Serialize;
use tokio::net::TcpStream;

use super::{Answer, CONNECT_TIMEOUT, CallError, chain};

/// One buyer's way to one replica. It connects when it is first used, and again when the connection is gone.
#[derive(Debug)]
pub struct Session {
    base: String,
    address: String,
    host: HeaderValue,
    connection: Option<Connection>,
}

/// An order, borrowed: the service's `NewOrder`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OrderRequest<'a> {
    /// The SKU of the product.
    pub sku: &'a str,
    /// Units to buy.
    pub quantity: i64,
    /// The name of the buyer.
    pub buyer: &'a str,
}

impl Session {
    pub(super) fn new(base: &str) -> Self {
        let uri: Uri = base.parse().unwrap_or_default();
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let host = HeaderValue::from_str(&authority).expect("an authority is made of visible characters");
        let port = uri.port_u16().unwrap_or(80);
        let address = format!("{}:{port}", uri.host().unwrap_or_default());
        Self { base: base.into(), address, host, connection: None }
    }

    /// Places an order; any answer is an answer. The contract is that of
    /// [`Client::order`](super::Client::order). When the future is dropped, or the time is over, the
    /// connection is closed.
    pub async fn order(
        &mut self,
        order: &OrderRequest<'_>,
        key: &str,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let request = self.request(order, key);
        match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Unanswered(self.base.clone(), timeout)),
        }
    }

    fn request(&self, order: &OrderRequest<'_>, key: &str) -> Request<Full<Bytes>> {
        let body = serde_json::to_vec(order).expect("an order can be written as JSON");
        let mut request = Request::post(Uri::from_static("/v1/orders"));
        if let Some(headers) = request.headers_mut() {
            headers.insert(HOST, self.host.clone());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(key).expect("keys are made of SKUs"));
        }
        request.body(Full::new(body.into())).expect("all its parts are right")
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        // Taken, so that a connection on which an answer is still to come is not used for another request.
        if let Some(mut connection) = self.connection.take() {
            match connection.exchange(request).await {
                Err(Failure::NotSent(unsent, _)) => request = *unsent,
                sent => return self.keep(connection, sent),
            }
        }
        let mut connection = self.connect().await?;
        let answer = connection.exchange(request).await;
        self.keep(connection, answer)
    }

    fn keep(&mut self, connection: Connection, answer: Result<Answer, Failure>) -> Result<Answer, CallError> {
        match answer {
            Ok(answer) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Err(Failure::NotSent(_, error)) => Err(CallError::NotSent(self.base.clone(), chain(&error))),
            Err(Failure::Broken(error)) => Err(CallError::Broken(self.base.clone(), chain(&error))),
        }
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        let not_sent = |why: String| CallError::NotSent(self.base.clone(), why);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address)).await;
        let stream = connecting.map_err(|_| not_sent(format!("no connection within {CONNECT_TIMEOUT:?}")))?;
        let stream = stream.map_err(|error| not_sent(format!("tcp connect error: {error}")))?;
        stream.set_nodelay(true).map_err(|error| not_sent(error.to_string()))?;
        // Head and body are short: copied together, they go out in one plain write.
        let shaken = http1::Builder::new().writev(false).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(|error| not_sent(chain(&error)))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }
}

/// An open connection, and what reads and writes on it whenever it is polled; `None` when it has ended.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Option<Pin<Box<Driver>>>,
}

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

/// Why a connection has no answer.
enum Failure {
    /// Nothing of the request has left: here it is again.
    NotSent(Box<Request<Full<Bytes>>>, hyper::Error),
    /// Something of it may have.
    Broken(hyper::Error),
}

impl Connection {
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        // What the server did since the last answer: it may have closed the connection.
        poll_fn(|context| Poll::Ready(self.drives(context))).await;
        let response = self.sender.try_send_request(request);
        let mut answer = pin!(async {
            let response = response.await.map_err(|mut error| match error.take_message() {
                Some(request) => Failure::NotSent(Box::new(request), error.into_error()),
                None => Failure::Broken(error.into_error()),
            })?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(Failure::Broken)?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        });
        poll_fn(|context| {
            // Once for the head of the answer, and once more for the body, which has most often come with it.
            for _ in 0..2 {
                self.drives(context);
                if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Writes what is to be written, reads what has come, and says whether the connection goes on. Its error
    /// is the answer's, too.
    fn drives(&mut self, context: &mut Context<'_>) -> bool {
        let goes_on = self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_pending());
        if !goes_on {
            self.driver = None;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What a server does with a connection on which a request has come.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Manner {
        /// Answers all requests.
        Answers,
        /// Answers the first, and closes the connection.
        AnswersOnce,
        /// Closes the connection.
        HangsUp,
        /// Nothing.
        Stalls,
    }

    const ANSWER: &[u8] = b"HTTP/1.1 201 Created\r\nx: y\r\ncontent-length: 2\r\n\r\n{}";
    const TIMEOUT: Duration = Duration::from_millis(300);

    /// A server, and how many requests have come.
    async fn serve(manner: Manner) -> (Session, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let session = Session::new(&format!("http://{}", listener.local_addr().unwrap()));
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    match manner {
                        Manner::Answers | Manner::AnswersOnce => stream.write_all(ANSWER).await.unwrap(),
                        Manner::HangsUp => break,
                        Manner::Stalls => tokio::time::sleep(Duration::from_secs(60)).await,
                    }
                    if manner == Manner::AnswersOnce {
                        break;
                    }
                }
            }
        });
        (session, requests)
    }

    async fn order(session: &mut Session) -> Result<Answer, CallError> {
        let order = OrderRequest { sku: "hair-dryer", quantity: 1, buyer: "A" };
        session.order(&order, "key", TIMEOUT).await
    }

    async fn until_closed(session: &mut Session) {
        let connection = session.connection.as_mut().expect("it was kept");
        poll_fn(|context| if connection.drives(context) { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_made_again_when_the_server_has_closed_it() {
        for manner in [Manner::Answers, Manner::AnswersOnce] {
            let (mut session, requests) = serve(manner).await;
            for sent in 1..=3 {
                let answer = order(&mut session).await.unwrap();
                assert_eq!((answer.status.as_u16(), &answer.body[..]), (201, &b"{}"[..]));
                assert_eq!(requests.load(Ordering::SeqCst), sent, "{manner:?}");
                if manner == Manner::AnswersOnce {
                    until_closed(&mut session).await;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_whose_fate_is_unknown_is_not_sent_again() {
        let (mut session, requests) = serve(Manner::HangsUp).await;
        assert!(matches!(order(&mut session).await, Err(CallError::Broken(..))));
        let (mut stalled, stalled_requests) = serve(Manner::Stalls).await;
        assert!(matches!(order(&mut stalled).await, Err(CallError::Unanswered(..))));
        for requests in [requests, stalled_requests] {
            assert_eq!(requests.load(Ordering::SeqCst), 1);
        }
        assert!(session.connection.is_none() && stalled.connection.is_none());
    }

    #[tokio::test]
    async fn what_could_not_be_sent_was_not_sent() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut session = Session::new(&format!("http://{}", taken.local_addr().unwrap()));
        drop(taken);
        let error = order(&mut session).await.unwrap_err();
        assert!(matches!(error, CallError::NotSent(..)), "{error}");
    }
}
