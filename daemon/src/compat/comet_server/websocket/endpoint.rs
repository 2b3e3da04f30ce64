//! What pages get over HTTP: the WebSocket, the script, and the status.

use super::{
    super::connections::Visitor,
    Opening, OpeningError, PageDialect,
    envelope::Form,
    url::{PageUrl, is_page_url},
};
use crate::{
    access::{Caller, permission::Credentials},
    api::{
        channel::no_websocket,
        endpoint::{Endpoint, PAGE_METHODS, UrlPath},
        pages,
    },
    config::{CometServerConfig, Secret},
    http::{
        answer::Answer,
        refusal::Refusal,
        request::Request,
        route::{Content, OpenProtocol, Route, Upgrade},
        upgrade,
    },
    hub::Hub,
    session::websocket::open_session,
};

/// The subprotocol, for clients that offer one.
const PROTOCOL: &str = "chat";

/// Most bytes that are stored of each header of a page.
const MAX_HEADER: usize = 200;

/// Our own script, which has the functions of `CometServerApi.js` that pages use.
const SCRIPT: &[u8] = include_bytes!("../../../../../web/CometServerApi.js");

/// Where pages of comet-server.ru connect.
pub(crate) struct PageEndpoint {
    /// What stands before the fields of the page's URL.
    prefixes: [String; 4],
    script: String,
    status: String,
    secret: Secret,
}

impl PageEndpoint {
    /// `None`: the settings switch the pages' half off.
    pub(crate) fn new(config: &CometServerConfig) -> Option<Self> {
        let path = config.path.as_str();
        if path.is_empty() {
            return None;
        }
        let path = format!("{}/", path.trim_end_matches('/'));
        Some(Self {
            prefixes: ["ws/", "/ws/", "comet-server/ws/", "/comet-server/ws/"]
                .map(|prefix| format!("{path}{prefix}")),
            script: format!("{path}CometServerApi.js"),
            status: format!("{path}info"),
            secret: config.key.clone(),
        })
    }

    /// The fields in the URL of a page.
    fn fields<'a>(&self, path: &UrlPath<'a>) -> Option<&'a str> {
        let mut found = self.prefixes.iter().filter_map(|prefix| path.after(prefix));
        found.find(|rest| is_page_url(rest))
    }

    fn connect(&self, fields: &str, caller: &Caller<'_>) -> Result<Route, Refusal> {
        let request = caller.request;
        let handshake =
            upgrade::check(request, PROTOCOL).map_err(|error| no_websocket(request, error))?;
        let url = PageUrl::parse(fields);
        let form = url.as_ref().map_or(Form::Current, |url| url.form);
        let (credentials, refused) = match Credentials::of(caller) {
            Ok(credentials) => (credentials, None),
            Err(refusal) => (Credentials::default(), Some(refusal)),
        };
        let opening = match (url, refused) {
            (_, Some(refusal)) => Err(OpeningError::Origin(refusal.message().to_owned())),
            (Err(missing), _) => Err(missing.into()),
            (Ok(url), None) => Ok(Box::new(self.opening(&url, request))),
        };
        let open: OpenProtocol = Box::new(move |http, conn| {
            let dialect = PageDialect::new(form, opening.map(|page| page.from(conn.peer_ip())));
            open_session(credentials, dialect)(http, conn)
        });
        Ok(Route::Upgrade(Upgrade { handshake, open }))
    }

    fn opening(&self, url: &PageUrl<'_>, request: &Request<'_>) -> Opening {
        let header = |name| {
            let text = request.texts(name).next().unwrap_or_default();
            text.chars().take(MAX_HEADER).collect()
        };
        Opening {
            key: url.key.to_owned(),
            site: url.site.to_owned(),
            secret: self.secret.clone(),
            visitor: Visitor {
                user: url.user,
                uuid: url.uuid.to_owned(),
                user_agent: header("user-agent"),
                ip: String::new(),
                origin: header("origin"),
                language: header("accept-language"),
            },
        }
    }
}

impl Endpoint for PageEndpoint {
    fn methods(&self, path: &UrlPath<'_>) -> Option<&'static str> {
        let is_here = path.is(&self.script) || path.is(&self.status) || self.fields(path).is_some();
        is_here.then_some(PAGE_METHODS)
    }

    fn route(
        &self,
        caller: &Caller<'_>,
        _content: Content<'_>,
        _hub: &Hub,
    ) -> Result<Route, Refusal> {
        let path = UrlPath::new(caller.request.path);
        if let Some(fields) = self.fields(&path) {
            return self.connect(fields, caller);
        }
        Ok(Route::Answer(match path.is(&self.script) {
            true => pages::script(caller.request, SCRIPT),
            false => Answer::json(r#"{"status":"ok","node":"comet"}"#),
        }))
    }
}
