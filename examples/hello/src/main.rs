//! A small service to try Pointsman with: HTTP/1.1, HTTP/2 and gRPC on one port.
//!
//! `GET /` greets whoever calls and says which release answers where; `/healthz` says that it is well; `hello.v1.Greeter/Greet` does
//! the same over gRPC. On SIGTERM it stops accepting, finishes what is in flight, and ends.

mod caller;
mod grpc;
mod settings;

use std::cell::Cell;
use std::convert::Infallible;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Longest wait for requests in flight when the service ends; below what Pointsman grants by default.
const GRACE: Duration = Duration::from_secs(20);

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What every request sees.
struct Service {
    /// "r3", from the environment.
    release: String,
    /// "hello/staging", from the environment.
    stage: String,
    answered: Cell<u32>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let port = match (arguments.next().as_deref(), arguments.next().map(|port| port.parse::<u16>()), arguments.next()) {
        (Some("--port"), Some(Ok(port)), None) => port,
        _ => {
            eprintln!("usage: hello --port PORT");
            return ExitCode::from(2);
        }
    };
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(problem) => {
            eprintln!("hello: cannot listen on {address}: {problem}");
            return ExitCode::FAILURE;
        }
    };
    let variable = |name| env::var(name).unwrap_or_else(|_| "unknown".into());
    let release = env::var("POINTSMAN_RELEASE").unwrap_or_else(|_| "r0".into());
    let service = Rc::new(Service { release, stage: variable("POINTSMAN_STAGE"), answered: Cell::new(0) });
    println!("hello {} of {} listens on {address}", service.release, service.stage);
    tokio::task::LocalSet::new().run_until(serve(listener, service)).await;
    println!("hello ended");
    ExitCode::SUCCESS
}

async fn serve(listener: TcpListener, service: Rc<Service>) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be received");
    let connections = GracefulShutdown::new();
    loop {
        let tcp = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => tcp,
                Err(problem) => {
                    eprintln!("hello: a connection could not be accepted: {problem}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
        };
        let _ = tcp.set_nodelay(true);
        let service = service.clone();
        let handler = service_fn(move |request| answer(service.clone(), request));
        let connection = auto::Builder::new(Local).serve_connection(TokioIo::new(tcp), handler).into_owned();
        let connection = connections.watch(connection);
        tokio::task::spawn_local(async move {
            // A client that goes away in the middle is no news.
            let _ = connection.await;
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        eprintln!("hello: some requests were still in flight");
    }
}

async fn answer(service: Rc<Service>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    if request.uri().path() == "/healthz" {
        return Ok(text(StatusCode::OK, "well\n".into()));
    }
    let is_grpc =
        request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let caller = caller::user(request.headers()).unwrap_or_default();
    let fails = service.fails_now();
    let mut answer = match (request.uri().path(), is_grpc) {
        (_, true) if fails => grpc::status(grpc::INTERNAL, "an error on purpose"),
        (grpc::GREET, true) => grpc::greet(request.into_body(), |name| service.greeting(name)).await,
        (_, true) => grpc::unimplemented(),
        (_, false) if fails => text(StatusCode::INTERNAL_SERVER_ERROR, "an error on purpose\n".into()),
        ("/", false) => text(StatusCode::OK, service.greeting(&caller)),
        (_, false) => text(StatusCode::NOT_FOUND, "there is nothing here\n".into()),
    };
    let release = HeaderValue::from_str(&service.release).unwrap_or(HeaderValue::from_static("unknown"));
    answer.headers_mut().insert("x-release", release);
    Ok(answer)
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

impl Service {
    fn greeting(&self, name: &str) -> String {
        let comma = if name.is_empty() { "" } else { ", " };
        format!("{}{comma}{name} from {} of {}\n", settings::GREETING, self.release, self.stage)
    }

    /// Spreads the errors evenly, so that their share is right after every thousand requests.
    fn fails_now(&self) -> bool {
        let before = self.answered.get();
        self.answered.set((before + 1) % 1_000);
        let share = |answered: u32| answered * settings::ERRORS_PER_THOUSAND / 1_000;
        share(before + 1) > share(before)
    }
}

/// Runs HTTP/2 streams on this thread.
#[derive(Clone)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
