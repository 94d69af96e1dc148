//! The HTTP server: so many connections at once, and no waiting for whoever sends a header or a body too slowly.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tower_http::{set_header::SetResponseHeaderLayer, timeout::RequestBodyTimeoutLayer};
use tracing::{debug, warn};

/// The most connections at once; more wait to be taken. Fewer than a process may have files open by default.
const CONNECTIONS_MAX: usize = 512;
/// How long a connection may take to send a request's header, also the next one; and how long a request's body may pause.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What answers that are no page may do in a browser: nothing.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Puts around all a node serves what every answer carries, where it does not say otherwise itself.
pub(crate) fn guarded(router: Router, behind_tls: bool, patience: Duration) -> Router {
    let set = |name: HeaderName, value: &'static str| {
        SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
    };
    let guarded = router
        .layer(RequestBodyTimeoutLayer::new(patience))
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
        .layer(set(header::CACHE_CONTROL, "no-store"))
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .layer(set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin"))
        .layer(set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"));
    match behind_tls {
        // two years, as RFC 6797 lets browsers remember it
        true => guarded.layer(set(header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains")),
        false => guarded,
    }
}

/// Serves until it is dropped or aborted, and its connections with it.
pub(crate) async fn serve(listener: TcpListener, router: Router, patience: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                // out of file descriptors, most likely: others are closed meanwhile
                warn!(error = %e, "a connection could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(e) = served.await {
                debug!(error = %e, "a connection ended early");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    async fn served(patience: Duration) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/own", get(|| async { ([(header::CACHE_CONTROL, "public")], "here") }))
            .route("/take", post(|body: axum::body::Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(listener, guarded(router, true, patience), patience));
        address
    }

    async fn said(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn every_answer_carries_what_guards_it() {
        let address = served(PATIENCE).await;
        for path in ["/", "/own", "/nothing"] {
            let answer =
                said(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
            for header in [
                "content-security-policy: default-src 'none'",
                "x-content-type-options: nosniff",
                "referrer-policy: no-referrer",
                "strict-transport-security: max-age=63072000",
                "cache-control: ",
            ] {
                assert!(answer.contains(header), "{path} lacks {header}: {answer}");
            }
            assert_eq!(answer.contains("cache-control: public"), path == "/own", "its own word stands");
        }
    }

    #[tokio::test]
    async fn whoever_is_slow_is_not_waited_for() {
        let address = served(Duration::from_millis(200)).await;
        let mut header = TcpStream::connect(address).await.unwrap();
        header.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.unwrap();
        let mut body = TcpStream::connect(address).await.unwrap();
        body.write_all(
            b"POST /take HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf",
        )
        .await
        .unwrap();
        let mut answer = String::new();
        header.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("here"), "{answer}");
        answer.clear();
        body.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}
