use std::fs;
use std::path::Path;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tonic::codegen::Service as _;

use super::*;

async fn asked(path: &str, known: Option<&HeaderValue>) -> Response {
    let mut request = Request::get(path).body(Body::empty()).unwrap();
    if let Some(known) = known {
        request.headers_mut().insert(IF_NONE_MATCH, known.clone());
    }
    routes().call(request).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let page = asked("/", None).await;
    let header = |name: HeaderName| page.headers()[name].to_str().unwrap();
    assert_eq!(header(CONTENT_TYPE), HTML);
    assert_eq!(
        header(CONTENT_SECURITY_POLICY),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    );
    assert_eq!(header(X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(header(REFERRER_POLICY), "same-origin");
    assert_eq!(header(CACHE_CONTROL), "no-cache");
    let namespace = "http://www.w3.org/2000/svg";
    for asset in &ASSETS {
        let foreign = asset.text.replace(namespace, "").contains("://");
        assert!(!foreign, "{} names another origin", asset.path);
    }
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let first = asked("/console/main.js", None).await;
    assert_eq!(first.status(), StatusCode::OK);
    let tag = first.headers()[ETAG].clone();
    assert!(text(first).await.contains("import"));
    for known in [tag.clone(), HeaderValue::from_str(&format!("\"x\", W/{}", tag.to_str().unwrap())).unwrap()]
    {
        let again = asked("/console/main.js", Some(&known)).await;
        assert_eq!((again.status(), &again.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &tag));
        assert_eq!(text(again).await, "");
    }
    let other = asked("/console/dom.js", Some(&tag)).await;
    assert_eq!(other.status(), StatusCode::OK, "each file has a tag of its own");
}

#[tokio::test]
async fn every_file_is_served_and_nothing_sets_html() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/console");
    let mut served = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = match name.as_str() {
            "index.html" => "/".to_owned(),
            name if name.ends_with(".rs") => continue,
            name => format!("/console/{name}"),
        };
        let response = asked(&path, None).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let text = text(response).await;
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style="] {
            assert!(!text.contains(way), "{path} has {way}");
        }
        served += 1;
    }
    assert_eq!(served, ASSETS.len());
    assert_eq!(asked("/console/none.js", None).await.status(), StatusCode::NOT_FOUND);
}
