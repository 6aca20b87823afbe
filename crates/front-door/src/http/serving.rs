//! What is being answered at the moment, so that a process that hangs or dies leaves word of it.
//!
//! A thread of its own tells the log of requests that take long: where the threads that serve are stuck, nothing else does. Who watches over
//! the process may name a file ([`FILE`]); requests stand in it from their beginning to their end, and what is in it when the process has
//! died was being served.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::request::Parts;

/// The variable that names the file.
pub const FILE: &str = "TANDEM_SERVING_FILE";
/// A request's place in the file, in bytes.
const PLACE: usize = 256;
/// The longest path that is told, in bytes.
const LONGEST_PATH: usize = 120;
/// The most of an operation's name that is told, in characters.
const LONGEST_NAME: usize = 64;
/// A request that takes this long is told.
const LONG: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// All requests that are being answered.
#[derive(Debug, Clone)]
pub(crate) struct Serving(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    requests: Mutex<Requests>,
    file: Option<File>,
}

#[derive(Debug, Default)]
struct Requests {
    places: Vec<Option<Request>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Request {
    since: Instant,
    what: String,
    is_told: bool,
}

/// One of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    shared: Arc<Shared>,
    at: usize,
}

/// Tells more of a request that may have been answered meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct About(Weak<Served>);

impl Serving {
    /// With the file that the environment names, if it does.
    pub(crate) fn watched() -> Self {
        let file = std::env::var_os(FILE).and_then(|path| {
            let opened = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path);
            opened
                .inspect_err(
                    |error| tracing::warn!(%error, ?path, "what is served cannot be noted"),
                )
                .ok()
        });
        let serving = Self::noting(file);
        let watched = Arc::downgrade(&serving.0);
        let started = thread::Builder::new()
            .name("serving".to_owned())
            .spawn(move || watch(&watched));
        if let Err(error) = started {
            tracing::warn!(%error, "requests that take long will not be told");
        }
        serving
    }

    fn noting(file: Option<File>) -> Self {
        Self(Arc::new(Shared {
            requests: Mutex::default(),
            file,
        }))
    }

    /// A request begins to be answered.
    pub(crate) fn begin(&self, parts: &Parts, id: &str) -> Arc<Served> {
        let path = parts.uri.path();
        let path = path.get(..LONGEST_PATH).unwrap_or(path);
        let what = format!("{} {path} {id}", parts.method);
        let mut requests = self.0.lock();
        let at = requests.free.pop().unwrap_or(requests.places.len());
        if at == requests.places.len() {
            requests.places.push(None);
        }
        self.0.note(at, &what);
        if let Some(place) = requests.places.get_mut(at) {
            *place = Some(Request {
                since: Instant::now(),
                what,
                is_told: false,
            });
        }
        Arc::new(Served {
            shared: Arc::clone(&self.0),
            at,
        })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what stands at a place; nothing, if the text is empty. Best effort: it is for when everything else has failed.
    fn note(&self, at: usize, what: &str) {
        let Some(file) = &self.file else {
            return;
        };
        let begin = (at * PLACE) as u64;
        let _ = if what.is_empty() {
            file.write_all_at(&[0], begin)
        } else {
            let mut place = [0; PLACE];
            for (byte, written) in place.iter_mut().zip(what.bytes().take(PLACE - 1)) {
                *byte = written;
            }
            file.write_all_at(&place, begin)
        };
    }

    /// Requests that have taken long and were not told yet.
    fn long(&self, long: Duration) -> Vec<(String, Duration)> {
        let mut requests = self.lock();
        let waiting = requests.places.iter_mut().flatten();
        waiting
            .filter(|request| !request.is_told && request.since.elapsed() >= long)
            .map(|request| {
                request.is_told = true;
                (request.what.clone(), request.since.elapsed())
            })
            .collect()
    }
}

impl Served {
    /// What an operation's name lets be told of a request.
    pub(crate) fn about(self: &Arc<Self>) -> About {
        About(Arc::downgrade(self))
    }
}

impl About {
    /// The request is for an operation of this name.
    pub(crate) fn operation(&self, name: &str) {
        let Some(served) = self.0.upgrade() else {
            return;
        };
        let mut requests = served.shared.lock();
        if let Some(Some(request)) = requests.places.get_mut(served.at) {
            request.what.push(' ');
            request.what.extend(name.chars().take(LONGEST_NAME));
            served.shared.note(served.at, &request.what);
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut requests = self.shared.lock();
        if let Some(place) = requests.places.get_mut(self.at) {
            *place = None;
        }
        requests.free.push(self.at);
        self.shared.note(self.at, "");
    }
}

fn watch(watched: &Weak<Shared>) {
    loop {
        thread::sleep(LOOK);
        let Some(shared) = watched.upgrade() else {
            return;
        };
        for (request, time) in shared.long(LONG) {
            tracing::warn!(
                request,
                seconds = time.as_secs(),
                "a request is still being answered"
            );
        }
    }
}

/// What stands in a file that a process which has died had noted: requests that it did not come to the end of.
///
/// # Errors
/// When the file cannot be read.
pub fn left_in(file: &std::path::Path) -> std::io::Result<Vec<String>> {
    let bytes = std::fs::read(file)?;
    let texts = bytes.chunks(PLACE).filter_map(|place| {
        let text = place.split(|byte| *byte == 0).next()?;
        (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
    });
    Ok(texts.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::http::Request as HttpRequest;

    use super::*;

    fn parts(path: &str) -> Parts {
        HttpRequest::get(path).body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_is_being_answered_stands_in_the_file_and_what_was_does_not() {
        let folder = std::env::temp_dir().join(format!("serving-{}", std::process::id()));
        let serving = Serving::noting(Some(File::create(&folder).unwrap()));
        let first = serving.begin(&parts("/orders/list"), "r1");
        let second = serving.begin(&parts(&format!("/{}", "x".repeat(5_000))), "r2");
        first.about().operation("Orders");
        let left = left_in(&folder).unwrap();
        assert_eq!(left[0], "GET /orders/list r1 Orders");
        assert!(
            left[1].ends_with("xx r2") && left[1].len() < PLACE,
            "{left:?}"
        );
        let about = first.about();
        drop((first, second));
        about.operation("Late");
        assert!(left_in(&folder).unwrap().is_empty());
        let _third = serving.begin(&parts("/"), "r3");
        assert_eq!(left_in(&folder).unwrap(), ["GET / r3"]);
        std::fs::remove_file(folder).unwrap();
    }

    #[test]
    fn a_request_that_takes_long_is_told_once() {
        let serving = Serving::noting(None);
        let _served = serving.begin(&parts("/graphql"), "r");
        assert!(serving.0.long(LONG).is_empty());
        let told = serving.0.long(Duration::ZERO);
        assert_eq!(told[0].0, "GET /graphql r");
        assert!(serving.0.long(Duration::ZERO).is_empty());
    }
}
