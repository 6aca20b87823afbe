//! Drives a headless Chromium by the DevTools protocol over a WebSocket, to see GraphiQL and the start page as a person
//! does.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Time limit for every step in the browser.
const PATIENCE: Duration = Duration::from_secs(60);

/// The steps in GraphiQL, and what must then be visible.
pub(crate) struct Check<'a> {
    /// A query, and a text that its result must contain.
    pub(crate) query: (&'a str, &'a str),
    /// A subscription, and a text that an update must contain.
    pub(crate) subscription: Option<(&'a str, &'a str)>,
}

/// Opens GraphiQL of the server at `url`, runs the query, then the subscription, and calls `cause_update` until an
/// update is visible.
///
/// Fails on an error in the page's console, on an uncaught exception and on a request to any other address. Without a
/// Chromium on this machine it prints a message and does nothing, unless `TANDEM_REQUIRE_BROWSER=1` makes that a
/// failure.
pub(crate) async fn check_graphiql(
    url: &str,
    check: Check<'_>,
    mut cause_update: impl AsyncFnMut(),
) {
    let Some(mut page) = Page::of_chromium("GraphiQL", url).await else {
        return;
    };
    page.go(&format!("{url}/graphql")).await;
    page.until(
        "GraphiQL is there",
        "!!document.querySelector('.graphiql-query-editor .CodeMirror')",
    )
    .await;

    let (query, expected) = check.query;
    page.run(query).await;
    page.until("the query's result shows", &result_shows(expected))
        .await;

    if let Some((subscription, expected)) = check.subscription {
        page.run(subscription).await;
        let begin = Instant::now();
        while page.evaluate(&result_shows(expected)).await != json!(true) {
            assert!(
                begin.elapsed() < PATIENCE,
                "no update in the page: {}",
                page.evaluate(RESULT).await
            );
            cause_update().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    page.expect_no_complaint().await;
}

/// Opens the start page of the gateway at `url`, whose services run. Runs its two queries, and views it on a narrow
/// screen and in dark mode. Fails or is left out like [`check_graphiql`].
#[allow(dead_code)] // the gateway's own tests have no services behind it
pub(crate) async fn check_start_page(url: &str) {
    let Some(mut page) = Page::of_chromium("the start page", url).await else {
        return;
    };
    page.go(&format!("{url}/")).await;
    page.until(
        "everything is up",
        "['gateway', 'accounts', 'orders', 'kafka'].every((name) =>
            document.querySelector(`[data-service=${name}] .state.up`)) &&
         document.getElementById('overall').innerText.includes('everything answers')",
    )
    .await;
    page.until(
        "each service leads to its pages",
        "document.querySelectorAll('[data-service=orders] a').length === 3",
    )
    .await;
    let click = |name: &str| format!("document.querySelector('[data-run={name}]').click()");
    page.evaluate(&click("create")).await;
    page.until(
        "the customer is created",
        "/answered in \\d+ ms[^]*\"revision\": 1/.test(document.getElementById('create-answer').innerText)",
    )
    .await;
    page.evaluate(&click("read")).await;
    page.until(
        "orders knows her",
        "/answered in[^]*Lovelace[^]*replicatedAt/.test(document.getElementById('read-answer').innerText)",
    )
    .await;

    let colour = "getComputedStyle(document.body).backgroundColor";
    let light = page.evaluate(colour).await;
    let narrow = json!({ "width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": true });
    page.call("Emulation.setDeviceMetricsOverride", narrow)
        .await;
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    page.call("Emulation.setEmulatedMedia", dark).await;
    page.until(
        "it fits a narrow screen",
        "innerWidth === 360 && document.documentElement.scrollWidth <= 360",
    )
    .await;
    assert_ne!(page.evaluate(colour).await, light, "dark is as light");
    page.expect_no_complaint().await;
}

/// The text in GraphiQL's result pane.
const RESULT: &str =
    "(document.querySelector('.result-window .CodeMirror')?.CodeMirror.getValue() ?? '')";

fn result_shows(text: &str) -> String {
    format!("{RESULT}.includes({})", json!(text))
}

fn find_chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ];
    let path = std::env::var_os("PATH")?;
    let on_path =
        std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
    let mac = ["Google Chrome", "Chromium"]
        .map(|app| format!("/Applications/{app}.app/Contents/MacOS/{app}").into());
    on_path.chain(mac).find(|file| file.is_file())
}

/// One page of one browser process, and its complaints so far.
pub(crate) struct Page {
    browser: Child,
    _profile: tempfile::TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    origin: String,
    last_id: u64,
    complaints: Vec<String>,
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

impl Page {
    /// A page in this machine's Chromium. Without a Chromium it prints a message and returns `None`, unless
    /// `TANDEM_REQUIRE_BROWSER=1` makes that a failure.
    pub(crate) async fn of_chromium(what: &str, origin: &str) -> Option<Self> {
        let Some(chromium) = find_chromium() else {
            let how =
                "install Chromium (Debian: `apt-get install chromium`) or set CHROMIUM to its path";
            assert!(
                std::env::var("TANDEM_REQUIRE_BROWSER").as_deref() != Ok("1"),
                "TANDEM_REQUIRE_BROWSER=1, but there is no Chromium here: {how}"
            );
            println!(
                "LEFT OUT: the browser test of {what}, because there is no Chromium here; to run it, {how}."
            );
            return None;
        };
        Some(Self::open(chromium, origin).await)
    }

    async fn open(chromium: PathBuf, origin: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new(chromium)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--window-size=1400,900",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(browser.stderr.take().unwrap());
        let address = tokio::task::spawn_blocking(move || {
            let mut lines = stderr.lines().map_while(Result::ok);
            let address = lines.find_map(|line| {
                Some(line.split_once("DevTools listening on ws://")?.1.to_owned())
            });
            // Chromium stops when nobody reads its output.
            std::thread::spawn(move || lines.for_each(drop));
            address
        });
        let address = tokio::time::timeout(PATIENCE, address)
            .await
            .unwrap()
            .unwrap();
        let address = address.expect("Chromium says where its DevTools are");
        let list = format!("http://{}/json/list", address.split('/').next().unwrap());
        let begin = Instant::now();
        let url = loop {
            let pages: Value = reqwest::get(&list).await.unwrap().json().await.unwrap();
            let page = pages
                .as_array()
                .unwrap()
                .iter()
                .find(|page| page["type"] == "page");
            if let Some(url) = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()) {
                break url.to_owned();
            }
            assert!(begin.elapsed() < PATIENCE, "Chromium has no page: {pages}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let origin = origin.to_owned();
        let mut page = Self {
            browser,
            _profile: profile,
            socket,
            origin,
            last_id: 0,
            complaints: Vec::new(),
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page
    }

    /// Calls a method of the DevTools protocol. Also handles events that arrive before the response.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let call = json!({ "id": self.last_id, "method": method, "params": parameters });
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            let Ok(message) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default())
            else {
                continue;
            };
            if message["id"] == json!(self.last_id) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.look_at(&message);
        }
    }

    fn look_at(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => parameters["type"] == "error",
            "Log.entryAdded" => parameters["entry"]["level"] == "error",
            "Network.requestWillBeSent" => {
                let url = parameters["request"]["url"].as_str().unwrap_or_default();
                !url.starts_with(&self.origin)
                    && !url.starts_with("data:")
                    && !url.starts_with("about:")
            }
            _ => false,
        };
        if complaint {
            self.complaints.push(event.to_string());
        }
    }

    /// Fails if the page has complained about anything so far.
    pub(crate) async fn expect_no_complaint(&mut self) {
        // The response comes after all earlier events.
        self.evaluate("1").await;
        assert!(
            self.complaints.is_empty(),
            "the page complains: {:#?}",
            self.complaints
        );
    }

    pub(crate) async fn go(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", parameters).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    pub(crate) async fn until(&mut self, what: &str, condition: &str) {
        let begin = Instant::now();
        while self.evaluate(condition).await != json!(true) {
            if begin.elapsed() > PATIENCE {
                let text = self.evaluate("document.body.innerText").await;
                panic!(
                    "not in the page: {what}\ncomplaints: {:#?}\ntext: {text}",
                    self.complaints
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes an operation without variables into the editor and presses the button that runs it.
    async fn run(&mut self, operation: &str) {
        let script = format!(
            "document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror.setValue({});
             document.querySelector('.graphiql-editor-tool .CodeMirror')?.CodeMirror.setValue('');
             {RESULT}",
            json!(operation)
        );
        self.evaluate(&script).await;
        self.until(
            "the button that runs an operation",
            "!!document.querySelector('.graphiql-execute-button')",
        )
        .await;
        self.evaluate("document.querySelector('.graphiql-execute-button').click()")
            .await;
    }
}
