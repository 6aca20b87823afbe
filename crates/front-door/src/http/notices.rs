//! Headers that every answer on some paths carries, whether the front door refuses the request or the inner server
//! answers it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Paths and the headers of their answers.
#[derive(Debug, Clone, Default)]
pub struct Notices(Vec<Notice>);

#[derive(Debug, Clone)]
struct Notice {
    /// The whole path, or the path up to its last segment.
    begin: &'static str,
    /// Whether the last segment may be any.
    is_open: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Notices {
    /// Adds these headers for a path such as `/orders/list`, or `/orders/order/{id}`, where the last segment may be
    /// any.
    #[must_use]
    pub fn with(mut self, path: &'static str, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        let (begin, is_open) = match path.split_once('{') {
            Some((begin, _)) => (begin, true),
            None => (path, false),
        };
        self.0.push(Notice {
            begin,
            is_open,
            headers,
        });
        self
    }

    /// Adds the headers of this path to an answer, except those that it already has.
    pub(crate) fn add_to(&self, path: &str, answer: &mut HeaderMap) {
        for notice in self.0.iter().filter(|notice| notice.is_of(path)) {
            for (name, value) in &notice.headers {
                if !answer.contains_key(name) {
                    answer.insert(name.clone(), value.clone());
                }
            }
        }
    }
}

impl Notice {
    fn is_of(&self, path: &str) -> bool {
        path.strip_prefix(self.begin)
            .is_some_and(|rest| match self.is_open {
                true => !rest.is_empty() && !rest.contains('/'),
                false => rest.is_empty(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_on_a_path_with_a_notice_says_it_once_and_others_do_not() {
        let name = HeaderName::from_static("deprecation");
        let header = vec![(name.clone(), HeaderValue::from_static("@1"))];
        let notices = Notices::default()
            .with("/orders/list", header.clone())
            .with("/orders/order/{id}", header);
        for path in ["/orders/list", "/orders/order/1", "/orders/order/a%2Fb"] {
            let mut answer = HeaderMap::new();
            notices.add_to(path, &mut answer);
            assert_eq!(answer[&name], "@1", "{path}");
            answer.insert(name.clone(), HeaderValue::from_static("@2"));
            notices.add_to(path, &mut answer);
            assert_eq!(answer.get_all(&name).iter().count(), 1);
            assert_eq!(answer[&name], "@2");
        }
        for other in [
            "/",
            "/orders",
            "/orders/lists",
            "/orders/list/",
            "/orders/order/",
            "/orders/order/1/x",
        ] {
            let mut answer = HeaderMap::new();
            notices.add_to(other, &mut answer);
            assert!(answer.is_empty(), "{other}");
        }
    }
}
