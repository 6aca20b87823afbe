//! Whether somebody who asks is a person with a browser or a program (RFC 9110, 12.5.1).

/// Whether a value of the header `Accept` names HTML, and likes no other text that a server of ours has better.
///
/// `*/*` alone is a program: a browser names HTML.
#[must_use]
pub fn prefers_html(accept: &str) -> bool {
    let mut html = 0.0_f32;
    let mut other = 0.0_f32;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok())
            .unwrap_or(1.0);
        match media_type.as_str() {
            "text/html" | "application/xhtml+xml" => html = html.max(quality),
            "text/event-stream" | "multipart/mixed" => other = other.max(quality),
            json if json.ends_with("/json") || json.ends_with("+json") => {
                other = other.max(quality);
            }
            _ => {}
        }
    }
    html > 0.0 && html >= other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_a_person_and_others_are_programs() {
        for browser in [
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "text/html",
            "application/json;q=0.9, text/html",
        ] {
            assert!(prefers_html(browser), "{browser}");
        }
        for program in [
            "",
            "*/*",
            "application/json",
            "application/json, text/html;q=0.5",
            "application/problem+json, text/html;q=0.9",
            "text/event-stream, text/html;q=0.1",
            "text/html;q=0",
            "text/html;q=none;q=0",
        ] {
            assert!(!prefers_html(program), "{program}");
        }
    }
}
