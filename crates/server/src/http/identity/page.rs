//! The pages that people sign in on: small, readable without style or script, and closed.
//!
//! Nothing is loaded from anywhere; a page may send its form to this server and to nobody else
//! but the address that its client waits at; no other page may frame it. All text that is not
//! ours is escaped. A form carries a sealed [`Slip`] that says what it is for, bound to a
//! cookie that other sites can neither read nor set, so that nobody can have a form sent in
//! somebody else's browser.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use portolan_auth::ticket::{self, Purpose};
use portolan_service::sign_in::code::CodeRequest;
use portolan_service::{Error, Kind};
use portolan_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::App;
use crate::http::error::{self, Note};
use crate::http::{Conn, Response, respond};

/// How long a page may be open before it is sent.
const SLIP_SECS: i64 = 3_600;
const COOKIE_CHARS: usize = 22;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;\
background:Canvas;color:CanvasText}\
main{box-sizing:border-box;width:min(26rem,100vw);padding:2rem}\
h1{font-size:1.5rem;margin:0 0 .5rem}\
label{display:block;margin:1rem 0 .25rem;font-weight:600}\
input{box-sizing:border-box;width:100%;font:inherit;padding:.5rem;border:1px solid GrayText;border-radius:.25rem}\
button,.button{box-sizing:border-box;display:block;width:100%;margin-top:1.25rem;padding:.6rem;font:inherit;\
font-weight:600;text-align:center;text-decoration:none;border:1px solid #0b5cad;border-radius:.25rem;\
background:#0b5cad;color:#fff;cursor:pointer}\
button.second,.button.second{background:Canvas;color:CanvasText;border-color:GrayText}\
:focus-visible{outline:3px solid #f5a623;outline-offset:2px}\
[role=alert]{border-left:.3rem solid #c62828;padding:.5rem .75rem;margin:1rem 0}\
.note{color:GrayText;font-size:.9rem}\
code{font-size:1.25rem;letter-spacing:.1em}";

/// What somebody signs in for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Errand {
    /// A client waits at a port of the person's machine.
    Code {
        request: CodeRequest,
        /// The client's own, to be handed back.
        state: Option<String>,
        /// Whether the answer is posted (else it is in the query).
        post: bool,
    },
    /// A client waits elsewhere.
    Device {
        /// Which.
        id: String,
        /// From where it was begun.
        address: String,
        /// Its name.
        client: String,
    },
    /// End all sessions.
    SignOut,
    /// Choose another password.
    Password,
}

/// What a form says it is for; sealed.
#[derive(Serialize, Deserialize)]
struct Slip {
    errand: Errand,
    cookie: String,
    until: i64,
}

/// A page that is being written.
pub(super) struct Page<'a> {
    status: StatusCode,
    title: &'a str,
    body: String,
    /// Where the form may lead besides here.
    leads_to: Option<String>,
    /// Whether the one form sends itself, where scripts run.
    sends_itself: bool,
    cookie: Option<String>,
}

impl<'a> Page<'a> {
    pub(super) fn new(title: &'a str) -> Page<'a> {
        let status = StatusCode::OK;
        Page { status, title, body: String::new(), leads_to: None, sends_itself: false, cookie: None }
    }

    pub(super) fn status(mut self, status: StatusCode) -> Page<'a> {
        self.status = status;
        self
    }

    /// Add HTML of our own.
    pub(super) fn html(mut self, html: &str) -> Page<'a> {
        self.body.push_str(html);
        self
    }

    /// Add a paragraph of any text.
    pub(super) fn text(mut self, text: &str) -> Page<'a> {
        self.body.push_str(&format!("<p>{}</p>", escape(text)));
        self
    }

    /// Add what went wrong, for the reader to be told at once.
    pub(super) fn alert(mut self, text: Option<&str>) -> Page<'a> {
        if let Some(text) = text {
            self.body.push_str(&format!("<p role=\"alert\" id=\"problem\">{}</p>", escape(text)));
        }
        self
    }

    /// The form may lead to this address of the person's own machine.
    pub(super) fn leads_to(mut self, redirect: &str) -> Page<'a> {
        self.leads_to = origin(redirect);
        self
    }

    pub(super) fn sends_itself(mut self) -> Page<'a> {
        self.sends_itself = true;
        self
    }

    pub(super) fn cookie(mut self, cookie: Option<String>) -> Page<'a> {
        self.cookie = cookie;
        self
    }

    /// The page as an answer.
    pub(super) fn answer(self, parts: &Parts) -> Response {
        let nonce = random_text();
        let script = if self.sends_itself {
            format!("<script nonce=\"{nonce}\">document.forms[0].submit()</script>")
        } else {
            String::new()
        };
        let title = escape(self.title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Portolan</title>\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"robots\" content=\"noindex\"><style nonce=\"{nonce}\">{STYLE}</style></head>\
             <body><main><h1>{title}</h1>{}</main>{script}</body></html>\n",
            self.body
        );
        let mut res = respond::bytes_of(self.status, HeaderValue::from_static("text/html; charset=utf-8"), html.into());
        let leads_to = self.leads_to.as_deref().unwrap_or_default();
        let script = if self.sends_itself { format!("; script-src 'nonce-{nonce}'") } else { String::new() };
        let policy = format!(
            "default-src 'none'; style-src 'nonce-{nonce}'{script}; form-action 'self' {leads_to}; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        let headers = res.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_FRAME_OPTIONS, "DENY".to_owned()),
            (header::REFERRER_POLICY, "same-origin".to_owned()),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin".to_owned()),
            (header::CACHE_CONTROL, "no-store".to_owned()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        if let Some(cookie) = &self.cookie {
            let (name, secure) = match is_https(parts) {
                true => (SECURE_COOKIE, "; Secure"),
                false => (PLAIN_COOKIE, ""),
            };
            // Lax: the way back from another provider is a visit from another site.
            let text = format!("{name}={cookie}; Path=/; HttpOnly; SameSite=Lax{secure}");
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(header::SET_COOKIE, value);
            }
        }
        res
    }
}

/// An error on a page of its own.
pub(super) fn problem(error: &Error, parts: &Parts) -> Response {
    let words = error.message.as_str();
    let page = Page::new("That did not work").status(error::status(error.kind)).alert(Some(words));
    noted(page.answer(parts), error)
}

/// Leave the error for the logs.
pub(super) fn noted(mut res: Response, error: &Error) -> Response {
    if let Kind::TooMany { retry_after_secs } = error.kind {
        res.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_secs));
    }
    res.extensions_mut().insert(Note { code: error.code, message: error.message.clone(), cause: None });
    res
}

/// `&`, `<`, `>` and quotes as entities: for text and for attributes in quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `http://localhost:8400/x` → `http://localhost:8400`.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let plain = authority.bytes().all(|c| c.is_ascii_alphanumeric() || b".-:".contains(&c));
    plain.then(|| format!("{scheme}://{authority}"))
}

const SECURE_COOKIE: &str = "__Host-portolan-sign-in";
const PLAIN_COOKIE: &str = "portolan-sign-in";

fn is_https(parts: &Parts) -> bool {
    parts.extensions.get::<Conn>().is_none_or(|conn| conn.scheme == "https")
}

/// 128 random bits as text.
pub(super) fn random_text() -> String {
    URL_SAFE_NO_PAD.encode(
        uuid::Uuid::new_v4().as_bytes().iter().chain(uuid::Uuid::new_v4().as_bytes()).copied().collect::<Vec<u8>>(),
    )[..COOKIE_CHARS]
        .to_owned()
}

/// The browser's cookie, if it has one that is ours.
pub(super) fn cookie(parts: &Parts) -> Option<String> {
    let name = if is_https(parts) { SECURE_COOKIE } else { PLAIN_COOKIE };
    let mut found = cookies(&parts.headers).filter(|(key, _)| *key == name).map(|(_, value)| value);
    let value = found.next()?;
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
    (found.next().is_none() && value.len() == COOKIE_CHARS && value.bytes().all(good)).then(|| value.to_owned())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

/// A slip for a form, and the cookie that it is bound to.
pub(super) fn slip(app: &App, parts: &Parts, errand: &Errand) -> Result<(String, String), Error> {
    let cookie = cookie(parts).unwrap_or_else(random_text);
    let slip = Slip { errand: errand.clone(), cookie: cookie.clone(), until: Timestamp::now().unix_secs() + SLIP_SECS };
    let sealed = ticket::seal(app.service.authority.master(), Purpose::Page, &slip)
        .map_err(|e| Error::new(Kind::Internal, "InternalServerError", "the page could not be made").with_source(e))?;
    Ok((sealed.into_exposed(), cookie))
}

/// What a form that came back is for.
///
/// Errors: `Forbidden` when the form is not one that this browser was given: another site
/// may have sent it.
pub(super) fn errand(app: &App, parts: &Parts, sealed: &str) -> Result<Errand, Error> {
    let foreign = parts.headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    let slip: Option<Slip> = ticket::open(app.service.authority.master(), Purpose::Page, sealed);
    match slip.filter(|slip| !foreign && cookie(parts).as_deref() == Some(slip.cookie.as_str())) {
        Some(slip) if Timestamp::now().unix_secs() < slip.until => Ok(slip.errand),
        Some(_) => Err(Error::new(Kind::Invalid, "expired_page", "This page was open for too long. Begin again.")),
        None => Err(Error::new(
            Kind::Forbidden,
            "foreign_page",
            "This page was not opened in this browser, or the browser takes no cookies. Begin again.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_text() {
        assert_eq!(escape("<a href=\"x\" onclick='y'>&"), "&lt;a href=&quot;x&quot; onclick=&#39;y&#39;&gt;&amp;");
    }

    #[test]
    fn forms_lead_to_an_origin() {
        assert_eq!(origin("http://localhost:8400/a?b").as_deref(), Some("http://localhost:8400"));
        assert_eq!(origin("http://localhost:8400;script-src *"), None);
        assert_eq!(origin("localhost"), None);
    }

    #[test]
    fn a_cookie_is_ours_whole_and_once() {
        let good = "A".repeat(COOKIE_CHARS);
        let of = |header: &str| {
            let req = http::Request::builder().header("cookie", header).body(()).unwrap();
            cookie(&req.into_parts().0)
        };
        assert_eq!(of(&format!("a=b; {SECURE_COOKIE}={good}; c=d")), Some(good.clone()));
        for bad in [
            format!("{PLAIN_COOKIE}={good}"),
            format!("{SECURE_COOKIE}=short"),
            format!("{SECURE_COOKIE}={good}; {SECURE_COOKIE}={good}"),
            format!("{SECURE_COOKIE}={}\"", &good[1..]),
            "x".to_owned(),
        ] {
            assert_eq!(of(&bad), None, "{bad}");
        }
    }
}
