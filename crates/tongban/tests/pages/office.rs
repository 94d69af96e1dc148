//! A department's officers: invited on the command line, they sign in on the pages of their node and answer for its data.

use crate::{browser::Browser, sweep::Sweep};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// An officer with an authenticator of their own.
struct Authenticator(totp_rs::Totp);

impl Authenticator {
    /// Set up by typing the seed, as the standard has it (RFC 6238, with its defaults).
    fn typed(seed: &str) -> Result<Self> {
        let seed = totp_rs::Secret::try_from_base32(seed).map_err(|e| anyhow::anyhow!("{e}"))?;
        Ok(Self(totp_rs::Builder::new().with_secret(seed).build_noncompliant()))
    }

    fn shows(&self) -> String {
        self.0.generate(now()).to_string()
    }

    /// The next code: each serves once.
    async fn next(&self) -> String {
        let before = self.shows();
        while self.shows() == before {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.shows()
    }
}

struct Node {
    config: PathBuf,
}

impl Node {
    fn run(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tongban"));
        let done = command.args(arguments).args(["--json", "--config"]).arg(&self.config).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(serde_json::from_slice(&done.stdout)?)
    }
}

const SAID: &str = "four green lamps over Tongzhou";

/// Whatever the OpenAPI document says wants a token does, and nothing else; a named token opens what it is for.
async fn tokens_open_what_they_are_for(node: &Node, base: &str) -> Result<()> {
    let http = reqwest::Client::new();
    let document: Value = serde_json::from_str(&node::openapi())?;
    for (path, item) in document["paths"].as_object().context("paths")? {
        let path: String =
            path.split('/').map(|p| if p.starts_with('{') { "x" } else { p }).collect::<Vec<_>>().join("/");
        for (method, operation) in item.as_object().context("methods")? {
            let request = match method.as_str() {
                "get" => http.get(format!("{base}{path}")),
                "post" => http.post(format!("{base}{path}")).body(""),
                _ => http.delete(format!("{base}{path}")),
            };
            let closed = request.send().await?.status() == 401;
            ensure!(closed == operation["security"].is_array(), "{method} {path}: {closed}");
        }
    }
    let until = ["--until", "2099-12-31"];
    let made = node.run(&[&["token", "add", "report", "--scope", "office"][..], &until].concat())?;
    let token = made["token"].as_str().context("a token")?.to_owned();
    let get = async |path: &str| {
        anyhow::Ok(http.get(format!("{base}{path}")).bearer_auth(&token).send().await?.status())
    };
    ensure!(get("/api/v1/reconciliation").await? == 200 && get("/api/v1/connector").await? == 200);
    for closed in ["/api/v1/cases", "/api/v1/archive?from=1", "/api/v1/officers", "/api/v1/tokens"] {
        ensure!(get(closed).await? == 403, "{closed}");
    }
    ensure!(node.run(&["token", "list"])?["tokens"][0]["name"] == "report");
    node.run(&["token", "remove", "report"])?;
    ensure!(get("/api/v1/reconciliation").await? == 401, "a token that was removed");
    Ok(())
}

/// A clerk's session is refused what is a data officer's, also where its form is of their own session.
async fn clerks_keep_out_of_the_office(node: &Node, driver: u16, base: &str, profile: &Path) -> Result<()> {
    let browser = Browser::open(driver, base.to_owned(), &profile.with_extension("clerk"), "zh-CN").await?;
    let code = node.run(&["officer", "add", "li", "--title", "李", "--role", "clerk"])?;
    browser.go("/signin/first").await?;
    browser.fill("name", "li").await?;
    browser.fill("code", code["code"].as_str().context("a code")?).await?;
    browser.submit("//main//form//button").await?;
    let seed = browser.script("return document.querySelector('main code').innerText").await?;
    browser.fill("once", &Authenticator::typed(seed.as_str().context("a seed")?)?.shows()).await?;
    browser.fill("passphrase", SAID).await?;
    browser.fill("again", SAID).await?;
    browser.submit("//main//form//button").await?;
    browser.see("综合窗口").await?;
    for path in ["/office", "/office/day"] {
        browser.go(path).await?;
        browser.see("您的账号没有此权限").await?;
    }
    for path in ["share", "alert", "objection", "budget"] {
        let script = format!(
            "const csrf = document.querySelector('input[name=csrf]').value;
             const sent = new XMLHttpRequest(); sent.open('POST', '/office/{path}', false);
             sent.setRequestHeader('content-type', 'application/x-www-form-urlencoded');
             sent.send('csrf=' + csrf); return sent.status"
        );
        ensure!(browser.script(&script).await? == 403, "{path}");
    }
    node.run(&["officer", "remove", "li"]).map(drop)
}

/// The police's data officer takes up their invitation, grants what is asked of the department, sets a limit, and is removed.
pub async fn an_officer_answers_for_the_department(driver: u16, data: &Path, profile: &Path) -> Result<()> {
    let node = Node { config: data.join("nodes/police/node.toml") };
    let base = format!("http://{}", node::Config::read(&node.config)?.http);
    let browser = Browser::open(driver, base.clone(), profile, "zh-CN").await?;
    let code = node.run(&["officer", "add", "wang", "--title", "王敏", "--role", "data"])?;
    let code = code["code"].as_str().context("an invitation has a code")?.to_owned();

    // nobody is signed in, and the page says where to
    browser.go("/office").await?;
    browser.see("请先以有权限的工作人员身份登录").await?;
    browser.submit("//main//a[starts-with(@href, '/signin')]").await?;
    browser.fill("name", "wang").await?;
    browser.fill("passphrase", SAID).await?;
    browser.fill("once", "000000").await?;
    browser.submit("//main//form//button").await?;
    browser.see("账号、口令或验证码不正确").await?;

    // the first time
    browser.submit("//main//a[@href='/signin/first']").await?;
    browser.fill("name", "wang").await?;
    browser.fill("code", "0000-0000-0000-0000-0000-0000").await?;
    browser.submit("//main//form//button").await?;
    browser.see("该账号没有此邀请").await?;
    browser.script("document.querySelector('#code').value = ''").await?;
    browser.fill("code", &code).await?;
    browser.submit("//main//form//button").await?;
    browser.see("用手机上的身份验证器").await?;
    let seed = browser.script("return document.querySelector('main code').innerText").await?;
    let authenticator = Authenticator::typed(seed.as_str().context("the seed can be typed")?)?;
    for (passphrase, why) in [("password1234", "口令太短或太容易被猜中"), (SAID, "")] {
        browser.fill("once", &authenticator.shows()).await?;
        browser.fill("passphrase", passphrase).await?;
        browser.fill("again", passphrase).await?;
        browser.submit("//main//form//button").await?;
        browser.see(if why.is_empty() { "部门数据责任" } else { why }).await?;
    }
    let state = node.run(&["officer", "list"])?;
    ensure!(state["officers"][0]["state"] == "active", "{state}");

    // what is asked of the department: accepted, not refused with somebody's number in the note, granted
    browser.see("网签时核验当事人姓名").await?;
    browser.submit("//button[@value='accept']").await?;
    browser.see("审核中").await?;
    browser.click("//details/summary[contains(., '不予共享')]").await?;
    browser.script("document.querySelector('select[name=reason]').value = 'unclear'").await?;
    browser.script("document.querySelector('textarea[name=note]').value = '请电 13800138000'").await?;
    browser.submit("//button[@value='refuse']").await?;
    browser.see("不得含有类似电话或身份证件的号码").await?;
    // nor what was not what they saw
    browser.go("/office").await?;
    browser.script("document.querySelector('input[name=seen]').value = '00'").await?;
    browser.submit("//button[@value='grant']").await?;
    browser.see("情况与您打开页面时已不同").await?;
    browser.go("/office").await?;
    browser.submit("//button[@value='grant']").await?;
    browser.see("本部门没有待办事项").await?;
    let shares = node.run(&["share", "list"])?;
    let state = shares["shares"].as_array().context("shares")?.iter().find(|s| s["id"] == "signing-check");
    ensure!(state.context("the request")?["state"] == "granted", "{shares}");
    // a limit
    browser.click("//details/summary[contains(., '设定限额')]").await?;
    browser.script("document.querySelector('#b-asker').value = 'bureau'").await?;
    browser.script("document.querySelector('#b-resource').value = 'police.identity'").await?;
    browser.fill("per_day", "5000").await?;
    browser.submit("//form[@action='/office/budget']//button").await?;
    browser.see("5000").await?;
    // the other limit later: the first stays
    browser.click("//details/summary[contains(., '设定限额')]").await?;
    browser.script("document.querySelector('#b-asker').value = 'bureau'").await?;
    browser.script("document.querySelector('#b-resource').value = 'police.identity'").await?;
    browser.fill("per_person", "77").await?;
    browser.submit("//form[@action='/office/budget']//button").await?;
    browser.see("77").await?;
    browser.see("5000").await?;
    // taken back, with a note of two lines
    browser.click("//details/summary[contains(., '撤回')]").await?;
    let note = browser.find("//details[@open]//textarea").await?;
    let typed = json!({ "text": "依据已变更\n另行申请" });
    browser.post(&format!("/element/{note}/value"), typed).await?;
    browser.submit("//button[@value='revoke']").await?;
    let shares = node.run(&["share", "list"])?;
    let state = shares["shares"].as_array().context("shares")?.iter().find(|s| s["id"] == "signing-check");
    ensure!(state.context("the request")?["state"] == "revoked", "{shares}");
    // the demo's first case read the register for its two parties
    browser.submit("//form[@action='/office/day']/button").await?;
    browser.see("账本与本部门记录一致").await?;
    browser.see("人口基本信息").await?;

    // what another role may do is not theirs
    browser.go("/desk").await?;
    browser.see("您的账号没有此权限").await?;
    let mut sweep = Sweep::new();
    for (name, path) in [("office", "/office"), ("office-day", "/office/day")] {
        sweep.look(&browser, name, path).await?;
    }
    browser.go("/office?lang=zh-CN").await?;

    // signed out, they come in again with a code that was not used
    browser.submit("//form[@action='/leave']/button").await?;
    for (name, path) in [("signin", "/signin"), ("invited", "/signin/first")] {
        sweep.look(&browser, name, path).await?;
    }
    browser.go("/signin?lang=zh-CN").await?;
    browser.fill("name", "wang").await?;
    browser.fill("passphrase", SAID).await?;
    browser.fill("once", &authenticator.next().await).await?;
    browser.submit("//main//form//button").await?;
    browser.see("部门数据责任").await?;
    sweep.look(&browser, "passphrase", "/signin/change").await?;
    browser.go("/signin/change?lang=zh-CN").await?;
    const NEW: &str = "seven quiet ferries in the rain";
    browser.fill("passphrase", SAID).await?;
    browser.fill("once", &authenticator.next().await).await?;
    browser.fill("new", NEW).await?;
    browser.fill("again", NEW).await?;
    browser.submit("//form[@action='/signin/change']//button").await?;
    browser.see("部门数据责任").await?;

    // a form of another site's page, or of no session's, does nothing
    let http = reqwest::Client::new();
    let foreign = http.post(format!("{base}/signin")).header("sec-fetch-site", "cross-site");
    let form = [("name", "wang"), ("passphrase", SAID), ("once", "000000")];
    ensure!(foreign.form(&form).send().await?.status() == 403, "another site's form");
    let nobody = http.post(format!("{base}/office/share")).form(&[("csrf", ""), ("act", "revoke")]).send();
    ensure!(nobody.await?.status() == 401, "a form without a session");

    tokens_open_what_they_are_for(&node, &base).await?;

    // a clerk may do nothing of this
    clerks_keep_out_of_the_office(&node, driver, &base, profile).await?;

    // removed, they are out at once
    node.run(&["officer", "remove", "wang"])?;
    browser.go("/office").await?;
    browser.see("请先以有权限的工作人员身份登录").await?;
    sweep.done()
}
