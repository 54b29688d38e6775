//! A server for each test.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use thermite_device::cpu::Cpu;
use thermite_engine::chat::{ChatTemplate, ChatTemplates};
use thermite_engine::{BUILTIN, Engine, EngineOptions, Error, open_model};
use thermite_server::{Keys, Limits, Loaded, Queue, Server, ServerError, ServerOptions, Shutdown};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What a test may want to be otherwise.
pub(crate) struct Setup {
    pub(crate) options: ServerOptions,
    pub(crate) queue: Queue,
    pub(crate) chunk: usize,
    /// The model's chat template; it has none of its own.
    pub(crate) template: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        let options = ServerOptions { drain_time: Duration::from_secs(20), ..ServerOptions::default() };
        Self { options, queue: Queue { running: 8, waiting: 64 }, chunk: 64, template: None }
    }
}

impl Setup {
    pub(crate) fn limits(limits: Limits) -> Self {
        let setup = Self::default();
        Self { options: ServerOptions { limits, ..setup.options }, ..setup }
    }

    pub(crate) fn keys(lines: &str) -> Self {
        let setup = Self::default();
        Self { options: ServerOptions { keys: Keys::from_lines(lines).unwrap(), ..setup.options }, ..setup }
    }
}

/// An engine over the built-in model.
pub(crate) fn engine(chunk: usize, max_outputs: usize) -> Engine<Cpu> {
    let options =
        EngineOptions { chunk, max_outputs, cache_tokens: Some(16 * 512), ..EngineOptions::default() };
    Engine::load(&open_model(BUILTIN).unwrap(), Cpu::new(Some(1)).unwrap(), &options).unwrap()
}

/// A server that runs.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) tell: Sender<()>,
    pub(crate) task: JoinHandle<Result<(), ServerError>>,
    pub(crate) client: Client,
}

impl TestServer {
    pub(crate) async fn start(setup: Setup) -> Self {
        let Setup { options, queue, chunk, template } = setup;
        let mut server = Server::new(options).unwrap();
        let templates = move || {
            let template =
                template.map(|source| ChatTemplate::new(source, "the test's template", None, None));
            template.map(|template| ChatTemplates::new(template.unwrap()))
        };
        let load = move || Loaded::new(engine(chunk, queue.running), templates(), queue);
        server.add_model::<Error>(BUILTIN, load).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, shutdown) = Shutdown::new();
        let task = tokio::spawn(server.serve(listener, shutdown));
        Self { address, tell, task, client: Client::new() }
    }

    pub(crate) async fn new() -> Self {
        Self::start(Setup::default()).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        let request = self.client.post(self.url(path)).header("content-type", "application/json");
        request.body(body.to_string())
    }

    /// The answer to a request that must succeed.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).send().await.unwrap();
        let status = response.status();
        let answer = json(response).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The data of a stream's events.
    pub(crate) async fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let text = self.post(path, body).send().await.unwrap().text().await.unwrap();
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let (last, chunks) = data.split_last().unwrap();
        assert_eq!(*last, "[DONE]", "{text}");
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The value of a metric, labels and all.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line =
            text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until nothing runs and every block is free.
    pub(crate) async fn idle(&self) {
        let idle = async {
            while self.metric("thermite_requests_running").await != 0.0
                || self.metric("thermite_requests_waiting").await != 0.0
                || self.metric("thermite_kv_blocks_free").await != self.metric("thermite_kv_blocks").await
            {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(10), idle).await.unwrap();
        assert!(self.metric("thermite_kv_blocks").await > 0.0);
    }

    /// Shuts down, and waits for the end.
    pub(crate) async fn end(self) {
        self.tell.send(()).await.unwrap();
        timeout(Duration::from_secs(30), self.task).await.unwrap().unwrap().unwrap();
    }
}

pub(crate) async fn json(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}
