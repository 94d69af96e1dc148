//! A provider that lies, or is lied about: nobody is known whom its own word, for this portal and this moment, does not name.

use axum::{
    Json, Router,
    extract::{Form, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use crypto::SigningKey;
use identity::oidc::{Authenticated, OidcError, Proven, Provider, Settings};
use model::{AssuranceLevel, Digest, Language, PublicKey, Suite};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

const NUMBER: &str = "11010519491231002X";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn public(key: &SigningKey) -> String {
    let PublicKey::Ed25519(bytes) = key.public() else { unreachable!("an international key") };
    BASE64.encode(bytes)
}

/// A JWT (RFC 7519), with whatever it is to say.
fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    format!("{text}.{}", BASE64.encode(sign(text.as_bytes())))
}

/// What the provider does when it is asked.
#[derive(Default)]
struct Script {
    discovery: Value,
    keys: Value,
    token: (u16, Value),
    /// What the portal sent for its token.
    asked: HashMap<String, String>,
    authorised: bool,
}

type Shared = State<Arc<Mutex<Script>>>;

async fn token(
    State(script): Shared,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut script = script.lock().unwrap();
    script.asked = form;
    script.authorised = headers.contains_key("authorization");
    (StatusCode::from_u16(script.token.0).unwrap(), Json(script.token.1.clone())).into_response()
}

struct Fake {
    script: Arc<Mutex<Script>>,
    issuer: String,
    key: SigningKey,
}

impl Fake {
    async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(|State(s): Shared| async move { Json(s.lock().unwrap().discovery.clone()) }),
            )
            .route("/keys", get(|State(s): Shared| async move { Json(s.lock().unwrap().keys.clone()) }))
            .route("/token", post(token))
            .with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let key = SigningKey::random(Suite::International);
        {
            let mut script = script.lock().unwrap();
            script.keys = json!({ "keys": [
                { "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "k1", "alg": "EdDSA", "x": public(&key) } ] });
            script.discovery = json!({ "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/keys"),
                "end_session_endpoint": format!("{issuer}/end"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["EdDSA"] });
        }
        Self { script, issuer, key }
    }

    fn settings(&self) -> Settings {
        Settings {
            issuer: self.issuer.clone(),
            client: "portal".into(),
            secret: Some("a secret of both sides".into()),
            back: "http://127.0.0.1:8400/signin/back".into(),
            scopes: vec!["profile".into()],
            number: "number".into(),
            name: "name".into(),
            levels: [("urn:high".to_owned(), AssuranceLevel::High)].into(),
        }
    }

    fn provider(&self) -> Provider {
        Provider::new(self.settings()).unwrap()
    }

    fn signs(&self) -> impl Fn(&[u8]) -> Vec<u8> {
        |text| self.key.sign(text).to_vec()
    }

    /// A person goes and comes back with a token that is made of the nonce they went with.
    async fn comes_back(
        &self,
        provider: &Provider,
        word: impl FnOnce(&Self, Value) -> String,
    ) -> Result<Proven, OidcError> {
        let (url, away) =
            provider.begin(Some(&Digest([7; 32])), Authenticated::Anew, Language::Chinese).await?;
        let query = url.split_once('?').unwrap().1;
        let asked: HashMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        assert_eq!(asked["nonce"], "07".repeat(32), "what is agreed to is bound into the provider's word");
        assert_eq!((asked["prompt"], asked["max_age"]), ("login", "60"));
        assert_eq!((asked["state"], asked["code_challenge_method"]), (away.state.as_str(), "S256"));
        assert_eq!(asked["ui_locales"], "zh-CN");
        let claims = json!({ "iss": self.issuer, "aud": "portal", "sub": "u1", "exp": now() + 60, "iat": now(),
            "auth_time": now(), "nonce": asked["nonce"], "number": NUMBER, "name": "欧阳·测试", "acr": "urn:high" });
        let word = word(self, claims);
        self.script.lock().unwrap().token =
            (200, json!({ "access_token": "a", "token_type": "Bearer", "id_token": word }));
        let challenge = asked["code_challenge"].to_owned();
        let proven = provider.finish(away, "the code".into()).await;
        let script = self.script.lock().unwrap();
        let verifier = crypto::digest(Suite::International, &[script.asked["code_verifier"].as_bytes()]);
        assert_eq!(BASE64.encode(verifier.0), challenge, "the code serves nobody who took it on its way");
        assert!(script.authorised && script.asked["code"] == "the code");
        proven
    }
}

fn header() -> Value {
    json!({ "alg": "EdDSA", "kid": "k1" })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test]
async fn a_word_is_taken_for_what_it_says_and_no_other() {
    choose_tls();
    let fake = Fake::start().await;
    let provider = fake.provider();
    let proven = fake.comes_back(&provider, |f, claims| jwt(&header(), &claims, f.signs())).await.unwrap();
    assert_eq!((proven.number.as_str(), proven.name.as_str()), (NUMBER, "欧阳·测试"));
    assert_eq!((proven.level, proven.token.split('.').count()), (AssuranceLevel::High, 3));

    // what it says is wrong
    let wrong: [(&str, Value); 8] = [
        ("nonce", json!("08".repeat(32))),
        ("aud", json!("another portal")),
        ("aud", json!(["portal", "another portal"])),
        ("iss", json!("http://127.0.0.1:1")),
        ("exp", json!(now() - 1)),
        ("auth_time", json!(now() - 600)),
        ("exp", json!("soon")),
        ("sub", json!(1)),
    ];
    for (name, value) in wrong {
        let made = fake
            .comes_back(&provider, |f, claims| jwt(&header(), &with(claims, name, value.clone()), f.signs()))
            .await;
        assert!(matches!(made, Err(OidcError::Word(_) | OidcError::Provider(_))), "{name} {value}: {made:?}");
    }
    for name in ["nonce", "aud", "exp", "sub", "auth_time"] {
        let made =
            fake.comes_back(&provider, |f, claims| jwt(&header(), &without(claims, name), f.signs())).await;
        assert!(matches!(made, Err(OidcError::Word(_) | OidcError::Provider(_))), "without {name}: {made:?}");
    }

    // it is not the provider's
    let other = SigningKey::random(Suite::International);
    type Sign<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
    let hmac =
        |text: &[u8]| crypto::keyed_hash(Suite::International, &[7; 32], "tongban/test/1", text).0.to_vec();
    let forged: [(Value, Sign<'_>); 5] = [
        (json!({ "alg": "none" }), Box::new(|_| vec![])),
        (json!({ "alg": "HS256" }), Box::new(hmac)),
        (header(), Box::new(|text| other.sign(text).to_vec())),
        (json!({ "alg": "EdDSA", "kid": "k2" }), Box::new(|text| other.sign(text).to_vec())),
        (header(), Box::new(|_| vec![0; 64])),
    ];
    for (head, sign) in forged {
        let made = fake.comes_back(&provider, |_, claims| jwt(&head, &claims, &sign)).await;
        assert!(matches!(made, Err(OidcError::Word(_))), "{head}: {made:?}");
    }
    for text in ["", "a.b.c", "a.b", "....", "not a token"] {
        let made = fake.comes_back(&provider, |_, _| text.to_owned()).await;
        assert!(made.is_err(), "{text}");
    }
}

#[tokio::test]
async fn who_is_not_named_is_nobody() {
    choose_tls();
    let fake = Fake::start().await;
    let provider = fake.provider();
    // what it only says elsewhere it did not sign
    for name in ["number", "name"] {
        let made =
            fake.comes_back(&provider, |f, claims| jwt(&header(), &without(claims, name), f.signs())).await;
        assert!(matches!(&made, Err(OidcError::Claim(claim)) if claim == name), "{made:?}");
    }
    for number in [json!(""), json!("1".repeat(65)), json!(7), json!(null), json!({ "a": 1 })] {
        let made = fake
            .comes_back(&provider, |f, claims| {
                jwt(&header(), &with(claims, "number", number.clone()), f.signs())
            })
            .await;
        assert!(matches!(&made, Err(OidcError::Claim(name)) if name == "number"), "{number}: {made:?}");
    }
}

#[tokio::test]
async fn a_provider_changes_its_keys() {
    choose_tls();
    let mut fake = Fake::start().await;
    let provider = fake.provider();
    let good = |f: &Fake, claims: Value| jwt(&header(), &claims, f.signs());
    fake.comes_back(&provider, good).await.unwrap();
    fake.key = SigningKey::random(Suite::International);
    let new = json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "k1", "alg": "EdDSA", "x": public(&fake.key) });
    fake.script.lock().unwrap().keys = json!({ "keys": [new] });
    // made-up tokens do not make the node ask for keys each time; a little later it asks
    assert!(matches!(fake.comes_back(&provider, good).await, Err(OidcError::Word(_))));
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    fake.comes_back(&provider, good).await.unwrap();
}

#[tokio::test]
async fn how_long_ago_a_person_authenticated_matters_where_it_does() {
    choose_tls();
    let fake = Fake::start().await;
    let provider = fake.provider();
    let minute = std::time::Duration::from_secs(60);
    for (wanted, ago, taken) in [
        (Authenticated::Within(minute), 30, true),
        (Authenticated::Within(minute), 120, false),
        (Authenticated::Ever, 7200, true),
        (Authenticated::Anew, 30, false),
        (Authenticated::Anew, 0, true),
    ] {
        let (url, away) = provider.begin(None, wanted, Language::English).await.unwrap();
        assert_eq!(url.contains("max_age=60"), wanted != Authenticated::Ever);
        let nonce = url.split("nonce=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
        let claims = json!({ "iss": fake.issuer, "aud": "portal", "sub": "u1", "exp": now() + 60, "iat": now(),
            "auth_time": now() - ago, "nonce": nonce, "number": NUMBER, "name": "甲" });
        let word = jwt(&header(), &claims, fake.signs());
        fake.script.lock().unwrap().token =
            (200, json!({ "access_token": "a", "token_type": "Bearer", "id_token": word }));
        let made = provider.finish(away, "the code".into()).await;
        assert_eq!(made.is_ok(), taken, "{wanted:?} {ago}: {made:?}");
    }
}

#[tokio::test]
async fn a_provider_that_does_not_keep_to_the_standard_says_nothing() {
    choose_tls();
    let fake = Fake::start().await;
    let begun = async |discovery: Value| {
        fake.script.lock().unwrap().discovery = discovery;
        fake.provider().begin(None, Authenticated::Ever, Language::English).await.map(|(url, _)| url)
    };
    let good = fake.script.lock().unwrap().discovery.clone();
    assert!(begun(good.clone()).await.unwrap().starts_with(&format!("{}/authorize?", fake.issuer)));
    for (name, value) in [
        ("issuer", "http://127.0.0.1:1"),
        ("authorization_endpoint", "http://another.example/authorize"),
        ("jwks_uri", "http://another.example/keys"),
        ("jwks_uri", "nowhere"),
    ] {
        let made = begun(with(good.clone(), name, json!(value))).await;
        assert!(matches!(made, Err(OidcError::Provider(_))), "{name}: {made:?}");
    }
    assert!(begun(json!({})).await.is_err());
    assert!(
        begun(json!({ "issuer": "x".repeat(300_000) })).await.unwrap_err().to_string().contains("too long")
    );
    fake.script.lock().unwrap().discovery = good;

    // the code is not taken
    let provider = fake.provider();
    for answer in [(400, json!({ "error": "invalid_grant" })), (500, json!("no")), (200, json!({}))] {
        let (_, away) = provider.begin(None, Authenticated::Ever, Language::English).await.unwrap();
        fake.script.lock().unwrap().token = answer.clone();
        let made = provider.finish(away, "the code".into()).await;
        assert!(matches!(made, Err(OidcError::Provider(_))), "{answer:?}: {made:?}");
    }
    // a provider that takes the secret in the body alone gets it there
    let ways =
        with(provider_of(&fake), "token_endpoint_auth_methods_supported", json!(["client_secret_post"]));
    fake.script.lock().unwrap().discovery = ways;
    let other = fake.provider();
    let (_, away) = other.begin(None, Authenticated::Ever, Language::English).await.unwrap();
    let _ = other.finish(away, "the code".into()).await;
    {
        let script = fake.script.lock().unwrap();
        assert!(!script.authorised && script.asked["client_secret"] == "a secret of both sides");
    }
    // signing out there is offered where it has a page for it
    let there = provider.leave("http://127.0.0.1:8400/").unwrap();
    assert!(
        there.starts_with(&format!("{}/end?", fake.issuer)) && there.contains("client_id=portal"),
        "{there}"
    );
}

fn provider_of(fake: &Fake) -> Value {
    fake.script.lock().unwrap().discovery.clone()
}

#[test]
fn people_are_sent_nowhere_in_the_clear() {
    choose_tls();
    let settings = |issuer: &str, back: &str| Settings {
        issuer: issuer.into(),
        client: "portal".into(),
        secret: None,
        back: back.into(),
        scopes: vec![],
        number: "number".into(),
        name: "name".into(),
        levels: Default::default(),
    };
    let back = "https://portal.example/signin/back";
    assert!(Provider::new(settings("https://id.example", back)).is_ok());
    for (issuer, back) in [
        ("http://id.example", back),
        ("id.example", back),
        ("https://id.example", "http://portal.example/signin/back"),
        ("https://id.example", "https://portal.example/elsewhere"),
        ("ftp://127.0.0.1", back),
    ] {
        assert!(
            matches!(Provider::new(settings(issuer, back)), Err(OidcError::Setting(_))),
            "{issuer} {back}"
        );
    }
}

/// How TLS is done is chosen by the node; no test here goes through it.
fn choose_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
