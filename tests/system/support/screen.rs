//! How a page in a headless Chromium looks: screenshots, other screen widths, and dark mode.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::browser::Page;

/// Saves a screenshot of a page for people to look at.
pub(crate) async fn picture(page: &mut Page, name: &str) {
    let parameters = json!({ "format": "png", "captureBeyondViewport": true });
    let shot = page.call("Page.captureScreenshot", parameters).await;
    let png = STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
}

/// Shows a page in dark mode.
pub(crate) async fn darkened(page: &mut Page) {
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    page.call("Emulation.setEmulatedMedia", dark).await;
}

/// Sets the screen width of a page in pixels, and waits until the page fits.
pub(crate) async fn fits(page: &mut Page, width: u32) {
    let screen =
        json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600 });
    page.call("Emulation.setDeviceMetricsOverride", screen)
        .await;
    page.until(
        "it fits the screen",
        &format!("innerWidth === {width} && document.documentElement.scrollWidth <= {width}"),
    )
    .await;
}
