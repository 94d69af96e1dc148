//! An identity provider (OpenID Connect Core 1.0, authorization code flow with PKCE): a person authenticates before it, and it signs a
//! word about who they are, bound to one nonce. What a person agrees to is hashed into that nonce, so that the provider's word is for
//! exactly that and for nothing else.

use model::{AssuranceLevel, Digest, Language};
use openidconnect::{
    AdditionalClaims, AsyncHttpClient, AuthType, AuthenticationFlow, AuthorizationCode,
    ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken, DiscoveryError,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    IdTokenFields, IssuerUrl, LanguageTag, LogoutRequest, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    PostLogoutRedirectUrl, ProviderMetadataWithLogout, RedirectUrl, Scope, StandardErrorResponse,
    StandardTokenResponse, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim,
        CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType,
        CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a provider may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer taken, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long what a provider says of itself, its keys too, is taken for true.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// For how much longer where the provider does not answer just then.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long nobody waits again for one that did not answer.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Keys are looked up anew at most this often, whatever tokens name.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How far the provider's clock may be from this one where it says when somebody authenticated, in seconds.
const CLOCK_SKEW_S: i64 = 10;
/// The signatures taken: those that somebody else than the two sides can verify (RFC 7518, 3.1; RFC 8037).
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Which provider, and how its words are read.
#[derive(Clone)]
pub struct Settings {
    /// Its address, exactly as it names itself; `https`, or `http` on this machine.
    pub issuer: String,
    /// The name this portal is registered under there.
    pub client: String,
    /// The secret that goes with it; none for a public client.
    pub secret: Option<String>,
    /// Where people come back to: the portal's own address, ending in `/signin/back`.
    pub back: String,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that holds the resident identity number.
    pub number: String,
    /// The claim that holds the name.
    pub name: String,
    /// How sure the consortium is of what the provider calls these (`acr`); of anything else [`AssuranceLevel::Substantial`].
    pub levels: BTreeMap<String, AssuranceLevel>,
}

/// Why a person could not be known from a provider.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
    /// The provider does not answer, or not as the standard wants.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// What the provider says does not verify.
    #[error("the identity provider's word was not taken: {0}")]
    Word(String),
    /// The provider knows the person, and does not say what is asked of it.
    #[error("the identity provider does not say `{0}`")]
    Claim(String),
}

/// When a person must have authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authenticated {
    /// Whenever: somebody checks that it is who was there before.
    Ever,
    /// No longer ago than this.
    Within(Duration),
    /// After they were sent, however short ago they did before.
    Anew,
}

/// What is remembered of a person who was sent to the provider.
pub struct Away {
    /// Comes back with them.
    pub state: String,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    /// The earliest they may have authenticated, in seconds since 1970, where that matters.
    not_before: Option<i64>,
}

/// Who came back, and the provider's signed word on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The number, as the provider says it.
    pub number: String,
    /// The name, as the provider says it.
    pub name: String,
    /// How sure that is.
    pub level: AssuranceLevel,
    /// The provider's word, as it signed it (a JWT, RFC 7519): names the person, and goes no further than the handler's vault.
    pub token: String,
}

/// What a word says beyond the standard's claims.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct More(Map<String, Value>);

impl AdditionalClaims for More {}

type Fields = IdTokenFields<
    More,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type Known = Client<
    More,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// What a provider said of itself.
struct Discovered {
    client: Known,
    metadata: ProviderMetadataWithLogout,
    at: Instant,
}

/// A provider, as this portal knows it.
pub struct Provider {
    settings: Settings,
    issuer: IssuerUrl,
    back: RedirectUrl,
    http: Http,
    discovered: Mutex<Option<Arc<Discovered>>>,
    /// When it was last asked about itself in vain.
    silent: Mutex<Option<Instant>>,
}

/// Asks a provider: in time, no further than it said, and no more than fits.
struct Http(reqwest::Client);

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NoAnswer(String);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = NoAnswer;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, NoAnswer>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            // not the error's own words: they hold the address, and with it what was asked
            let failed = |e: reqwest::Error| {
                NoAnswer(if e.is_timeout() { "no answer in time" } else { "no connection" }.into())
            };
            let (parts, body) = request.into_parts();
            let url = openidconnect::url::Url::parse(&parts.uri.to_string());
            if !url.is_ok_and(|url| is_safe(&url)) {
                return Err(NoAnswer("it names an address without TLS".into()));
            }
            let mut asked = self.0.request(parts.method, parts.uri.to_string()).body(body);
            asked = asked.headers(parts.headers);
            let mut answer = asked.send().await.map_err(failed)?;
            let mut response = openidconnect::http::Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                response = response.header(name, value);
            }
            let mut body = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(failed)? {
                if body.len() + part.len() > ANSWER_BYTES_MAX {
                    return Err(NoAnswer("its answer is too long".into()));
                }
                body.extend_from_slice(&part);
            }
            response.body(body).map_err(|_| NoAnswer("its answer is no HTTP".into()))
        })
    }
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Whether an address is reached through TLS, or on this machine alone.
fn is_safe(url: &openidconnect::url::Url) -> bool {
    let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() == "https" || (url.scheme() == "http" && local)
}

/// The value of a claim, where it is a text.
fn claim(claims: &Value, name: &str) -> Option<String> {
    let text = claims.get(name)?.as_str()?.trim();
    (!text.is_empty() && text.chars().count() <= 64).then(|| text.to_owned())
}

impl Provider {
    /// A provider; it is asked nothing yet. How TLS is done must be chosen before (`gateway::use_tls`).
    ///
    /// # Errors
    /// Where a setting cannot be used.
    pub fn new(settings: Settings) -> Result<Self, OidcError> {
        let wrong = |what: &str| {
            OidcError::Setting(format!("{what} is no address through https (or of this machine)"))
        };
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|_| wrong("`issuer`"))?;
        let back = RedirectUrl::new(settings.back.clone()).map_err(|_| wrong("`back`"))?;
        if !is_safe(issuer.url()) {
            return Err(wrong("`issuer`"));
        }
        if !is_safe(back.url()) {
            return Err(wrong("`back`"));
        }
        if !back.url().path().ends_with("/signin/back") {
            return Err(OidcError::Setting("`back` is the portal's address, ending in /signin/back".into()));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|_| OidcError::Setting("no HTTP client can be made".into()))?;
        Ok(Self {
            settings,
            issuer,
            back,
            http: Http(http),
            discovered: Mutex::default(),
            silent: Mutex::default(),
        })
    }

    /// What the provider says of itself, no older than `at_most`.
    async fn discovered(&self, at_most: Duration) -> Result<Arc<Discovered>, OidcError> {
        let known = self.discovered.lock().expect("no holder panics").clone();
        let silent = *self.silent.lock().expect("no holder panics");
        let asked_in_vain = silent.is_some_and(|at| at.elapsed() < SILENT_FOR);
        if let Some(known) = known.filter(|k| k.at.elapsed() < at_most || asked_in_vain) {
            return Ok(known);
        }
        let kept = self.discovered.lock().expect("no holder panics").clone();
        match self.discover().await {
            Ok(found) => {
                *self.discovered.lock().expect("no holder panics") = Some(found.clone());
                Ok(found)
            }
            Err(e) => {
                let kept = kept.filter(|k| k.at.elapsed() < KEPT_FOR).ok_or(e)?;
                *self.silent.lock().expect("no holder panics") = Some(Instant::now());
                Ok(kept)
            }
        }
    }

    async fn discover(&self) -> Result<Arc<Discovered>, OidcError> {
        let metadata = ProviderMetadataWithLogout::discover_async(self.issuer.clone(), &self.http).await;
        let metadata = metadata.map_err(|e| {
            OidcError::Provider(match e {
                DiscoveryError::Request(NoAnswer(why)) => why,
                DiscoveryError::Response(status, ..) => {
                    format!("it answers with status {status} where it should describe itself")
                }
                DiscoveryError::Validation(why) => why,
                _ => "what it says of itself cannot be read".into(),
            })
        })?;
        if !is_safe(metadata.authorization_endpoint().url()) {
            return Err(OidcError::Provider("it names an address without TLS".into()));
        }
        let secret = self.settings.secret.clone().map(ClientSecret::new);
        let client = Known::from_provider_metadata(
            metadata.clone(),
            ClientId::new(self.settings.client.clone()),
            secret,
        );
        // in the header where the provider does not say otherwise (Discovery 1.0, section 3)
        let ways = metadata.token_endpoint_auth_methods_supported();
        let basic = ways.is_none_or(|ways| ways.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let client = client.set_redirect_uri(self.back.clone()).set_auth_type(if basic {
            AuthType::BasicAuth
        } else {
            AuthType::RequestBody
        });
        Ok(Arc::new(Discovered { client, metadata, at: Instant::now() }))
    }

    /// Where a person goes, and what is to be remembered until they come back. What they agree to is `bound` into the provider's word.
    ///
    /// # Errors
    /// Where the provider does not describe itself.
    pub async fn begin(
        &self,
        bound: Option<&Digest>,
        authenticated: Authenticated,
        language: Language,
    ) -> Result<(String, Away), OidcError> {
        let discovered = self.discovered(KNOWN_FOR).await?;
        let nonce = bound.map_or_else(Nonce::new_random, |digest| Nonce::new(digest.to_string()));
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = discovered
            .client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                || nonce,
            )
            .add_scopes(self.settings.scopes.iter().cloned().map(Scope::new))
            .add_ui_locale(LanguageTag::new(language.tag().to_owned()))
            .set_pkce_challenge(challenge);
        let not_before = match authenticated {
            Authenticated::Ever => None,
            Authenticated::Within(time) => {
                request = request.set_max_age(time);
                Some(now_s() - time.as_secs() as i64)
            }
            Authenticated::Anew => {
                // the second for the time of authentication alone, which the standard then wants said; by zero some ask for ever
                request = request.add_prompt(CoreAuthPrompt::Login).set_max_age(Duration::from_secs(60));
                Some(now_s())
            }
        };
        let (url, state, nonce) = request.url();
        let away = Away { state: state.into_secret(), nonce, verifier, not_before };
        Ok((url.into(), away))
    }

    /// Who came back with a code.
    ///
    /// # Errors
    /// Where the provider does not take the code, or its word does not verify: not of this provider for this portal, of another nonce,
    /// out of its time, or of a person who was to authenticate anew and did not.
    pub async fn finish(&self, away: Away, code: String) -> Result<Proven, OidcError> {
        let mut discovered = self.discovered(KNOWN_FOR).await?;
        let unset = |_| OidcError::Provider("it names no address for tokens".into());
        let request = discovered.client.exchange_code(AuthorizationCode::new(code)).map_err(unset)?;
        let answer = request.set_pkce_verifier(away.verifier).request_async(&self.http).await;
        let answer = answer.map_err(|e| {
            OidcError::Provider(match e {
                openidconnect::RequestTokenError::Request(NoAnswer(why)) => why,
                openidconnect::RequestTokenError::ServerResponse(said) => {
                    format!("it does not take the code: {}", said.error())
                }
                _ => "its answer to the code cannot be read".into(),
            })
        })?;
        let token = answer.id_token().ok_or_else(|| OidcError::Word("there is none".into()))?;
        let verified = |known: &Discovered| {
            let verifier = known.client.id_token_verifier().set_allowed_algs(ALGORITHMS);
            token.claims(&verifier, &away.nonce).cloned()
        };
        let mut claims = verified(&discovered);
        if matches!(claims, Err(ClaimsVerificationError::SignatureVerification(_))) {
            // its keys may have changed since they were looked up
            discovered = self.discovered(LOOK_AGAIN).await?;
            claims = verified(&discovered);
        }
        let claims = claims.map_err(|e| OidcError::Word(e.to_string()))?;
        let authenticated = claims.auth_time().map(|at| at.timestamp());
        match (away.not_before, authenticated) {
            (Some(earliest), Some(at)) if at + CLOCK_SKEW_S < earliest => {
                return Err(OidcError::Word("the person authenticated too long ago".into()));
            }
            (Some(_), None) => {
                return Err(OidcError::Word(
                    "it does not say when the person authenticated (`auth_time`)".into(),
                ));
            }
            _ => {}
        }
        let level = claims.auth_context_ref().and_then(|acr| self.settings.levels.get(acr.as_str()));
        let level = level.copied().unwrap_or(AssuranceLevel::Substantial);
        // what it says elsewhere (userinfo) is not what it signed
        let said = serde_json::to_value(&claims).unwrap_or_default();
        let of = |name: &String| claim(&said, name).ok_or_else(|| OidcError::Claim(name.clone()));
        Ok(Proven {
            number: of(&self.settings.number)?,
            name: of(&self.settings.name)?,
            level,
            token: token.to_string(),
        })
    }

    /// Where a person goes to sign out there too, and from there to `then`; none where the provider has no such page.
    pub fn leave(&self, then: &str) -> Option<String> {
        // from what is known: whoever leaves does not wait
        let discovered = self.discovered.lock().expect("no holder panics").clone()?;
        let end = discovered.metadata.additional_metadata().end_session_endpoint.clone();
        let end = end.filter(|end| is_safe(end.url()))?;
        let then = PostLogoutRedirectUrl::new(then.to_owned()).ok()?;
        let request = LogoutRequest::from(end)
            .set_client_id(ClientId::new(self.settings.client.clone()))
            .set_post_logout_redirect_uri(then);
        Some(request.http_get_url().into())
    }
}

/// The nonce of an assertion that rests on a provider's word: it commits to that word, which the handler keeps and can be asked for.
pub fn evidence_nonce(token: &str) -> u64 {
    let hash = crypto::digest(model::Suite::International, &[b"tongban/evidence/1\0", token.as_bytes()]);
    u64::from_le_bytes(hash.0[..8].try_into().expect("eight of 32 bytes"))
}

/// What a provider's word on who a party is, is bound to.
pub fn identify_binding(who: &crate::Identified<'_>) -> Digest {
    let said = model::encode(&(who.chain, who.case, who.role.clone(), who.subject));
    crypto::digest(model::Suite::International, &[b"tongban/oidc-identify/1\0", &said])
}

/// What a provider's word on a consent is bound to: the terms, and with them the hash of the exact text the person saw.
pub fn consent_binding(terms: &model::ConsentTerms) -> Digest {
    crypto::digest(model::Suite::International, &[b"tongban/oidc-consent/1\0", &terms.signing_bytes()])
}
