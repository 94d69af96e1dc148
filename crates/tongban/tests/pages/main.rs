//! A browser walks the portal: apply, sign, done, who used my data, verify the receipt; a camera that sees nobody; and then every page
//! in both languages and themes, wide and narrow, is looked over for what shuts people out.

mod browser;
mod office;
mod sweep;

use anyhow::{Context as _, Result, bail};
use browser::{Browser, Stopped};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use sweep::Sweep;

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
    let calibration = dir.path().join("face.json");
    std::fs::write(&calibration, calibrated()?)?;
    let _demo = Stopped(
        Command::new(env!("CARGO_BIN_EXE_tongban"))
            .args(["demo", "--port", &portal.to_string(), "--data"])
            .arg(&data)
            .env("TONGBAN_FACE", &calibration)
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
    browser.submit("//form[contains(@action, '/apply')]//button").await?;
    browser.see("办理进度").await?;
    // the buyer confirms who they are and signs once
    browser.enter(1).await?;
    browser.go("/mine").await?;
    browser.click("//main//a[contains(@href, '/case/')]").await?;
    browser.submit("//button[contains(., '确认身份')]").await?;
    browser.submit("//button[contains(., '签署')]").await?;
    browser.see("授权书").await?;
    browser.see("不动产单元号").await?;
    browser.see("本人同意下列部门").await?;
    browser.submit("//button[contains(., '同意并签署')]").await?;
    browser.see("等待另一方签署").await?;
    // where a session ends, an open page does not stay
    browser.tools("Network.clearBrowserCookies", json!({})).await?;
    browser.see("请先选择身份").await?;
    // the seller signs once, and everything is done
    browser.enter(0).await?;
    browser.go("/mine").await?;
    browser.click("//main//a[contains(@href, '/case/') and not(contains(@href, '/receipts/') or contains(@href, '/object/'))]").await?;
    browser.submit("//button[contains(., '签署')]").await?;
    browser.submit("//button[contains(., '同意并签署')]").await?;
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
    browser.submit("//form[@action='/leave']/button").await?;
    browser.submit("//form[input[@value='clerk']]//button").await?;
    browser.see("已办结").await?;
    browser.enter_as_stranger().await?;
    a_clerk_needs_no_mouse(&browser, &data).await?;
    let face = a_camera_sees_nobody(&browser, &data, portal).await?;
    every_page_is_for_everybody(&browser, &face).await?;
    office::an_officer_answers_for_the_department(driver, &data, &dir.path().join("officer")).await
}

/// A clerk takes a case from two people at the window to its end with the keyboard alone. What a reader scans is not counted.
async fn a_clerk_needs_no_mouse(browser: &Browser, data: &Path) -> Result<()> {
    const ENTER: char = '\u{E007}';
    const TAB: char = '\u{E004}';
    // a sale nobody applied for yet; what is on the people's documents and contract
    browser.enter(2).await?;
    let typed = async |field: &str| -> Result<String> {
        let input = browser.find(&format!("//input[@name='{field}']")).await?;
        browser.get(&format!("/element/{input}/property/value")).await
    };
    let (unit, contract) = (typed("unit").await?, typed("contract").await?);
    let open = async |department: &str| {
        let file = data.join("departments").join(department).join("department.db");
        sqlx::SqlitePool::connect_with(
            sqlx::sqlite::SqliteConnectOptions::new().filename(file).read_only(true),
        )
        .await
    };
    let (housing, police) = (open("housing").await?, open("police").await?);
    let (seller, buyer): (String, String) =
        sqlx::query_as("SELECT cmr_zjh, msr_zjh FROM wq_ht WHERE htbh = ?")
            .bind(&contract)
            .fetch_one(&housing)
            .await?;
    let name = async |number: &str| -> Result<String> {
        let found = sqlx::query_scalar("SELECT xm FROM rk_jbxx WHERE gmsfhm = ?").bind(number.to_owned());
        Ok(found.fetch_one(&police).await?)
    };
    let (seller_name, buyer_name) = (name(&seller).await?, name(&buyer).await?);

    browser.go("/?lang=zh-CN").await?;
    browser.submit("//form[@action='/leave']/button").await?;
    browser.submit("//form[input[@value='clerk']]//button").await?;
    let mut pressed = 0;
    let mut press = async |keys: &[char]| -> Result<()> {
        pressed += keys.len();
        browser.keys(&keys.iter().collect::<String>()).await
    };
    let on = |what: &str| {
        format!("return document.activeElement.matches(\"{what}\") && document.readyState === 'complete'")
    };
    let matters = "return [...document.querySelectorAll('a[href^=\"/matters/\"]')].findIndex(a => a.href.includes('house-transfer'))";
    browser.until(&on("a[href^='/matters/']")).await?;
    let steps = browser.script(matters).await?.as_u64().context("the matter is offered")? as usize;
    press(&vec![TAB; steps]).await?;
    press(&[ENTER]).await?;
    for (field, scanned) in [
        ("unit", &unit),
        ("contract", &contract),
        ("name-seller", &seller_name),
        ("id-seller", &seller),
        ("name-buyer", &buyer_name),
        ("id-buyer", &buyer),
    ] {
        browser.until(&on(&format!("input[name='{field}']"))).await?;
        browser.keys(&format!("{scanned}{ENTER}")).await?;
    }
    for role in ["seller", "buyer"] {
        browser.until(&on(&format!("form[action$='/identify/{role}'] button"))).await?;
        press(&[ENTER]).await?;
    }
    for role in ["seller", "buyer"] {
        browser.until(&on(&format!("form[action$='/sign/{role}'] button"))).await?;
        press(&[ENTER]).await?;
        // the text of the consent has the focus, not the button that signs it
        browser.until(&on("section[role='region']")).await?;
        press(&[TAB, ENTER]).await?;
    }
    browser.see("已办结").await?;
    browser.until(&on("a[href='/desk']")).await?;
    press(&[ENTER]).await?;
    browser.until(&on("a[href^='/matters/']")).await?;
    println!("{pressed} keystrokes from the window to the window");
    anyhow::ensure!(pressed <= 25, "{pressed} keystrokes");
    Ok(())
}

/// A calibration file for the shipped model.
fn calibrated() -> Result<Vec<u8>> {
    let chosen = json!({ "threshold": 0.4, "false_accept": 0.0, "false_accept_at_most": 0.0009, "false_reject": 0.02 });
    Ok(serde_json::to_vec(&json!({
        "format": 1, "model": ::face::FaceModel::pins(&::face::Networks::shipped()?), "wished_false_accept": 0.001,
        "chosen": chosen, "people": 90, "photographs": 200, "day": "2026-11-27",
    }))?)
}

/// The clerk takes somebody to the camera, which shows a test picture: they are told what is wrong and how often they may try again,
/// and the other ways stay open. Gives the page's address.
async fn a_camera_sees_nobody(browser: &Browser, data: &Path, portal: u16) -> Result<String> {
    let bureau = tongban::setup::node_dir(data, &tongban::demo::HANDLER.parse().map_err(anyhow::Error::msg)?);
    let token = node::Config::read(&bureau.join("node.toml"))?.api_token.context("a token")?;
    let client = tongban::client::Client::new(format!("127.0.0.1:{portal}").parse()?, &token);
    let number = |first17: &str| {
        let check = model::identifier::resident_check(first17.as_bytes()).expect("17 digits");
        format!("{first17}{}", char::from(check))
    };
    let (seller, buyer) = (number("99000019800203123"), number("99000019810203125"));
    let people = json!({ "seller": { "id": seller, "name": "甲" }, "buyer": { "id": buyer, "name": "乙" } });
    let form = json!({ "unit": "110108001001GB00001F00019999", "contract": "HT2026-999999" });
    let case = client.open_case("house-transfer", form, people).await?;

    browser.go(&format!("/case/{case}?lang=en")).await?;
    browser.click("//form[contains(@action, '/face/seller')]/button").await?;
    browser.see("A face is never the only way").await?;
    browser.see("90 local people").await?;
    browser.fill("number", &seller).await?;
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/picture/baseline.jpg");
    let input = browser.find("//input[@name='document']").await?;
    let path = picture.canonicalize()?.display().to_string();
    browser.post(&format!("/element/{input}/value"), json!({ "text": path })).await?;
    browser.click("//input[@name='agreed']").await?;
    browser.click("//form[@id='face']//button").await?;
    browser.see("Look straight at the camera").await?;
    browser.find("//p[@id='say'][contains(@class, 'failed')][contains(., 'face')]").await?;
    browser.find("//span[@id='left'][.='2']").await?;
    let address = format!("/case/{case}/face/seller");
    browser.go(&format!("/case/{case}?lang=en")).await?;
    browser.find("//button[contains(., 'Check the document at the counter')]").await?;
    Ok(address)
}

/// Every page, as everybody who may see it.
async fn every_page_is_for_everybody(browser: &Browser, face: &str) -> Result<()> {
    let mut sweep = Sweep::new();
    sweep.sees_what_is_wrong(browser).await?;
    let href = async |xpath: &str| -> Result<String> {
        let link = browser.find(xpath).await?;
        let address = browser.get(&format!("/element/{link}/property/href")).await?;
        Ok(address.trim_start_matches(&browser.base).split('?').next().unwrap_or_default().to_owned())
    };
    // the clerk, who is signed in
    for (name, path) in
        [("desk", "/desk"), ("face", face), ("case-clerk", face.trim_end_matches("/face/seller"))]
    {
        sweep.look(browser, name, path).await?;
    }
    browser.go("/desk?lang=en").await?;
    let closed = href("//tr[.//span[contains(@class, 'closed')]]//a[contains(@href, '/case/')]").await?;
    sweep.look(browser, "case-closed-clerk", &closed).await?;
    browser.submit("//form[@action='/leave']/button").await?;
    // nobody in particular
    browser.go("/explorer?lang=en").await?;
    let record = href("//td/a[contains(@href, '/explorer/record/')]").await?;
    browser.go(&record).await?;
    let block = href("//main//a[contains(@href, '/explorer/block/')]").await?;
    for (name, path) in [
        ("home", "/"),
        ("home-search", "/?q=newborn+insurance"),
        ("matter", "/matters/house-transfer"),
        ("matter-enterprise", "/matters/enterprise-start"),
        ("catalogue", "/catalogue"),
        ("resource", "/catalogue/power.account"),
        ("sharing", "/sharing"),
        ("explorer", "/explorer"),
        ("record", record.as_str()),
        ("block", block.as_str()),
        ("verify", "/verify"),
        ("error", "/nothing"),
    ] {
        sweep.look(browser, name, path).await?;
    }
    // citizens: one whose case is done, and two who have not yet signed
    browser.enter(0).await?;
    for (name, path) in [
        ("home-citizen", "/"),
        ("apply", "/matters/house-transfer/apply"),
        ("apply-empty", "/matters/restaurant/apply"),
        ("mine", "/mine"),
    ] {
        sweep.look(browser, name, path).await?;
    }
    browser.go("/mine?lang=en").await?;
    let object = href("//main//a[contains(@href, '/object/')]").await?;
    let done = href("//main//p/a[starts-with(@href, '/case/')]").await?;
    sweep.look(browser, "object", &object).await?;
    sweep.look(browser, "case-closed", &done).await?;
    browser.enter_for("新生儿", 2).await?;
    browser.submit("//form[contains(@action, '/apply')]//button").await?;
    browser.see("办理进度").await?;
    browser.enter_for("新生儿", 3).await?;
    browser.my_case().await?;
    browser.see("办理进度").await?;
    let case = browser.get("/url").await?.trim_start_matches(&browser.base).to_owned();
    sweep.look(browser, "case-open", &case).await?;
    browser.go(&format!("{case}?lang=zh-CN")).await?;
    browser.submit("//button[contains(., '确认身份')]").await?;
    browser.see("本次不需要").await?;
    browser.enter_for("新生儿", 2).await?;
    browser.my_case().await?;
    let form = browser.find("//form[contains(@action, '/sign/')]").await?;
    let sign = browser.get(&format!("/element/{form}/attribute/action")).await?;
    sweep.look(browser, "sign", &sign).await?;
    sweep.done()
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
    browser.submit("//form[contains(@action, '/apply')]//button").await?;
    browser.see("办理进度").await?;
    browser.enter_for("新生儿", 1).await?;
    browser.my_case().await?;
    browser.submit("//button[contains(., '确认身份')]").await?;
    // nothing of the father's is asked for, so that he has nothing to sign
    browser.see("本次不需要").await?;
    browser.enter_for("新生儿", 0).await?;
    browser.my_case().await?;
    browser.submit("//button[contains(., '签署')]").await?;
    browser.see("授权书").await?;
    let text = browser.body().await?;
    assert!(text.contains("出生日期") && !text.contains("随父亲落户"), "only what this case needs: {text}");
    browser.submit("//button[contains(., '同意并签署')]").await?;
    browser.see("已办结").await?;
    browser.see("出生登记编号").await?;

    browser.go("/matters/restaurant/apply").await?;
    browser.fill("credit_code", "91110000600037342L").await?;
    browser.fill("place", "110108001001GB00001F00010001").await?;
    browser.fill("area", "100").await?;
    browser.fill("seats", "20").await?;
    browser.click("//select[@name='sign']/option[@value='no']").await?;
    browser.submit("//form[contains(@action, '/apply')]//button").await?;
    browser.find("//p[@role='alert'][contains(., '请检查') and contains(., '校验位')]").await?;
    browser.find("//input[@name='credit_code'][@aria-invalid='true'][@value='91110000600037342L']").await?;
    // what was right is still there; and a condition of the matter is told as its package says it
    browser.find("//input[@name='area'][@value='100']").await?;
    browser.fill("seats", "0000").await?;
    let clear = "document.getElementsByName('credit_code')[0].value='91110000600037341L'";
    browser.post("/execute/sync", json!({ "script": clear, "args": [] })).await?;
    browser.submit("//form[contains(@action, '/apply')]//button").await?;
    browser.find("//p[@role='alert'][contains(., '每个座位至少')]").await.map(drop)
}

impl Browser {
    /// Another citizen cannot open the case by its address.
    async fn enter_as_stranger(&self) -> Result<()> {
        let link = self.find("//main//a[contains(@href, '/case/')]").await?;
        let href = self.get(&format!("/element/{link}/attribute/href")).await?;
        self.enter(2).await?;
        self.go(href.trim_start_matches(&self.base)).await?;
        self.see("您登录的账号不能查看此页").await
    }
}
