//! The connection to the controller, and its refusals as sentences.
//!
//! Must not know: what is asked. Main types: [`Session`] (context and output of one command) and [`Client`].

use std::error::Error;
use std::time::{Duration, SystemTime};

use api::operator::operator_client::OperatorClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::contexts::{self, Context};
use crate::exit::Failure;
use crate::output::Output;

/// Longest wait for a single answer; streams have none, their connection is kept alive and checked.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A status of thousands of services is larger than the library's 4 MiB.
const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// What every verb that asks the controller is given.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where results go.
    pub(crate) output: Output,
    /// As `--context` has it.
    pub(crate) context: Option<String>,
}

impl Session {
    /// A client for the chosen context.
    ///
    /// # Errors
    /// No context, or one that is not usable.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let (name, context) = contexts::chosen(self.context.as_deref())?;
        Client::new(&name, &context)
    }
}

type Calls = OperatorClient<InterceptedService<Channel, Bearer>>;

/// Calls to one controller. Connects at the first of them.
pub(crate) struct Client {
    /// The generated calls; their errors go through [`Client::failure`].
    pub(crate) calls: Calls,
    controller: String,
    context: String,
    /// When its certificate ended, if that is so long ago that the controller hangs up without a word.
    forgotten: Option<SystemTime>,
}

impl Client {
    /// For a context of this name.
    ///
    /// # Errors
    /// An address, authority or token that cannot be right.
    pub(crate) fn new(name: &str, context: &Context) -> Result<Self, Failure> {
        let unusable = |why: String| Failure::refused(format!("the context {name} is not usable: {why}"));
        let Context { controller, ca, certificate, key, .. } = context;
        let channel = if certificate.is_empty() {
            certs::fleet::operator_channel(controller, ca)
        } else {
            certs::fleet::certified_operator_channel(controller, ca, certificate, key)
        };
        let channel = channel.map_err(|error| unusable(error.to_string()))?;
        let bearer = Bearer::of(&context.token)
            .ok_or_else(|| unusable("its token holds characters that no token has".into()))?;
        let calls = OperatorClient::with_interceptor(channel, bearer).max_decoding_message_size(LARGEST_MESSAGE);
        let forgotten = certs::fleet::forgotten_since(certificate, SystemTime::now());
        Ok(Self { calls, controller: controller.clone(), context: name.to_owned(), forgotten })
    }

    /// Host and port.
    pub(crate) fn controller(&self) -> &str {
        &self.controller
    }

    /// What went wrong, for people.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        // What turns it away is an alert behind the handshake (RFC 8446 §4.4.2.4), or the end of the connection, whichever the
        // library meets first.
        let is_turned_away =
            || connection_problem(status).is_none_or(|told| told == CLOSED || told.contains("received fatal alert"));
        if let Some(ended) = self.forgotten.filter(|_| is_turned_away()) {
            return Failure::refused(format!(
                "the certificate of the context {} expired at {}, too long ago for the controller to look at it: somebody \
                 who may can make another with `pointsman token create NAME --certificate FILE`",
                self.context,
                certs::fleet::rfc3339(ended)
            ));
        }
        Failure::refused(sentence(status, &self.controller, &self.context))
    }
}

/// A connection that broke is tried again so often, a second apart: the same request under the same id answers with what
/// the first one did.
const ATTEMPTS: u32 = 10;
const NEXT_ATTEMPT: Duration = Duration::from_secs(1);

/// Attempts at something that is asked under an id, so that asking again does not do it again.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

/// What a failed attempt means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It was not done.
    Refused,
    /// It may have been done: the same request again tells.
    Again,
    /// It may have been done, and nobody is there to tell.
    Unknown,
}

impl Attempts {
    /// Attempts at a controller that has answered before: even the first one may meet it while it starts again.
    pub(crate) fn at_known() -> Self {
        Self(1)
    }

    /// Takes in a failure; waits before the next attempt.
    pub(crate) async fn after(&mut self, status: &Status) -> Meaning {
        let meaning = self.meaning(status);
        if meaning == Meaning::Again {
            tokio::time::sleep(NEXT_ATTEMPT).await;
        }
        meaning
    }

    fn meaning(&mut self, status: &Status) -> Meaning {
        self.0 += 1;
        let broken = is_broken_connection(status);
        match self.0 {
            // Once a request was on its way, a controller that is gone says nothing about it.
            1 if is_unconnected(status) => Meaning::Refused,
            made if broken && made < ATTEMPTS => Meaning::Again,
            // What an earlier controller answers instead of what the first attempt did.
            made if made > 1 && status.code() == Code::AlreadyExists => Meaning::Unknown,
            _ if broken || matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled) => Meaning::Unknown,
            _ => Meaning::Refused,
        }
    }
}

impl Client {
    /// Asks under an id until there is an answer.
    ///
    /// # Errors
    /// A refusal, or a controller that is gone, with [`crate::exit::Exit::Waiting`] when it may have been done.
    pub(crate) async fn insist<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&mut Calls) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Failure> {
        let mut attempts = Attempts::default();
        loop {
            let status = match ask(&mut self.calls).await {
                Ok(reply) => return Ok(reply.into_inner()),
                Err(status) => status,
            };
            match attempts.after(&status).await {
                Meaning::Again => {}
                Meaning::Refused => return Err(self.failure(&status)),
                Meaning::Unknown => return Err(self.unknown(&status)),
            }
        }
    }

    /// What went wrong with something that may have been done all the same.
    pub(crate) fn unknown(&self, status: &Status) -> Failure {
        let told = sentence(status, &self.controller, &self.context);
        let may = "what was asked may have been done: `pointsman history` shows it";
        Failure::unknown(if told.contains(may) { told } else { format!("{told}; {may}") })
    }
}

/// Whether there never was a connection that something could have been asked on.
fn is_unconnected(status: &Status) -> bool {
    let mut causes = std::iter::successors(status.source(), |error| (*error).source());
    // What breaks later is the HTTP library's to tell.
    connection_problem(status).is_some() && !causes.any(|error| error.is::<hyper::Error>())
}

/// A request whose answer is one message.
pub(crate) fn asking<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_WITHIN);
    request
}

/// Adds the token to each call; nothing when a certificate stands for it.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn of(token: &str) -> Option<Self> {
        if token.is_empty() {
            return Some(Self(None));
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().ok()?;
        value.set_sensitive(true);
        Some(Self(Some(value)))
    }
}

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// Whether the same request may be sent again with hope: the connection is at fault, not the request.
pub(crate) fn is_broken_connection(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled) && status.source().is_some())
}

/// A status as a sentence without the library's words.
fn sentence(status: &Status, controller: &str, context: &str) -> String {
    if let Some(why) = connection_problem(status) {
        return format!("the controller at {controller} {why}");
    }
    let said = match status.message().trim() {
        "" => "no reason was given",
        said => said,
    };
    match status.code() {
        Code::Unauthenticated if said.contains("certificate") => {
            format!("the controller at {controller} does not accept the context {context}: {said}")
        }
        Code::Unauthenticated => format!(
            "the controller at {controller} does not accept the token of the context {context}: log in again with \
             `pointsman login --from FILE`, or with a token that was not revoked"
        ),
        Code::PermissionDenied => {
            format!("{said}: somebody whose token may do this can make you one with `pointsman token create`")
        }
        Code::Unavailable => format!("the controller at {controller} does not answer ({said})"),
        Code::DeadlineExceeded | Code::Cancelled => format!(
            "the controller at {controller} did not answer in time; what was asked may have been done: \
             `pointsman history` shows it"
        ),
        Code::Unimplemented => {
            format!("the controller at {controller} does not know this command: it is of another version than this one")
        }
        Code::Internal | Code::Unknown | Code::DataLoss => {
            format!("the controller at {controller} failed: {said}; its log says more")
        }
        _ => said.to_owned(),
    }
}

/// What is wrong with the connection, when that is what failed.
fn connection_problem(status: &Status) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    let mut told = None;
    while let Some(error) = cause {
        // A certificate's fault is wrapped in an io::Error whose own `source` skips it.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = error.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|e| e.downcast_ref()));
        if let Some(wrong) = inner.and_then(|inner| inner.downcast_ref::<certs::fleet::WrongClock>()) {
            return Some(format!("cannot be verified: {wrong}"));
        }
        if let Some(tls) = tls {
            return Some(tls_problem(tls));
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            told = Some(io_problem(error));
        } else if told.is_none() && error.to_string().contains("timed out") {
            told = Some("does not answer (no connection within a few seconds)".to_owned());
        }
        cause = error.source();
    }
    told
}

const CLOSED: &str = "closed the connection: it may be stopping, or something else listens there";

fn io_problem(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    let why = match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::TimedOut => "no connection within a few seconds".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            return CLOSED.to_owned();
        }
        _ => error.to_string(),
    };
    format!("does not answer ({why})")
}

fn tls_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => {
            "is not the one of this context: its certificate is signed by another authority; log in again with \
             `pointsman login --from FILE`"
                .to_owned()
        }
        _ => format!("does not speak as a controller does ({error})"),
    }
}

/// A random id for a request: the same id again answers with what the first call did.
///
/// # Errors
/// A system without /dev/urandom.
pub(crate) fn request_id() -> Result<String, Failure> {
    use std::io::Read;
    let path = std::path::Path::new("/dev/urandom");
    let mut bytes = [0; 16];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Failure::file(path, &error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_sentences() {
        for (code, said, expected) in [
            (
                Code::FailedPrecondition,
                "r42 has not run in staging: promote it there first",
                "r42 has not run in staging: promote it there first",
            ),
            (Code::NotFound, "there is no service hallo", "there is no service hallo"),
            (Code::Unauthenticated, "no", "does not accept the token of the context local: log in again"),
            (
                Code::PermissionDenied,
                "the token ci may not promote",
                "the token ci may not promote: somebody whose token",
            ),
            (Code::Unavailable, "", "the controller at 127.0.0.1:7400 does not answer"),
            (Code::Unimplemented, "", "of another version"),
            (Code::Internal, "disk full", "failed: disk full; its log"),
            (Code::DeadlineExceeded, "", "did not answer in time"),
        ] {
            let text = sentence(&Status::new(code, said), "127.0.0.1:7400", "local");
            assert!(text.contains(expected), "{code:?}: {text}");
        }
    }

    #[test]
    fn causes_of_a_lost_connection_are_named() {
        use std::io::{Error as IoError, ErrorKind};
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        for (error, expected) in [
            (IoError::from(ErrorKind::ConnectionRefused), "does not answer (connection refused)"),
            (IoError::from(ErrorKind::TimedOut), "no connection within"),
            (IoError::from(ErrorKind::ConnectionReset), "closed the connection"),
            (IoError::new(ErrorKind::InvalidData, untrusted), "signed by another authority"),
        ] {
            let status = Status::from_error(Box::new(error));
            let text = sentence(&status, "127.0.0.1:7400", "local");
            assert!(text.starts_with("the controller at 127.0.0.1:7400 ") && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_asked_again_and_then_not_known() {
        let (broken, refused) = (Status::unavailable("stopping"), Status::failed_precondition("no"));
        let mut attempts = Attempts::default();
        for _ in 1..ATTEMPTS {
            assert_eq!(attempts.meaning(&broken), Meaning::Again);
        }
        let gone = Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)));
        assert_eq!(attempts.meaning(&gone), Meaning::Unknown, "the first attempt may have arrived");
        assert_eq!(Attempts::default().meaning(&gone), Meaning::Refused);
        assert_eq!(Attempts::default().meaning(&refused), Meaning::Refused);
        assert_eq!(Attempts(3).meaning(&refused), Meaning::Refused, "it was refused the first time as well");
        let exists = Status::already_exists("this request was carried out before");
        assert_eq!(Attempts(1).meaning(&exists), Meaning::Unknown);
        assert_eq!(Attempts::default().meaning(&exists), Meaning::Refused);
        assert_eq!(Attempts::default().meaning(&Status::deadline_exceeded("")), Meaning::Unknown);
    }

    #[test]
    fn request_ids_differ() {
        let (one, two) = (request_id().expect("random"), request_id().expect("random"));
        assert!(one.len() == 32 && one != two);
    }

    #[tokio::test]
    async fn a_port_without_a_controller_is_named() {
        certs::install_provider();
        let folder = tempfile::tempdir().expect("folder");
        let ca = certs::fleet::FleetCa::open_or_create(folder.path()).expect("authority").certificate_pem();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let controller = listener.local_addr().expect("address").to_string();
        drop(listener);
        let context = Context { controller: controller.clone(), ca, token: "pmop1.x".into(), ..Context::default() };
        let mut client = Client::new("local", &context).expect("client");
        let status = client.calls.list_services(asking(api::operator::ListRequest {})).await.expect_err("nobody");
        assert!(is_broken_connection(&status) && is_unconnected(&status));
        assert_eq!(Attempts::default().meaning(&status), Meaning::Refused, "nothing can have been done");
        let expected = format!("the controller at {controller} does not answer (connection refused)");
        assert_eq!(client.failure(&status).message, expected);
    }
}
