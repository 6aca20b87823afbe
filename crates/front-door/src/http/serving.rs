//! The requests that are being served now. They show what a process was doing when it hung or died.
//!
//! A separate thread logs requests that take long: if the serving threads are stuck, nothing else can. The supervisor
//! of the process may name a file ([`FILE`]). It lists each request from its start to its end, so what it contains when
//! the process has died was being served.
//!
//! Each request has its own slot in the file, which is written at its start and cleared at its end. No lock is held
//! for these writes. The operation's name becomes known only later. The thread writes it if the request is still being
//! answered a moment later.
#![expect(clippy::disallowed_methods, reason = "connections are real")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::request::Parts;

/// The variable that names the file.
pub const FILE: &str = "TANDEM_SERVING_FILE";
/// The size of a request's slot in the file, in bytes.
const PLACE: usize = 256;
/// The longest path that is noted, in bytes.
const LONGEST_PATH: usize = 120;
/// The longest operation name that is noted, in characters.
const LONGEST_NAME: usize = 64;
/// A request that takes this long is logged.
const LONG: Duration = Duration::from_secs(5);
/// How often the thread checks. It writes what is known of requests that have been served for at least this long.
const LOOK: Duration = Duration::from_millis(250);
/// The slots are divided into this many parts, each with its own lock.
const PARTS: usize = 16;

/// All requests that are being served.
#[derive(Debug, Clone)]
pub(crate) struct Serving(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    parts: [Mutex<Requests>; PARTS],
    /// Counts requests, to distribute them over the parts.
    begun: AtomicUsize,
    notes: Option<Notes>,
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
    /// Whether the file has all that is known.
    is_noted: bool,
}

/// The slot of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    part: usize,
    at: usize,
}

/// The file.
#[derive(Debug)]
struct Notes {
    file: File,
    #[cfg(test)]
    written: AtomicUsize,
}

impl Notes {
    fn of(file: File) -> Self {
        Self {
            file,
            #[cfg(test)]
            written: AtomicUsize::new(0),
        }
    }

    /// Writes the text of a slot; an empty text clears it. Best effort: it is for the case that everything else has
    /// failed.
    fn write(&self, place: Place, what: &str) {
        let mut bytes = [0; PLACE];
        let length = what.len().min(PLACE - 1);
        for (byte, written) in bytes.iter_mut().zip(what.bytes().take(length)) {
            *byte = written;
        }
        #[cfg(test)]
        self.written.fetch_add(1, Ordering::Relaxed);
        let begin = (place.at * PARTS + place.part) * PLACE;
        // This includes the zero that terminates the text.
        let text = bytes.get(..=length).unwrap_or_default();
        let _ = self.file.write_all_at(text, begin as u64);
    }
}

/// One request. It counts as being served until this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    shared: Arc<Shared>,
    place: Place,
}

/// Adds information about a request that may have been answered meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct About(Weak<Served>);

impl Serving {
    /// Uses the file that the environment names, if it names one.
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
            parts: Default::default(),
            begun: AtomicUsize::new(0),
            notes: file.map(Notes::of),
        }))
    }

    /// Notes that a request starts to be served.
    pub(crate) fn begin(&self, parts: &Parts, id: &str) -> Arc<Served> {
        let path = parts.uri.path();
        let path = if path.len() > LONGEST_PATH {
            // The path may contain more than ASCII, so the cut must be at the boundary of a character.
            let mut ends = (0..=LONGEST_PATH).rev();
            ends.find_map(|end| path.get(..end)).unwrap_or_default()
        } else {
            path
        };
        let what = format!("{} {path} {id}", parts.method);
        let place = self.0.take_place();
        if let Some(notes) = &self.0.notes {
            notes.write(place, &what);
        }
        let request = Request {
            since: Instant::now(),
            what,
            is_told: false,
            is_noted: true,
        };
        if let Some(empty) = self.0.part(place.part).places.get_mut(place.at) {
            *empty = Some(request);
        }
        Arc::new(Served {
            shared: Arc::clone(&self.0),
            place,
        })
    }
}

impl Shared {
    fn part(&self, part: usize) -> MutexGuard<'_, Requests> {
        let [first, ..] = &self.parts;
        let part = self.parts.get(part).unwrap_or(first);
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_place(&self) -> Place {
        let part = self.begun.fetch_add(1, Ordering::Relaxed) % PARTS;
        let mut requests = self.part(part);
        let at = requests.free.pop().unwrap_or_else(|| {
            requests.places.push(None);
            requests.places.len() - 1
        });
        Place { part, at }
    }

    /// Writes what has become known of requests that have been served for this long.
    fn note(&self, long: Duration) {
        let Some(notes) = &self.notes else {
            return;
        };
        for part in 0..PARTS {
            // The lock is held while writing. A request that ends meanwhile clears its slot afterwards.
            let mut requests = self.part(part);
            for (at, request) in requests.places.iter_mut().enumerate() {
                if let Some(request) = request
                    && !request.is_noted
                    && request.since.elapsed() >= long
                {
                    request.is_noted = true;
                    notes.write(Place { part, at }, &request.what);
                }
            }
        }
    }

    /// Requests that have taken long and were not logged yet.
    fn long(&self, long: Duration) -> Vec<(String, Duration)> {
        let mut told = Vec::new();
        for part in 0..PARTS {
            let mut requests = self.part(part);
            let waiting = requests.places.iter_mut().flatten();
            let waiting =
                waiting.filter(|request| !request.is_told && request.since.elapsed() >= long);
            told.extend(waiting.map(|request| {
                request.is_told = true;
                (request.what.clone(), request.since.elapsed())
            }));
        }
        told
    }
}

impl Served {
    /// A handle for noting the name of the request's operation once it is known.
    pub(crate) fn about(self: &Arc<Self>) -> About {
        About(Arc::downgrade(self))
    }
}

impl About {
    /// Notes the name of the request's operation.
    pub(crate) fn operation(&self, name: &str) {
        let Some(served) = self.0.upgrade() else {
            return;
        };
        let mut requests = served.shared.part(served.place.part);
        if let Some(Some(request)) = requests.places.get_mut(served.place.at) {
            request.what.push(' ');
            request.what.extend(name.chars().take(LONGEST_NAME));
            request.is_noted = false;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let Place { part, at } = self.place;
        if let Some(place) = self.shared.part(part).places.get_mut(at) {
            *place = None;
        }
        if let Some(notes) = &self.shared.notes {
            notes.write(self.place, "");
        }
        // Only now may another request use the slot.
        self.shared.part(part).free.push(at);
    }
}

fn watch(watched: &Weak<Shared>) {
    loop {
        thread::sleep(LOOK);
        let Some(shared) = watched.upgrade() else {
            return;
        };
        shared.note(LOOK);
        for (request, time) in shared.long(LONG) {
            tracing::warn!(
                request,
                seconds = time.as_secs(),
                "a request is still being answered"
            );
        }
    }
}

/// The requests in the file of a process that has died: those that it had not completed.
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
        serving.0.note(Duration::ZERO);
        let left = left_in(&folder).unwrap();
        assert_eq!(left[0], "GET /orders/list r1 Orders");
        assert!(
            left[1].ends_with("xx r2") && left[1].len() < PLACE,
            "{left:?}"
        );
        let about = first.about();
        drop((first, second));
        about.operation("Late");
        serving.0.note(Duration::ZERO);
        assert!(left_in(&folder).unwrap().is_empty());
        let _third = serving.begin(&parts("/"), "r3");
        assert_eq!(left_in(&folder).unwrap(), ["GET / r3"]);
        std::fs::remove_file(folder).unwrap();
    }

    #[test]
    fn a_request_is_written_at_its_beginning_and_at_its_end_alone() {
        let folder = std::env::temp_dir().join(format!("serving-twice-{}", std::process::id()));
        let serving = Serving::noting(Some(File::create(&folder).unwrap()));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let serving = serving.clone();
                thread::spawn(move || {
                    for number in 0..100 {
                        let served = serving.begin(&parts("/graphql"), "r");
                        served.about().operation(&format!("O{thread}{number}"));
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let notes = serving.0.notes.as_ref().unwrap();
        assert_eq!(notes.written.load(Ordering::Relaxed), 2 * 4 * 100);
        assert!(left_in(&folder).unwrap().is_empty());
        // There are as many slots as concurrent requests, and no more.
        assert!(std::fs::metadata(&folder).unwrap().len() <= (4 * PARTS * PLACE) as u64);
        std::fs::remove_file(folder).unwrap();
    }

    #[test]
    fn a_path_is_told_up_to_a_length_whatever_is_in_it() {
        let serving = Serving::noting(None);
        for path in ["/".to_owned() + &"é".repeat(3_000), "x".repeat(9_000)] {
            let path = format!("/{}", path.trim_start_matches('/'));
            let _served = serving.begin(&parts(&path), "r");
            let told = serving.0.long(Duration::ZERO);
            let told = told[0].0.strip_prefix("GET ").unwrap();
            let told = told.strip_suffix(" r").unwrap();
            assert!(path.starts_with(told), "{told}");
            assert!((LONGEST_PATH - 3..=LONGEST_PATH).contains(&told.len()));
        }
        let _served = serving.begin(&parts("/é"), "r");
        assert_eq!(serving.0.long(Duration::ZERO)[0].0, "GET /é r");
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
