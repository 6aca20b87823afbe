//! What the benchmarks share: a request and a median.

use serde_json::{Value, json};

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends an operation and waits for its answer, which must have no errors.
pub async fn graphql(client: &reqwest::Client, url: &str, query: &str, variables: Value) {
    let body = json!({"query": query, "variables": variables}).to_string();
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    assert!(!text.contains("\"errors\""), "{text}");
}
