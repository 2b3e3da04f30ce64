//! A client that already has a file gets 304 without the file (RFC 9110, section 13).

use super::{
    browser::demo,
    daemon::Answer,
    wire::{ask, get},
};

const FILES: [&str; 5] = [
    "/comet.js",
    "/",
    "/touch",
    "/demo/demo.css",
    "/demo/icon.svg",
];

#[test]
fn a_file_that_the_client_has_is_not_sent_again() {
    let daemon = demo();
    let ask = |request: String| -> Answer { ask(&daemon, request) };
    for path in FILES {
        let whole = ask(get(path, ""));
        let tag = whole.header("etag").unwrap().to_owned();
        assert_eq!(whole.header("cache-control"), Some("no-cache"));
        let opaque = tag.trim_matches('"');
        for known in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"other\", {tag}"),
            format!("\"other\" ,W/{tag},\"more\""),
            format!("\"other\"\r\nIf-None-Match: {tag}"),
            format!("\"{opaque}-gzip\""),
            format!("W/\"{opaque}--gzip\""),
            format!("\"{opaque};br\""),
            "*".to_owned(),
        ] {
            for method in ["GET", "HEAD"] {
                let request = get(path, &format!("If-None-Match: {known}\r\n"));
                let answer = ask(request.replacen("GET", method, 1));
                assert_eq!(answer.status, 304, "{method} {path} {known}");
                assert_eq!(answer.header("etag"), Some(&*tag));
                assert_eq!(answer.header("cache-control"), Some("no-cache"));
                assert_eq!(answer.header("content-length"), None, "{}", answer.head);
                assert_eq!(answer.header("content-type"), None);
            }
        }
        for other in [
            "\"other\"",
            "W/\"other\"",
            opaque,
            "\"\"",
            "",
            "\"*\"",
            &tag[..5],
        ] {
            let answer = ask(get(path, &format!("If-None-Match: {other}\r\n")));
            assert_eq!(
                (answer.status, answer.body == whole.body),
                (200, true),
                "{path} {other}"
            );
            assert_eq!(answer.header("etag"), Some(&*tag));
        }
    }
}

#[test]
fn each_file_has_a_tag_of_its_own_and_figures_have_none() {
    let daemon = demo();
    let tag = |path: &str| {
        ask(&daemon, get(path, ""))
            .header("etag")
            .map(str::to_owned)
    };
    let mut tags: Vec<String> = FILES.iter().map(|path| tag(path).unwrap()).collect();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), FILES.len());
    for path in ["/metrics", "/healthz", "/demo.json"] {
        assert_eq!(tag(path), None, "{path}");
    }
}
