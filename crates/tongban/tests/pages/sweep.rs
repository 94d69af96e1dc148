//! Looks a page over in both languages, both themes, wide and narrow: axe-core's rules for WCAG 2.2 A and AA, nothing beyond the edge
//! at 320 pixels (which is 1280 at 400 %), no text that is missing, no more to load than a page may be. With `TONGBAN_SCREENSHOTS` set to a
//! folder, pictures of all that are kept there (`cargo xtask screenshots`).

use crate::browser::Browser;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The version of axe-core (MPL-2.0) the pages are held to; npm fetches it, it is no part of the product.
const AXE: &str = "axe-core@4.14.1";
/// The most a citizen's page may weigh over the wire, its scripts, and its requests.
const BYTES_MAX: u64 = 100 << 10;
const SCRIPT_BYTES_MAX: u64 = 20 << 10;
const REQUESTS_MAX: u64 = 15;

pub struct Sweep {
    axe: Option<String>,
    shots: Option<PathBuf>,
    wrong: Vec<String>,
    looked_at: usize,
}

/// axe-core out of npm, kept under `target/tmp`.
fn axe() -> Option<String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe");
    let file = home.join("node_modules/axe-core/axe.min.js");
    if !file.exists() {
        std::fs::create_dir_all(&home).ok()?;
        let arguments = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix"];
        let npm = Command::new("npm").args(arguments).arg(&home).arg(AXE).stdout(Stdio::null()).status();
        npm.ok().filter(|status| status.success())?;
    }
    std::fs::read_to_string(file).ok()
}

impl Sweep {
    pub fn new() -> Self {
        let axe = axe();
        if axe.is_none() {
            println!("skipped: axe-core cannot be had from npm; all else of the pages is looked at");
        }
        let shots = std::env::var_os("TONGBAN_SCREENSHOTS").map(PathBuf::from);
        Self { axe, shots, wrong: Vec::new(), looked_at: 0 }
    }

    /// Looks at one page, as whoever is signed in sees it.
    pub async fn look(&mut self, browser: &Browser, name: &str, path: &str) -> Result<()> {
        let with = if path.contains('?') { '&' } else { '?' };
        for language in ["zh-CN", "en"] {
            // the largest first: what a page loads is counted once
            let mut first = true;
            browser.tools("Emulation.setDeviceMetricsOverride", metrics(1280)).await?;
            browser.go(&format!("{path}{with}lang={language}")).await?;
            if let Some(axe) = &self.axe {
                browser.script(axe).await?;
            }
            for (theme, width) in [("light", 1280), ("dark", 1280), ("dark", 320), ("light", 320)] {
                let features = json!([{ "name": "prefers-color-scheme", "value": theme }]);
                browser.tools("Emulation.setEmulatedMedia", json!({ "features": features })).await?;
                browser.tools("Emulation.setDeviceMetricsOverride", metrics(width)).await?;
                let here = format!("{name} {language} {theme} {width}");
                self.judge(browser, &here, std::mem::take(&mut first)).await.with_context(|| here.clone())?;
                self.looked_at += 1;
                if let Some(shots) = &self.shots {
                    let shot = browser
                        .tools(
                            "Page.captureScreenshot",
                            json!({ "captureBeyondViewport": true, "format": "png" }),
                        )
                        .await?;
                    std::fs::create_dir_all(shots)?;
                    let file = shots.join(format!("{}.png", here.replace(' ', "-")));
                    std::fs::write(file, base64(shot["data"].as_str().context("a picture")?)?)?;
                }
            }
        }
        Ok(())
    }

    async fn judge(&mut self, browser: &Browser, here: &str, weigh: bool) -> Result<()> {
        let seen = browser
            .script(
                "const r = performance.getEntriesByType('resource'), n = performance.getEntriesByType('navigation')[0];
                const size = list => list.reduce((sum, e) => sum + e.transferSize, 0);
                return { over: document.documentElement.scrollWidth - innerWidth, text: document.documentElement.textContent,
                    bytes: size(r) + n.transferSize, scripts: size(r.filter(e => e.name.endsWith('.js'))), requests: r.length + 1 }",
            )
            .await?;
        let number = |key: &str| seen[key].as_i64().unwrap_or_default();
        if number("over") > 0 {
            self.wrong.push(format!("{here}: {} pixels beyond the edge", number("over")));
        }
        if seen["text"].as_str().unwrap_or_default().contains("Unknown localization") {
            self.wrong.push(format!("{here}: a text is missing"));
        }
        // the receipt's verifier is a program of its own and aside
        if weigh && !here.starts_with("verify") {
            let limits = [("bytes", BYTES_MAX), ("scripts", SCRIPT_BYTES_MAX), ("requests", REQUESTS_MAX)];
            for (what, most) in limits {
                if number(what) as u64 > most {
                    self.wrong.push(format!("{here}: {} {what}, at most {most}", number(what)));
                }
            }
        }
        if self.axe.is_some() {
            let rules = "return axe.run(document, { resultTypes: ['violations'], runOnly: { type: 'tag',
                values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] } }).then(r => r.violations.map(v =>
                v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary).join(' | ')))";
            let found = browser.script(rules).await?;
            let found = found.as_array().context("axe-core answers with a list")?;
            self.wrong.extend(found.iter().filter_map(Value::as_str).map(|v| format!("{here}: {v}")));
        }
        Ok(())
    }

    /// The instrument itself: a picture without words and a line that is too long are found on this very page.
    pub async fn sees_what_is_wrong(&self, browser: &Browser) -> Result<()> {
        let mut other = Self { axe: self.axe.clone(), shots: None, wrong: Vec::new(), looked_at: 0 };
        browser.tools("Emulation.setDeviceMetricsOverride", metrics(320)).await?;
        browser.go("/explorer?lang=en").await?;
        if let Some(axe) = &self.axe {
            browser.script(axe).await?;
        }
        browser
            .script(
                "const i = document.createElement('img'); i.src = 'data:,'; i.width = 900; i.height = 9;
                document.querySelector('main').append(i)",
            )
            .await?;
        other.judge(browser, "planted", false).await?;
        let found = other.wrong.join(" ");
        let rules = other.axe.is_none() || found.contains("image-alt");
        ensure!(rules && found.contains("beyond the edge"), "what was planted is not found: {found}");
        Ok(())
    }

    /// Fails with all that was wrong.
    pub fn done(self) -> Result<()> {
        println!("{} views looked at", self.looked_at);
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        Ok(())
    }
}

fn metrics(width: u32) -> Value {
    json!({ "width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": false })
}

fn base64(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
}
