//! A page that says in a sentence what a browser met, and where to go from there.

use crate::Graph;

/// What a person is told, in place of the JSON that a program gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Over the title: an HTTP status, or who answers.
    pub mark: String,
    /// What it is.
    pub title: String,
    /// What happened, and what would be right.
    pub text: String,
    /// Where to go.
    pub links: Vec<Link>,
}

/// Somewhere to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// A path from the root.
    pub path: &'static str,
    /// What is there.
    pub what: &'static str,
}

const GRAPHIQL: Link = Link {
    path: "/graphql",
    what: "GraphiQL, to try queries",
};
const HEALTH: Link = Link {
    path: "/actuator/health",
    what: "Health",
};
const METRICS: Link = Link {
    path: "/actuator/prometheus",
    what: "Metrics",
};
const API: Link = Link {
    path: "/swagger-ui/",
    what: "API page of the REST routes",
};
const TOPICS: Link = Link {
    path: crate::ASYNCAPI_PATH,
    what: "Page of the topics and their events",
};
const START: Link = Link {
    path: "/",
    what: "Start page",
};

/// Where to go on the gateway.
pub const GATEWAY_LINKS: [Link; 4] = [START, GRAPHIQL, HEALTH, METRICS];
/// Where to go on a service.
pub const SERVICE_LINKS: [Link; 6] = [START, GRAPHIQL, API, TOPICS, HEALTH, METRICS];

impl Explanation {
    /// Why a request was not answered.
    #[must_use]
    pub fn of_status(status: u16, title: &str, text: &str, links: &[Link]) -> Self {
        Self {
            mark: status.to_string(),
            title: title.to_owned(),
            text: text.to_owned(),
            links: links.to_vec(),
        }
    }

    /// The first page of a service.
    #[must_use]
    pub fn of_service(graph: Graph) -> Self {
        let text = match graph {
            Graph::Accounts => {
                "The system of record of customers. It states each change of a customer once, as an event in Kafka."
            }
            Graph::Orders => {
                "The system of record of orders. It keeps its own replica of customers, so it answers while accounts is away."
            }
            Graph::Gateway => "One graph over accounts and orders.",
        };
        Self {
            mark: "Tandem".to_owned(),
            title: graph.name().to_owned(),
            text: text.to_owned(),
            // Without the first, which is where the reader is.
            links: SERVICE_LINKS[1..].to_vec(),
        }
    }

    /// As HTML.
    #[must_use]
    pub fn page(&self) -> String {
        let links: String = self
            .links
            .iter()
            .map(|link| {
                format!(
                    "<li><a href=\"{0}\">{1}</a> <code>{0}</code></li>\n",
                    link.path, link.what
                )
            })
            .collect();
        include_str!("../pages/explanation.html")
            .replace("{links}", &links)
            .replace("{mark}", &escaped(&self.mark))
            .replace("{title}", &escaped(&self.title))
            .replace("{text}", &escaped(&self.text))
    }
}

/// Text as it stands in HTML, also within quotes. Braces too: a text is never taken for a place to fill in.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '{' => safe.push_str("&#123;"),
            '}' => safe.push_str("&#125;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_held_is_text_in_the_page_and_nothing_else() {
        let hostile = "/<script>alert('x')</script>{links}\"&";
        let page = Explanation::of_status(404, "Not Found", hostile, &GATEWAY_LINKS).page();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains(
            "/&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&#123;links&#125;&quot;&amp;"
        ));
        assert!(!page.contains('{'), "{page}");
    }

    #[test]
    fn each_service_says_where_to_go() {
        let page = Explanation::of_service(Graph::Orders).page();
        assert!(page.contains("href=\"/swagger-ui/\"") && page.contains("href=\"/graphql\""));
        assert!(page.contains("href=\"/asyncapi\""));
        let page = Explanation::of_status(404, "Not Found", "", &GATEWAY_LINKS).page();
        assert!(!page.contains("swagger"));
    }
}
