//! Citizens outside the demo: they sign in through an identity provider that others wrote, are identified by it in their case, sign
//! before it, and follow what became of it; and nobody does any of that for somebody else.

#[path = "../pages/browser.rs"]
#[allow(dead_code, reason = "the walk through the demo uses the rest")]
mod browser;
#[path = "../pages/sweep.rs"]
#[allow(dead_code, reason = "the walk through the demo uses the rest")]
mod sweep;

use anyhow::{Context as _, Result, ensure};
use browser::{Browser, Stopped};
use model::{Suite, Text};
use node::{Config, Node, PortalSettings};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use sweep::Sweep;
use tongban::{
    city::{Citizen, City},
    client::Client,
    demo, setup, stage,
};

const MOTHER: (&str, &str) = ("chen", "correct horse battery");
const OTHER: (&str, &str) = ("li", "staple of another");

/// Installs the provider from PyPI, once for all runs of a build.
fn installed() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("canaille-0.3.6");
    if folder.join("done").exists() {
        return Some(folder);
    }
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-conflicts", "--target"];
    let pip = Command::new("python3")
        .args(pip)
        .arg(&folder)
        .args(["canaille[front,oidc,server,sqlite]==0.3.6"])
        .status();
    if !pip.is_ok_and(|status| status.success()) {
        println!("skipped: python3 with pip and PyPI is needed for an identity provider");
        return None;
    }
    std::fs::write(folder.join("done"), "").expect("written");
    Some(folder)
}

async fn up(url: &str) -> Result<()> {
    let begun = Instant::now();
    while !reqwest::get(url).await.is_ok_and(|answer| answer.status() == 200) {
        ensure!(begun.elapsed() < Duration::from_secs(120), "{url} did not come up");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn provider(
    library: &Path,
    folder: &Path,
    port: u16,
    portal: &str,
    people: &[(&Citizen, (&str, &str))],
) -> Result<Stopped> {
    let people: Vec<_> = people.iter().map(|(c, (user, said))| json!([user, said, c.name, c.id])).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/citizens/provider.py");
    let made = Command::new("python3")
        .arg(script)
        .args([
            folder.display().to_string(),
            port.to_string(),
            portal.to_owned(),
            Value::from(people).to_string(),
        ])
        .env("PYTHONPATH", library)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let serve = ["-m", "canaille.commands", "run", "--workers", "0", "--bind"];
    let child = Command::new("python3")
        .args(serve)
        .arg(format!("127.0.0.1:{port}"))
        .env("PYTHONPATH", library)
        .env("CANAILLE_CONFIG", folder.join("canaille.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let child = Stopped(child);
    up(&format!("http://localhost:{port}/.well-known/openid-configuration")).await?;
    Ok(child)
}

/// A consortium whose bureau's portal has the provider, and nobody's demo.
struct Consortium {
    nodes: Vec<Node>,
    bureau: Config,
    /// The portal's key.
    key: crypto::SigningKey,
}

async fn consortium(
    dir: &Path,
    city: &Arc<City>,
    matters: &[stage::Matter],
    port: u16,
    issuer: String,
) -> Result<Consortium> {
    let suite = Suite::International;
    let made = demo::write_consortium(dir, port, suite, setup::EPOCH_BLOCKS, city, matters).await?;
    let bureau = setup::node_dir(dir, &"bureau".parse().map_err(anyhow::Error::msg)?);
    let file = bureau.join("portal.key");
    let seed = crypto::random::<32>();
    let key = crypto::SigningKey::from_seed(suite, seed).context("a key")?;
    crypto::store_secret(&file, demo::PASSPHRASE, suite, &seed)?;
    let mut config = Config::read(&bureau.join("node.toml"))?;
    config.portal = Some(PortalSettings {
        issuer,
        client: "portal".into(),
        secret: Some("portal-secret".into()),
        back: format!("http://127.0.0.1:{port}/signin/back"),
        title: Text { zh: "市统一身份认证".into(), en: "City ID".into() },
        key: "portal.key".into(),
        number: "preferred_username".into(),
        name: "name".into(),
        scopes: vec!["profile".into()],
        levels: Default::default(),
    });
    setup::write_settings(&bureau.join("node.toml"), &config)?;
    let mut nodes = Vec::new();
    for id in made.keys.keys() {
        let config = Config::read(&setup::node_dir(dir, id).join("node.toml"))?;
        nodes.push(Node::start(config, demo::PASSPHRASE, None).await?);
    }
    let resources = nodes.iter().flat_map(|node| {
        let own = node.gateway().resources().iter();
        own.map(|resource| (node.config.department.clone(), resource.clone()))
    });
    for round in demo::publications(resources.collect(), key.public(), matters)? {
        for (id, body) in round {
            let node =
                nodes.iter().find(|n| n.config.department == id).context("a node of every department")?;
            let event = node.flow.submit_and_wait(body, Duration::from_secs(60)).await?;
            ensure!(matches!(event.outcome, model::Outcome::Accepted(_)), "a command of {id}");
            for node in &nodes {
                node.flow.caught_up(event.height).await;
            }
        }
    }
    Ok(Consortium { nodes, bureau: config, key })
}

/// The provider's two pages; after the first time it asks for the password alone.
async fn authenticate(browser: &Browser, who: (&str, &str), again: bool) -> Result<()> {
    if !again {
        browser.find("//form[@id='loginform']").await?;
        browser.fill("login", who.0).await?;
        browser.click("//form[@id='loginform']//button[@type='submit']").await?;
    }
    browser.find("//form[@id='passwordform']").await?;
    browser.fill("password", who.1).await?;
    browser.click("//form[@id='passwordform']//button[@type='submit']").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_citizen_applies_and_signs_through_an_identity_provider() -> Result<()> {
    let driver_there = Command::new("chromedriver").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !driver_there {
        println!("skipped: chromedriver is not installed");
        return Ok(());
    }
    let Some(library) = installed() else { return Ok(()) };
    gateway::use_tls();
    let dir = tempfile::tempdir()?;
    let ports = demo::free_addresses(3)?;
    let (port, driver, id) = (ports[0].port(), ports[1].port(), ports[2].port());
    let base = format!("http://127.0.0.1:{port}");
    let city = Arc::new(City::new(5));
    let matters = stage::matters(&["newborn".into()])?;
    let mut casting = tongban::play::Casting::new(city.clone());
    let play = casting.cast(&matters[0], demo::PLAIN)?;
    let mother = &play.people["ann"];
    let people = [(mother, MOTHER), (&play.people["bo"], OTHER)];
    let _provider = provider(&library, &dir.path().join("provider"), id, &base, &people).await?;
    let home = dir.path().join("data");
    let consortium = consortium(&home, &city, &matters, port, format!("http://localhost:{id}")).await?;
    play.prepare(&home.join("departments")).await?;
    let _driver =
        Stopped(Command::new("chromedriver").arg(format!("--port={driver}")).stdout(Stdio::null()).spawn()?);
    up(&format!("http://127.0.0.1:{driver}/status")).await?;
    let browser = Browser::open(driver, base.clone(), &dir.path().join("profile"), "zh-CN").await?;

    // whoever begins without having signed in signs in, and is where they wanted to go
    browser.go("/").await?;
    browser.submit("//section[h2[contains(., '出生')]]//a[contains(@href, '/apply')]").await?;
    browser.see("请先登录").await?;
    browser.submit("//main//a[contains(@href, '/signin?to=')]").await?;
    browser.click("//button[contains(., '用市统一身份认证登录')]").await?;
    authenticate(&browser, MOTHER, false).await?;
    browser.find("//form[@id='apply']").await?;
    // the page knows who it is, and shows it masked
    let text = browser.script("return document.body.innerText").await?;
    let text = text.as_str().context("a page")?;
    ensure!(!text.contains(&mother.id) && text.contains(&model::identifier::mask(&mother.name)), "{text}");
    let form = play.form()?;
    apply(&browser, &form[&"certificate".parse().map_err(anyhow::Error::msg)?], None).await?;

    // identified at once, for the provider knows them; then they read, and sign by authenticating for that text
    browser.submit("//button[contains(., '签署')]").await?;
    browser.see("本人同意下列部门").await?;
    browser.see("认证结果只对以上文字有效").await?;
    let case = browser.get("/url").await?;
    let case =
        case.split("/case/").nth(1).and_then(|rest| rest.split('/').next()).context("a case")?.to_owned();
    let mut sweep = Sweep::new();
    sweep.look(&browser, "sign-online", &format!("/case/{case}/sign/mother")).await?;
    browser.go(&format!("/case/{case}/sign/mother?lang=zh-CN")).await?;
    browser.click("//button[contains(., '用市统一身份认证确认')]").await?;
    authenticate(&browser, MOTHER, true).await?;
    browser.see("已办结").await?;

    // what the provider said is kept for an auditor, bound to what it was said for, and named in the receipts
    let client =
        Client::new(consortium.bureau.http, consortium.bureau.api_token.as_deref().context("a token")?);
    let evidence: Value = client.get(&format!("/api/v1/cases/{case}/evidence")).await?;
    let words = evidence.as_array().context("a list")?;
    ensure!(words.len() == 2, "{evidence}");
    for of in ["identify", "consent"] {
        let word = words.iter().find(|w| w["of"] == of).context(of)?;
        let payload = word["word"].as_str().and_then(|w| w.split('.').nth(1)).context("a JWT")?;
        let payload: Value = serde_json::from_slice(&base64_url(payload)?)?;
        ensure!(
            payload["nonce"] == word["bound"] && payload["preferred_username"] == mother.id.as_str(),
            "{payload}"
        );
        let commits = match of {
            "identify" => assertion_of(&consortium, &case).await?.nonce.to_string(),
            _ => String::new(),
        };
        ensure!(word["commits"] == commits.as_str(), "the ledger commits to the word: {word}");
    }
    let names: Vec<String> = client.get(&format!("/api/v1/cases/{case}/receipts")).await?;
    let call = names.iter().find(|n| n.starts_with("call-")).context("a call")?;
    let receipt: Value = client.get(&format!("/api/v1/cases/{case}/receipts/{call}")).await?;
    let facts =
        proof::verify(receipt.to_string().as_bytes(), &node::read_genesis(&home.join("genesis.json"))?)
            .map_err(|e| anyhow::anyhow!("{e:?}"))?;
    ensure!(facts.assurance == "oidc/substantial", "{}", facts.assurance);

    two_parties_sign_and_one_withdraws(&browser, &case, &play, &mut sweep).await?;
    nobody_acts_for_somebody_else(&browser, mother).await?;
    nobody_comes_back_who_did_not_go(&base).await?;
    sweep.done()?;
    // the API identifies nobody on a provider's word it was not given
    let assertion = assertion_of(&consortium, &case).await?;
    let signature = hex::encode(consortium.key.sign(&assertion.signing_bytes()));
    let body = json!({ "assertion": hex::encode(model::encode(&assertion)), "signature": signature });
    let refused = client.post(&format!("/api/v1/cases/{case}/identify"), body).await.unwrap_err().to_string();
    ensure!(refused.contains("identity provider"), "{refused}");
    // the words go with the case
    let erase = json!({ "who": "L. Wang", "reason": "asked for", "dry_run": false });
    let erased = client.post(&format!("/api/v1/cases/{case}/erase"), erase).await?;
    ensure!(erased["kept"].as_str().unwrap_or_default().is_empty(), "{erased}");
    let evidence: Value = client.get(&format!("/api/v1/cases/{case}/evidence")).await?;
    ensure!(evidence == json!([]), "{evidence}");
    for node in consortium.nodes {
        node.stop().await;
    }
    Ok(())
}

fn base64_url(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    Ok(base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text)?)
}

/// The assertion of a case's first party, as the ledger has it.
async fn assertion_of(consortium: &Consortium, case: &str) -> Result<model::Assertion> {
    let chain = consortium.nodes[0].chain();
    for height in 1..=chain.height() {
        for event in chain.block_events(height).await?.events {
            match event.command.command.body {
                model::Body::Identify(new) if new.assertion.case.to_string() == case => {
                    return Ok(new.assertion);
                }
                _ => {}
            }
        }
    }
    anyhow::bail!("nobody was identified")
}

async fn apply(browser: &Browser, certificate: &str, father: Option<&Citizen>) -> Result<()> {
    browser.go("/matters/newborn/apply").await?;
    browser.click("//input[@name='me' and @value='mother']").await?;
    browser.fill("certificate", certificate).await?;
    browser.fill("child", "王小麦").await?;
    let household = if father.is_some() { "father" } else { "mother" };
    browser.click(&format!("//select[@name='settle']/option[@value='{household}']")).await?;
    if let Some(father) = father {
        browser.click("//summary[contains(., '父亲')]").await?;
        browser.fill("name-father", &father.name).await?;
        browser.fill("id-father", &father.id).await?;
    }
    browser.click("//form[@id='apply']//button[not(@type='button')]").await?;
    browser.see("办理进度").await
}

/// Somebody else at the same machine: neither the portal nor the provider remembers anybody.
async fn sign_in(browser: &Browser, who: (&str, &str)) -> Result<()> {
    browser.go("/").await?;
    browser.tools("Network.clearBrowserCookies", json!({})).await?;
    browser.go("/signin").await?;
    browser.click("//button[contains(., '用市统一身份认证登录')]").await?;
    authenticate(browser, who, false).await?;
    browser.see("今天要办什么").await
}

async fn two_parties_sign_and_one_withdraws(
    browser: &Browser,
    hers: &str,
    play: &tongban::play::Play,
    sweep: &mut Sweep,
) -> Result<()> {
    browser.go("/mine").await?;
    browser.see("您的授权").await?;
    apply(browser, "U11999999", Some(&play.people["bo"])).await?;
    browser.see("等待另一方").await?;
    // signed out here, and led to the provider to sign out there
    browser.click("//form[@action='/leave']/button").await?;
    browser.click("//form[@id='logoutform']//*[@id='logout']").await?;
    browser.see("今天要办什么").await?;
    browser.go("/mine").await?;
    browser.see("请先登录").await?;
    sweep.look(browser, "signin-citizens", "/signin").await?;
    // the father signs in, and sees nothing of what is hers alone
    sign_in(browser, OTHER).await?;
    for path in
        [format!("/case/{hers}"), format!("/case/{hers}/sign/mother"), "/desk".into(), "/office".into()]
    {
        browser.go(&path).await?;
        browser.see("您登录的账号不能查看此页").await?;
    }
    // in the case that is both's he is identified, signs, and takes it back with one click
    browser.my_case().await?;
    browser.click("//button[contains(., '确认身份')]").await?;
    browser.submit("//button[contains(., '签署')]").await?;
    browser.click("//button[contains(., '用市统一身份认证确认')]").await?;
    authenticate(browser, OTHER, true).await?;
    browser.see("等待另一方").await?;
    browser.submit("//button[contains(., '撤回授权')]").await?;
    browser.see("当事人撤回了授权").await
}

async fn nobody_acts_for_somebody_else(browser: &Browser, mother: &Citizen) -> Result<()> {
    // the mother's session; and then somebody else confirms at the provider in her place
    sign_in(browser, MOTHER).await?;
    // who has two roles is identified in each, and signs in each
    apply(browser, "U11999998", Some(mother)).await?;
    browser.click("//button[contains(., '确认身份 – 父亲')]").await?;
    browser.find("//button[contains(., '签署 – 父亲')]").await?;
    browser.submit("//button[contains(., '签署 – 母亲')]").await?;
    browser.click("//button[contains(., '用市统一身份认证确认')]").await?;
    browser.find("//form[@id='passwordform']").await?;
    browser.click("//a[contains(., 'Switch')]").await?;
    authenticate(browser, OTHER, false).await?;
    // said on the page of the case, where she is still signed in; nothing was signed
    browser.see("完成认证的不是当前登录的人").await?;
    browser.find("//button[contains(., '签署')]").await?;
    // terms that were changed on their way are not taken to the provider
    browser.submit("//button[contains(., '签署')]").await?;
    browser
        .script(
            "const t = document.querySelector('input[name=terms]'); t.value = (t.value[0] === '0' ? '1' : '0') + t.value.slice(1)",
        )
        .await?;
    browser.submit("//button[contains(., '用市统一身份认证确认')]").await?;
    let at = browser.get("/url").await?;
    ensure!(at.contains("/sign/mother") && at.starts_with("http://127.0.0.1"), "{at}");
    Ok(())
}

async fn nobody_comes_back_who_did_not_go(base: &str) -> Result<()> {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    for query in ["", "?state=x&code=y", "?state=&error=access_denied"] {
        let answer = http.get(format!("{base}/signin/back{query}")).send().await?;
        ensure!(answer.status() == 400, "{query}: {}", answer.status());
    }
    let go = || http.post(format!("{base}/signin/person")).form(&[("to", "//evil.example")]);
    let went = async || -> Result<(String, String)> {
        let went = go().send().await?;
        ensure!(went.status() == 200, "{}", went.status());
        let cookie = went.headers()["set-cookie"].to_str()?.to_owned();
        ensure!(cookie.contains("SameSite=Lax") && cookie.contains("HttpOnly"), "{cookie}");
        let page = went.text().await?;
        let state = page.split("state=").nth(1).and_then(|s| s.split('&').next()).context("a state")?;
        Ok((cookie.split(';').next().context("a cookie")?.to_owned(), state.to_owned()))
    };
    let back = async |state: &str, rest: &str, cookie: &str| {
        let path = format!("{base}/signin/back?state={state}{rest}");
        anyhow::Ok(http.get(path).header("cookie", cookie).send().await?.status().as_u16())
    };
    let (cookie, state) = went().await?;
    ensure!(back(&state, "&code=x", "").await? == 400, "another browser");
    ensure!(back(&state, "&code=x", &cookie).await? == 400, "that was tried already");
    let (cookie, state) = went().await?;
    ensure!(back(&state, "&code=made%20up", &cookie).await? == 502, "the provider does not take it");
    ensure!(back(&state, "&code=made%20up", &cookie).await? == 400, "once is once");
    let (cookie, state) = went().await?;
    ensure!(back(&state, "&error=access_denied", &cookie).await? == 403, "refused there");
    let (_, state) = went().await?;
    let (cookie, _) = went().await?;
    ensure!(back(&state, "&code=x", &cookie).await? == 400, "somebody else's way back");
    let went = go().header("sec-fetch-site", "cross-site").send().await?;
    ensure!(went.status() == 403, "another site sends nobody there");
    Ok(())
}
