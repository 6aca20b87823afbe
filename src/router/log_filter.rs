//! Limits the gateway's log. At `debug` and below, the router and its libraries log what requests carry (variables,
//! bodies, card numbers), so no setting may enable those levels for them.

/// The filter of the gateway's log, and the level of targets that it does not name. Our own code logs at the requested
/// level, all other code at no more than `info`.
pub(super) fn bounded(asked: &str) -> (String, &'static str) {
    let mut everything = "info";
    let mut directives = Vec::new();
    for directive in asked.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (target, level) = match directive.rsplit_once('=') {
            Some((target, level)) => (Some(target), level),
            None => (None, directive),
        };
        match (target, bounded_level(level)) {
            (None, Some(bounded)) => {
                everything = bounded;
                directives.push(format!("tandem={level}"));
            }
            (_, _) if directive.starts_with("tandem") => directives.push(directive.to_owned()),
            (Some(target), bounded) => {
                directives.push(format!("{target}={}", bounded.unwrap_or(level)));
            }
            // A target without a level would enable all levels.
            (None, None) => directives.push(format!("{directive}=info")),
        }
    }
    directives.push(everything.to_owned());
    (directives.join(","), everything)
}

/// The level, limited to `info`. `None` if the text is no level. The router has no level below `error`.
fn bounded_level(level: &str) -> Option<&'static str> {
    match level.to_ascii_lowercase().as_str() {
        "off" | "0" | "error" | "1" => Some("error"),
        "warn" | "2" => Some("warn"),
        "info" | "3" | "debug" | "4" | "trace" | "5" => Some("info"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_code_says_no_more_than_info_whatever_is_asked() {
        for (asked, filter, level) in [
            ("debug", "tandem=debug,info", "info"),
            ("TRACE", "tandem=TRACE,info", "info"),
            ("warn", "tandem=warn,warn", "warn"),
            (
                "warn, tandem_front_door=trace,router::coerce_variables=trace,hyper=error",
                "tandem=warn,tandem_front_door=trace,router::coerce_variables=info,hyper=error,warn",
                "warn",
            ),
            ("router,tandem", "router=info,tandem,info", "info"),
        ] {
            assert_eq!(bounded(asked), (filter.to_owned(), level), "{asked}");
        }
    }
}
