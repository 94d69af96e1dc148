//! A browser walks the portal: apply, sign, done, who used my data, verify the receipt. Driven over the W3C WebDriver
//! protocol (https://www.w3.org/TR/webdriver2/), by chromedriver from Debian.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Browser {
    http: reqwest::Client,
    session: String,
    base: String,
}

const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

impl Browser {
    async fn open(driver: u16, base: String, profile: &Path, accept: &str) -> Result<Self> {
        let http = reqwest::Client::new();
        let flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,1000",
        ];
        let mut flags: Vec<_> = flags.iter().map(|f| (*f).to_owned()).collect();
        flags.push(format!("--user-data-dir={}", profile.display()));
        flags.push(format!("--accept-lang={accept}"));
        let wanted =
            json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": { "args": flags } } } });
        let url = format!("http://127.0.0.1:{driver}/session");
        let answer: Value = http.post(&url).json(&wanted).send().await?.json().await?;
        let id = answer["value"]["sessionId"].as_str().with_context(|| answer.to_string())?;
        Ok(Self { http, session: format!("{url}/{id}"), base })
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let answer: Value =
            self.http.post(format!("{}{path}", self.session)).json(&body).send().await?.json().await?;
        if answer["value"]["error"].is_string() {
            bail!("{path}: {}", answer["value"]["message"]);
        }
        Ok(answer["value"].clone())
    }

    async fn get(&self, path: &str) -> Result<String> {
        let answer: Value = self.http.get(format!("{}{path}", self.session)).send().await?.json().await?;
        Ok(answer["value"].as_str().unwrap_or_default().to_owned())
    }

    async fn go(&self, path: &str) -> Result<()> {
        self.post("/url", json!({ "url": format!("{}{path}", self.base) })).await.map(drop)
    }

    async fn find(&self, xpath: &str) -> Result<String> {
        let begun = Instant::now();
        loop {
            match self.post("/element", json!({ "using": "xpath", "value": xpath })).await {
                Ok(found) => return Ok(found[ELEMENT].as_str().unwrap_or_default().to_owned()),
                Err(e) if begun.elapsed() > Duration::from_secs(60) => {
                    let text = self.body().await.unwrap_or_default();
                    return Err(e.context(format!("looking for {xpath} on: {text}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn click(&self, xpath: &str) -> Result<()> {
        // the page's live part may be swapped between finding and clicking
        for _ in 0..5 {
            let element = self.find(xpath).await?;
            if self.post(&format!("/element/{element}/click"), json!({})).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("{xpath} cannot be clicked")
    }

    async fn body(&self) -> Result<String> {
        let found = self.post("/element", json!({ "using": "css selector", "value": "main" })).await?;
        self.get(&format!("/element/{}/text", found[ELEMENT].as_str().unwrap_or_default())).await
    }

    async fn see(&self, text: &str) -> Result<()> {
        self.find(&format!("//main[contains(., '{text}')]")).await.map(drop)
    }

    /// Signs in as the one at this position of those who have a matter in mind.
    async fn enter_for(&self, matter: &str, position: usize) -> Result<()> {
        self.go("/?lang=zh-CN").await?;
        self.see("今天要办什么").await?;
        let leave = json!({ "using": "xpath", "value": "//form[@action='/leave']/button" });
        if self.post("/element", leave).await.is_ok() {
            self.click("//form[@action='/leave']/button").await?;
            self.see("请先选择身份").await?;
        }
        let section = format!("//section[h2[contains(., '{matter}')]]");
        self.click(&format!("{section}//li[{}]//button", position + 1)).await?;
        // the next navigation must not overtake this one
        self.see("下列内容已为您填好").await
    }

    async fn enter(&self, position: usize) -> Result<()> {
        self.enter_for("房屋转移登记", position).await
    }

    async fn fill(&self, field: &str, text: &str) -> Result<()> {
        let input = self.find(&format!("//input[@name='{field}']")).await?;
        self.post(&format!("/element/{input}/value"), json!({ "text": text })).await.map(drop)
    }

    /// The visitor's newest case.
    async fn my_case(&self) -> Result<()> {
        self.go("/mine").await?;
        let case = "//main//p/a[starts-with(@href, '/case/')]";
        self.click(case).await
    }
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

async fn up(url: &str) -> Result<()> {
    let begun = Instant::now();
    while reqwest::get(url).await.is_err() {
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("{url} did not come up");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn some_receipt(data: &Path) -> PathBuf {
    let case = std::fs::read_dir(data.join("receipts")).unwrap().flatten().next().unwrap();
    case.path().join("call-deed.json")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_house_is_transferred_on_the_pages() -> Result<()> {
    if !installed("chromedriver") {
        println!("skipped: chromedriver is not installed");
        return Ok(());
    }
    gateway::use_tls();
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let ports = tongban::demo::free_addresses(2)?;
    let (portal, driver) = (ports[0].port(), ports[1].port());
    let _demo = Stopped(
        Command::new(env!("CARGO_BIN_EXE_tongban"))
            .args(["demo", "--port", &portal.to_string(), "--data"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?,
    );
    let _driver =
        Stopped(Command::new("chromedriver").arg(format!("--port={driver}")).stdout(Stdio::null()).spawn()?);
    up(&format!("http://127.0.0.1:{portal}/healthz")).await?;
    up(&format!("http://127.0.0.1:{driver}/status")).await?;
    let begun = Instant::now();
    while !data.join("receipts").read_dir().is_ok_and(|mut d| d.next().is_some()) {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "the demo ran its first case");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let browser =
        Browser::open(driver, format!("http://127.0.0.1:{portal}"), &dir.path().join("profile"), "zh-CN")
            .await?;

    // the seller applies: nothing to type
    browser.enter(0).await?;
    browser.click("//form[contains(@action, '/apply')]//button").await?;
    browser.see("办理进度").await?;
    // the buyer confirms who they are and signs once
    browser.enter(1).await?;
    browser.go("/mine").await?;
    browser.click("//main//a[contains(@href, '/case/')]").await?;
    browser.click("//button[contains(., '确认身份')]").await?;
    browser.click("//button[contains(., '签署')]").await?;
    browser.see("授权书").await?;
    browser.see("不动产单元号").await?;
    browser.see("本人同意下列部门").await?;
    browser.click("//button[contains(., '同意并签署')]").await?;
    browser.see("等待另一方签署").await?;
    // the seller signs once, and everything is done
    browser.enter(0).await?;
    browser.go("/mine").await?;
    browser.click("//main//a[contains(@href, '/case/') and not(contains(@href, '/receipts/') or contains(@href, '/object/'))]").await?;
    browser.click("//button[contains(., '签署')]").await?;
    browser.click("//button[contains(., '同意并签署')]").await?;
    browser.see("已办结").await?;

    // who used my data: every call about the seller, with its receipt
    browser.go("/mine").await?;
    let text = browser.body().await?;
    for expected in
        ["政务服务局", "供电公司", "电费是否结清", "过户前结清费用", "您的授权", "法定职责", "本人查询"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    // a value is wrong: the person says so, once, and sees that it is being checked
    browser.click("//main//a[contains(@href, '/object/contract')]").await?;
    browser.see("哪一项有误").await?;
    browser.click("//input[@name='name'][1]").await?;
    browser.click("//input[@value='outdated']").await?;
    browser.click("//main//form//button").await?;
    browser.find("//main//li/span[@role='status'][contains(., '已过时')]").await?;
    browser.go("/sharing").await?;
    browser.see("核查中").await?;
    browser.see("房屋转移登记与水电气过户").await?;
    browser.see("待受理").await?;
    browser.go("/mine").await?;
    // in English too
    browser.go("/mine?lang=en").await?;
    browser.see("Who used my data").await?;
    browser.see("Are the bills paid?").await?;

    // the page's own verifier, in the browser
    browser.go("/verify?lang=en").await?;
    let input = browser.find("//input[@type='file']").await?;
    let receipt = some_receipt(&data);
    browser
        .post(&format!("/element/{input}/value"), json!({ "text": receipt.display().to_string() }))
        .await?;
    browser.click("//form[@id='verify']//button").await?;
    browser.see("The receipt is valid").await?;
    browser.see("self_access").await?;
    // and it notices a changed byte
    let mut bytes = std::fs::read(&receipt)?;
    let at = bytes.len() / 2;
    bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
    let changed = dir.path().join("changed.json");
    std::fs::write(&changed, bytes)?;
    browser.go("/verify?lang=en").await?;
    let input = browser.find("//input[@type='file']").await?;
    browser
        .post(&format!("/element/{input}/value"), json!({ "text": changed.display().to_string() }))
        .await?;
    browser.click("//form[@id='verify']//button").await?;
    browser.see("The receipt is not valid").await?;

    // the ledger's records and blocks, by what departments did
    browser.go("/catalogue?q=Electricity&lang=en").await?;
    browser.click("//td/a[contains(@href, '/catalogue/power.account')]").await?;
    browser.find("//h1[contains(., 'Electricity account')]").await?;
    browser.find("//li[contains(., 'Are the bills paid?')]").await?;
    let linked: Value = reqwest::get(format!("{}/catalogue.jsonld", browser.base)).await?.json().await?;
    let entries = linked["dcat:dataset"].as_array().into_iter().flatten();
    let power = entries.filter(|e| e["dct:identifier"] == "power.account").collect::<Vec<_>>();
    assert_eq!(power.len(), 1, "{linked}");
    assert_eq!(power[0]["dct:publisher"]["foaf:name"][1]["@value"], "Power company");
    browser.go("/explorer?lang=en").await?;
    browser.click("//td/a[contains(@href, '/explorer/record/')]").await?;
    browser.see("Record ID").await?;
    browser.click("//main//a[contains(@href, '/explorer/block/')]").await?;
    browser.see("Hash").await?;
    browser.go("/nothing").await?;
    browser.see("There is no such page").await?;

    a_child_is_born_and_a_restaurant_cannot_be(&browser).await?;

    // the clerk's window shows the case, and a stranger's session shows nothing
    browser.go("/?lang=zh-CN").await?;
    browser.click("//form[@action='/leave']/button").await?;
    browser.click("//form[input[@value='clerk']]//button").await?;
    browser.see("已办结").await?;
    browser.enter_as_stranger().await?;
    Ok(())
}

/// Two matters nobody wrote a page for: what each takes, an application of two parents, and one with mistakes in it.
async fn a_child_is_born_and_a_restaurant_cannot_be(browser: &Browser) -> Result<()> {
    browser.go("/?q=newborn+insurance&lang=en").await?;
    browser.see("No service has all these words").await?;
    browser.go("/?q=vaccination&lang=en").await?;
    browser.click("//h2/a[contains(., 'A child is born')]").await?;
    browser.see("Documents to hand in").await?;
    browser.see("Household number").await?;
    browser.find("//img[contains(@src, '/matters/newborn/graph.svg')]").await?;

    browser.enter_for("新生儿", 0).await?;
    browser.click("//form[contains(@action, '/apply')]//button").await?;
    browser.see("办理进度").await?;
    browser.enter_for("新生儿", 1).await?;
    browser.my_case().await?;
    browser.click("//button[contains(., '确认身份')]").await?;
    // nothing of the father's is asked for, so that he has nothing to sign
    browser.see("本次不需要").await?;
    browser.enter_for("新生儿", 0).await?;
    browser.my_case().await?;
    browser.click("//button[contains(., '签署')]").await?;
    let text = browser.body().await?;
    assert!(text.contains("出生日期") && !text.contains("随父亲落户"), "only what this case needs: {text}");
    browser.click("//button[contains(., '同意并签署')]").await?;
    browser.see("已办结").await?;
    browser.see("出生登记编号").await?;

    browser.go("/matters/restaurant/apply").await?;
    browser.fill("credit_code", "91110000600037342L").await?;
    browser.fill("place", "110108001001GB00001F00010001").await?;
    browser.fill("area", "100").await?;
    browser.fill("seats", "20").await?;
    browser.click("//select[@name='sign']/option[@value='no']").await?;
    browser.click("//form[contains(@action, '/apply')]//button").await?;
    browser.find("//p[@role='alert'][contains(., '请检查') and contains(., '校验位')]").await?;
    browser.find("//input[@name='credit_code'][@aria-invalid='true'][@value='91110000600037342L']").await?;
    // what was right is still there; and a condition of the matter is told as its package says it
    browser.find("//input[@name='area'][@value='100']").await?;
    browser.fill("seats", "0000").await?;
    let clear = "document.getElementsByName('credit_code')[0].value='91110000600037341L'";
    browser.post("/execute/sync", json!({ "script": clear, "args": [] })).await?;
    browser.click("//form[contains(@action, '/apply')]//button").await?;
    browser.find("//p[@role='alert'][contains(., '每个座位至少')]").await.map(drop)
}

impl Browser {
    /// Another citizen cannot open the case by its address.
    async fn enter_as_stranger(&self) -> Result<()> {
        let link = self.find("//main//a[contains(@href, '/case/')]").await?;
        let href = self.get(&format!("/element/{link}/attribute/href")).await?;
        self.enter(2).await?;
        self.go(href.trim_start_matches(&self.base)).await?;
        self.see("请先选择身份").await
    }
}
