//! Identification by face on a running consortium: at the API, and on the clerk's page. With photographs of `../shared/faces` a party
//! is identified and their receipt verified; without them, all that must be refused is.

use ::face::*;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tongban::client::Client;

#[path = "../../face/tests/actor/mod.rs"]
mod actor;
#[path = "common/service.rs"]
mod service;

use service::Service;

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn count(told: &[Value], what: &str) -> usize {
    told.iter().filter(|n| n["what"] == what).count()
}

/// A calibration of the shipped model, as a bureau's would be.
fn calibration(path: &Path) {
    let chosen =
        CurvePoint { threshold: 0.45, false_accept: 0.0, false_accept_at_most: 0.0009, false_reject: 0.0 };
    let calibration = Calibration {
        format: FORMAT,
        model: Networks::shipped().unwrap().pins(),
        model_folder: None,
        liveness: None,
        wished_false_accept: 0.001,
        chosen,
        people: 90,
        photographs: 200,
        day: "2026-11-27".into(),
    };
    std::fs::write(path, serde_json::to_vec(&calibration).unwrap()).unwrap();
}

/// A number that passes its check digit, of nobody.
fn number(born: &str, serial: &str) -> String {
    let first17 = format!("990000{born}{serial}");
    let check = model::identifier::resident_check(first17.as_bytes()).unwrap();
    format!("{first17}{}", char::from(check))
}

/// A page's session, by hand: what a browser does.
struct Page {
    http: reqwest::Client,
    base: String,
    cookie: String,
}

impl Page {
    async fn clerk(base: &str) -> Result<Self> {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let entered = http.post(format!("{base}/demo/enter")).form(&[("who", "clerk")]).send().await?;
        let cookie =
            entered.headers()["set-cookie"].to_str()?.split(';').next().context("a cookie")?.to_owned();
        Ok(Self { http, base: base.to_owned(), cookie })
    }

    async fn get(&self, path: &str) -> Result<String> {
        let request = self.http.get(format!("{}{path}", self.base)).header("cookie", &self.cookie);
        Ok(request.send().await?.text().await?)
    }

    async fn post(&self, path: &str, body: reqwest::RequestBuilder) -> Result<(u16, Value)> {
        let answer = body.header("cookie", &self.cookie).send().await.with_context(|| path.to_owned())?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_slice(&answer.bytes().await?).unwrap_or_default()))
    }

    async fn challenge(&self, at: &str, csrf: &str) -> Result<(u16, Value)> {
        self.post(at, self.http.post(format!("{}{at}", self.base)).form(&[("csrf", csrf)])).await
    }

    async fn answer(&self, at: &str, body: (String, Vec<u8>)) -> Result<(u16, Value)> {
        let request =
            self.http.post(format!("{}{at}", self.base)).header("content-type", body.0).body(body.1);
        self.post(at, request).await
    }
}

/// A multipart form (RFC 7578).
fn form(texts: &[(&str, &str)], document: &[u8], frames: &[Vec<u8>]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    let mut part = |head: String, content: &[u8]| {
        body.extend_from_slice(
            format!("--edge\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    texts.iter().for_each(|(name, value)| part(format!("name=\"{name}\""), value.as_bytes()));
    part("name=\"document\"; filename=\"document.png\"".into(), document);
    frames.iter().for_each(|frame| part("name=\"frame\"; filename=\"frame.png\"".into(), frame));
    body.extend_from_slice(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge".into(), body)
}

/// An application that nobody has to own.
fn application(last: &str) -> Value {
    json!({ "unit": format!("110108001001GB00001F0001{last}"), "contract": format!("HT2026-99{last}") })
}

const TIMES: &str = "0,1500,3000,4500,6000";

async fn up(url: &str) {
    let begun = Instant::now();
    while reqwest::get(url).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{url} did not come up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The bureau's engineer enrols a new window's terminal; it identifies as many people a day as it may; it is taken back.
async fn a_terminal_is_enrolled_limited_and_revoked(
    client: &Client,
    bureau: &Path,
    scratch: &Path,
) -> Result<()> {
    let run = |arguments: &[&str]| -> Result<(Option<i32>, Value)> {
        let out = Command::new(env!("CARGO_BIN_EXE_tongban"))
            .args(["terminal"])
            .args(arguments)
            .arg("--json")
            .env("TONGBAN_PASSPHRASE", tongban::demo::PASSPHRASE)
            .output()?;
        Ok((out.status.code(), serde_json::from_slice(&out.stdout).unwrap_or_default()))
    };
    let file = scratch.join("window-3.key");
    let (file_name, config) = (file.display().to_string(), bureau.join("node.toml").display().to_string());
    let (code, made) = run(&["key", "--out", &file_name])?;
    let key = made["key"].as_str().context("a key")?.to_owned();
    assert_eq!(
        (code, run(&["key", "--out", &file_name])?.0),
        (Some(0), Some(2)),
        "a key is never written over"
    );
    let seed = crypto::load_secret(&file, tongban::demo::PASSPHRASE)?;
    let own = crypto::SigningKey::from_seed(model::Suite::International, seed).context("a key")?;
    assert_eq!(own.public().to_string(), key);
    assert!(!std::fs::read(&file)?.windows(32).any(|w| w == seed), "no key lies open on a disk");
    let window = identity::Terminal::new(own);

    let status: Value = client.get("/api/v1/status").await?;
    let chain = status["chain_id"].as_str().context("a ledger")?.parse().map_err(anyhow::Error::msg)?;
    let identify = async |last: &str| -> Result<Value> {
        let people = json!({ "seller": { "id": number("19700203", "131"), "name": "甲" },
            "buyer": { "id": number("19900203", "126"), "name": "乙" } });
        let case = client.open_case("house-transfer", application(last), people).await?;
        let view: Value = client.get(&format!("/api/v1/cases/{case}")).await?;
        let parties = view["parties"].as_array().into_iter().flatten();
        let subject = parties
            .filter(|p| p["role"] == "seller")
            .find_map(|p| p["subject"].as_str())
            .context("a seller")?;
        let at_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
        let role = "seller".parse().map_err(anyhow::Error::msg)?;
        let (case_id, subject) =
            (case.parse().map_err(anyhow::Error::msg)?, subject.parse().map_err(anyhow::Error::msg)?);
        let who = identity::Identified { chain, case: case_id, role: &role, subject, at_ms };
        let (assertion, signature) = window.vouch_at_counter(&who);
        let body = json!({ "assertion": hex::encode(model::encode(&assertion)), "signature": hex::encode(signature) });
        client.post(&format!("/api/v1/cases/{case}/identify"), body).await
    };
    let code_of =
        |result: Result<Value>| result.unwrap_err().downcast::<tongban::client::Refused>().unwrap().code;
    assert_eq!(code_of(identify("1001").await), "unknown_terminal");
    assert_eq!(run(&["enrol", &key, "--config", &config, "--dry-run"])?.0, Some(0));
    assert_eq!(code_of(identify("1002").await), "unknown_terminal");
    assert_eq!(run(&["enrol", &key, "--config", &config])?.0, Some(0));
    for case in ["1003", "1004", "1005"] {
        identify(case).await?;
    }
    assert_eq!(code_of(identify("1006").await), "terminal_limit");
    let (_, listed) = run(&["list", "--config", &config])?;
    let own = listed["terminals"].as_array().into_iter().flatten().find(|t| t["key"] == key.as_str());
    let own = own.with_context(|| listed.to_string())?;
    assert_eq!((&own["active"], &own["today"], &own["per_day"]), (&json!(true), &json!(3), &json!(3)));
    assert_eq!(run(&["revoke", &key, "--config", &config])?.0, Some(0));
    let (_, listed) = run(&["list", "--config", &config])?;
    let revoked = listed["terminals"].as_array().into_iter().flatten().find(|t| t["key"] == key.as_str());
    assert_eq!(revoked.context("it stays on record")?["active"], false);
    Ok(())
}

/// A picture of nobody.
fn grey(shade: u8) -> Vec<u8> {
    let (w, h) = (320, 240);
    let rgb = (0..w * h).flat_map(|i| [shade, (i % 200) as u8, (i / w) as u8]).collect();
    actor::png(&Picture::of_rgb(w, h, rgb).unwrap())
}

fn shown<'a>(frames: &'a [Vec<u8>], challenge: &'a str, number: &'a str) -> identity::FaceShown<'a> {
    let timed = frames.iter().enumerate().map(|(i, f)| (1500 * i as u64, f.as_slice()));
    identity::FaceShown { challenge, number, document: &frames[0], frames: timed.collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_is_identified_by_face_or_goes_another_way() -> Result<()> {
    gateway::use_tls();
    let dir = tempfile::tempdir()?;
    let (data, settings) = (dir.path().join("data"), dir.path().join("face.json"));
    calibration(&settings);
    let port = tongban::demo::free_addresses(1)?[0].port();
    let service = Service::start().await?;
    let _demo = Stopped(
        Command::new(env!("CARGO_BIN_EXE_tongban"))
            .args(["demo", "--port", &port.to_string(), "--data"])
            .arg(&data)
            .env("TONGBAN_FACE", &settings)
            .env("TONGBAN_TERMINAL_PER_DAY", "3")
            .env("TONGBAN_NOTICES", service.address())
            .env("TONGBAN_NOTICES_TOKEN", "let-me-in")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let base = format!("http://127.0.0.1:{port}");
    up(&format!("{base}/healthz")).await;
    let begun = Instant::now();
    while !data.join("receipts").read_dir().is_ok_and(|mut d| d.next().is_some()) {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "the demo ran its first case");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let bureau =
        tongban::setup::node_dir(&data, &tongban::demo::HANDLER.parse().map_err(anyhow::Error::msg)?);
    let config = node::Config::read(&bureau.join("node.toml"))?;
    let token = config.api_token.clone().context("the bureau's API has a token")?;
    let client = Client::new(format!("127.0.0.1:{port}").parse()?, &token);

    let (seller, child) = (number("19800203", "123"), number("20200203", "124"));
    let people = json!({ "seller": { "id": seller, "name": "甲" }, "buyer": { "id": child, "name": "乙" } });
    let case = client.open_case("house-transfer", application("0001"), people).await?;
    let at = |role: &str| format!("/case/{case}/face/{role}");
    let api = |role: &str| format!("/api/v1/cases/{case}/face/{role}");
    let refused = |e: anyhow::Error| e.downcast::<tongban::client::Refused>().unwrap().code;

    // a child's face is not processed; the clerk's page does not offer it
    assert_eq!(refused(client.post(&api("child"), json!({})).await.unwrap_err()), "not_found");
    assert_eq!(refused(client.post(&api("buyer"), json!({})).await.unwrap_err()), "face_minor");
    // nobody is identified by a terminal's word for a face alone
    let terminal = identity::Terminal::new(crypto::SigningKey::random(model::Suite::International));
    let status: Value = client.get("/api/v1/status").await?;
    let view: Value = client.get(&format!("/api/v1/cases/{case}")).await?;
    let party = view["parties"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["role"] == "seller")
        .context("a seller")?;
    let role = "seller".parse().unwrap();
    let who = identity::Identified {
        chain: status["chain_id"].as_str().unwrap().parse().unwrap(),
        case: case.parse().unwrap(),
        role: &role,
        subject: party["subject"].as_str().unwrap().parse().unwrap(),
        at_ms: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64,
    };
    let frames: Vec<_> = (0..5).map(|i| grey(20 + i)).collect();
    let (assertion, signature, _) = terminal.vouch_for_face(&who, 1, &shown(&frames, "", ""));
    let word =
        json!({ "assertion": hex::encode(model::encode(&assertion)), "signature": hex::encode(signature) });
    assert_eq!(
        refused(client.post(&format!("/api/v1/cases/{case}/identify"), word).await.unwrap_err()),
        "bad_request"
    );

    // the API: another number, other frames than were signed, no face; each is one try
    let raw = reqwest::Client::new();
    let mut codes = Vec::new();
    for wrong in ["number", "frames", "nobody"] {
        let issued = client.post(&api("seller"), json!({})).await?;
        let challenge = issued["challenge"].as_str().unwrap();
        let poses = issued["poses"].as_array().unwrap();
        assert!(poses.len() == 5 && poses[0] == "straight" && poses[4] == "straight", "{issued}");
        let number = if wrong == "number" { &child } else { &seller };
        let nonce = issued["nonce"].as_str().unwrap().parse()?;
        let (assertion, signature, binding) =
            terminal.vouch_for_face(&who, nonce, &shown(&frames, challenge, number));
        let (said, signed, bound) =
            (hex::encode(model::encode(&assertion)), hex::encode(signature), hex::encode(binding));
        let texts = [
            ("number", number.as_str()),
            ("at", TIMES),
            ("assertion", &said),
            ("signature", &signed),
            ("binding", &bound),
        ];
        let sent = if wrong == "frames" { (0..5).map(|i| grey(90 + i)).collect() } else { frames.clone() };
        let (kind, body) = form(&texts, &frames[0], &sent);
        let to = format!("{base}{}/{challenge}", api("seller"));
        let answer = raw.post(to).bearer_auth(&token).header("content-type", kind).body(body).send().await?;
        let problem: Value = answer.json().await?;
        assert!(!problem.to_string().contains(seller.as_str()), "no number in an answer");
        codes.push(problem["code"].as_str().unwrap_or_default().to_owned());
    }
    assert_eq!(codes, ["face_other_number", "face_terminal", "face_no_face"]);
    assert_eq!(refused(client.post(&api("seller"), json!({})).await.unwrap_err()), "face_attempts");

    // the page: offered for a person with tries left, refused with what to do, never without the form's own token
    let people = json!({ "seller": { "id": seller, "name": "甲" }, "buyer": { "id": number("19900203", "126"), "name": "乙" } });
    let case = client.open_case("house-transfer", application("0002"), people).await?;
    let at = |role: &str| at(role).replace(&view["id"].as_str().unwrap().to_owned(), &case);
    let clerk = Page::clerk(&base).await?;
    let shown = clerk.get(&format!("/case/{case}?lang=en")).await?;
    assert!(shown.contains(&at("seller")), "{shown}");
    let page = clerk.get(&format!("{}?lang=en", at("seller"))).await?;
    assert!(page.contains("90 local people") && page.contains("never the only way"), "{page}");
    let csrf =
        page.split("name=\"csrf\" value=\"").last().and_then(|r| r.split('"').next()).context("a token")?;
    assert_eq!(clerk.challenge(&at("seller"), "nothing").await?.0, 401);
    let (_, issued) = clerk.challenge(&at("seller"), csrf).await?;
    let to = format!("{}/{}", at("seller"), issued["challenge"].as_str().context("a challenge")?);
    let texts = |csrf| [("csrf", csrf), ("number", seller.as_str()), ("at", TIMES)];
    assert_eq!(clerk.answer(&to, form(&texts("nothing"), &frames[0], &frames)).await?.0, 401);
    assert_eq!(
        clerk.answer(&to, ("multipart/form-data; boundary=edge".into(), b"--ed".to_vec())).await?.0,
        400
    );
    let (status, said) = clerk.answer(&to, form(&texts(csrf), &frames[0], &frames)).await?;
    assert_eq!(
        (status, said["code"].as_str(), said["left"].as_u64()),
        (422, Some("face_replayed"), Some(2)),
        "{said}"
    );

    a_terminal_is_enrolled_limited_and_revoked(&client, &bureau, dir.path()).await?;
    // three people at the new window and the demo's own buyer were told so; the buyer's consent was signed on the pad, too
    service.until(|told| count(told, "identified") >= 4 && count(told, "consented") >= 1).await?;
    let told = service.told();
    let mine = number("19700203", "131");
    let ours = told.iter().filter(|n| n["number"] == mine.as_str() && n["what"] == "identified").count();
    let seller_told = told.iter().any(|n| n["number"] == seller.as_str());
    assert!(ours == 3 && !seller_told, "{told:?}");
    let text = told[0]["text"]["en"].as_str().context("words")?;
    assert!(text.contains("House transfer") && text.contains("If this was not you"), "{text}");
    assert!(
        told.iter().all(|n| !n["text"].to_string().contains(n["number"].as_str().unwrap())),
        "no number in the words"
    );

    // and a living person is identified, on the ledger
    let Some(folder) = actor::photographs() else { return Ok(()) };
    let person = actor::Actor::new(&Networks::shipped()?, &folder, "p2_a");
    let document = std::fs::read(folder.join("p2_c.jpg"))?;
    let (_, issued) = clerk.challenge(&at("seller"), csrf).await?;
    let poses: Vec<Pose> = serde_json::from_value(issued["poses"].clone())?;
    let frames: Vec<_> =
        poses.into_iter().enumerate().map(|(i, pose)| actor::png(&person.shows(pose, i as u8))).collect();
    let to = format!("{}/{}", at("seller"), issued["challenge"].as_str().context("a challenge")?);
    let (status, said) = clerk.answer(&to, form(&texts(csrf), &document, &frames)).await?;
    assert_eq!((status, said["to"].as_str()), (200, Some(format!("/case/{case}").as_str())), "{said}");
    let again = clerk.answer(&to, form(&texts(csrf), &document, &frames)).await?;
    assert_eq!(again.0, 422, "an answer counts once");
    let view: Value = client.get(&format!("/api/v1/cases/{case}")).await?;
    let step = |kind: &str| {
        let steps = view["steps"].as_array().into_iter().flatten();
        steps
            .filter(|s| s["kind"] == kind && s["party"] == "seller")
            .map(|s| s["status"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(step("identify"), [json!("done")], "{view}");
    assert!(!clerk.get(&format!("/case/{case}?lang=en")).await?.contains(&at("seller")), "once is enough");
    service.until(|told| count(told, "identified_by_face") == 1).await?;
    Ok(())
}
