//! Signing in on a page: for a client that waits at the person's machine (`/authorize`), for
//! one that waits elsewhere (`/devicelogin`), to end all sessions (`/logout`), to choose
//! another password.
//!
//! A page is asked for, shows one form, and the form comes back with the slip that says what
//! it is for. Nothing stays in the browser but a cookie that the forms are bound to: nobody
//! who opens the browser later is signed in, and nobody needs to sign out of it.

use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use portolan_auth::access::Principal;
use portolan_service::sign_in::code::CodeRequest;
use portolan_service::sign_in::{Proof, Scopes, device};
use portolan_service::{Error, Kind};
use portolan_types::{Secret, Timestamp};
use serde_urlencoded as urlencoded;

use super::page::{self, Errand, Page, escape};
use crate::App;
use crate::http::Response;
use crate::http::caller::{self, base_url};
use crate::http::respond::{self, field};

/// Longest state of a client, in bytes.
const STATE_BYTES_MAX: usize = 4_096;

/// `GET /{tenant}/oauth2/v2.0/authorize`: a client sent the person here.
pub(super) fn authorize(app: &App, parts: &Parts) -> Response {
    let query = respond::query(&parts.uri);
    match code_errand(app, parts, &query) {
        Ok((errand, _)) if field(&query, "prompt") == Some("none") => deliver(
            parts,
            &errand,
            &Err(("login_required", "AADSTS50058: A silent sign-in request was sent but no user is signed in.")),
        ),
        Ok((errand, name)) => form(app, parts, &errand, &name, field(&query, "login_hint").unwrap_or_default(), None),
        Err(e) => page::problem(&e, parts),
    }
}

/// What a client asks for, and its name.
fn code_errand(app: &App, parts: &Parts, query: &[(String, String)]) -> Result<(Errand, String), Error> {
    let bad = |why: &str| Error::new(Kind::Invalid, "invalid_request", why);
    let text = |name: &str| field(query, name).unwrap_or_default().to_owned();
    let client = app.service.sign_in_client(&text("client_id"))?;
    if field(query, "response_type") != Some("code") {
        return Err(bad("AADSTS70011: The response type must be 'code'."));
    }
    let post = match field(query, "response_mode") {
        None | Some("" | "query") => false,
        Some("form_post") => true,
        Some(_) => return Err(bad("AADSTS70007: The response mode must be 'query' or 'form_post'.")),
    };
    if field(query, "code_challenge_method") != Some("S256") {
        return Err(bad("AADSTS9002325: Proof Key for Code Exchange with method S256 is required."));
    }
    let state = field(query, "state").map(str::to_owned);
    if state.as_ref().is_some_and(|s| s.len() > STATE_BYTES_MAX || s.chars().any(char::is_control)) {
        return Err(bad("AADSTS9000411: The parameter 'state' is too long."));
    }
    let base = base_url(app, parts);
    let request = CodeRequest {
        client: client.id,
        redirect: text("redirect_uri"),
        challenge: text("code_challenge"),
        scopes: Scopes::parse(field(query, "scope"), field(query, "resource"), &base)?,
        nonce: field(query, "nonce").map(str::to_owned),
    };
    request.check()?;
    Ok((Errand::Code { request, state, post }, client.name))
}

/// `GET /devicelogin`: the person has a code, or has typed it.
pub(super) async fn device(app: &App, parts: &Parts) -> Response {
    let query = respond::query(&parts.uri);
    let typed = field(&query, "user_code").unwrap_or_default();
    if device::normal_code(typed).is_empty() {
        return ask_code(parts, None);
    }
    let attempt = match app.rates.attempt(caller::peer(parts), None) {
        Ok(attempt) => attempt,
        Err(e) => return page::problem(&e, parts),
    };
    match app.service.waiting_device(typed, Timestamp::now()).await {
        Ok(waiting) => {
            attempt.succeeded();
            let errand =
                Errand::Device { id: waiting.id, address: waiting.address, client: waiting.client.name.clone() };
            form(app, parts, &errand, &waiting.client.name, "", None)
        }
        Err(e) => page::noted(ask_code(parts, Some(&e.message)), &e),
    }
}

fn ask_code(parts: &Parts, problem: Option<&str>) -> Response {
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Page::new("Enter the code")
        .status(status)
        .text("Type the code that the application on your other device shows you.")
        .alert(problem)
        .html(
            "<form method=\"get\" action=\"/devicelogin\"><label for=\"user_code\">Code</label>\
             <input id=\"user_code\" name=\"user_code\" required autofocus autocomplete=\"off\" autocapitalize=\"characters\" \
             spellcheck=\"false\" maxlength=\"32\"><button>Next</button></form>",
        )
        .answer(parts)
}

/// `GET /{tenant}/oauth2/v2.0/logout`: there is nothing here to sign out of, but everywhere else.
pub(super) fn logout(app: &App, parts: &Parts) -> Response {
    form(app, parts, &Errand::SignOut, "", "", None)
}

/// The form in which somebody proves who they are, for an errand. `problem` is what was wrong
/// with the last try.
pub(super) fn form(
    app: &App,
    parts: &Parts,
    errand: &Errand,
    client: &str,
    user: &str,
    problem: Option<&Error>,
) -> Response {
    let (slip, cookie) = match page::slip(app, parts, errand) {
        Ok(made) => made,
        Err(e) => return page::problem(&e, parts),
    };
    let name = escape(client);
    let page = match errand {
        Errand::Code { request, .. } => Page::new("Sign in")
            .leads_to(&request.redirect)
            .html(&format!("<p>to <strong>{name}</strong> on this computer</p>")),
        Errand::Device { address, .. } => Page::new("Sign in").html(&format!(
            "<p>to <strong>{name}</strong> on another device, at the address {}.</p>\
             <p>Go on only if you have started this yourself, just now. Whoever sent you a code or a link to this \
             page would get your access.</p>",
            escape(address)
        )),
        Errand::SignOut => Page::new("Signed out").html(
            "<p>This browser keeps no sign-in. On the command line, sign out with <code>az logout</code>.</p>\
             <p>If somebody else may have your sign-in, end all of your sessions, everywhere:</p>",
        ),
        Errand::Password => return password_form(app, parts, user, problem),
    };
    let config = &app.service.config.sign_in;
    let mut html = format!(
        "<form method=\"post\" action=\"/common/oauth2/v2.0/sign-in\"><input type=\"hidden\" name=\"slip\" value=\"{slip}\">"
    );
    if config.passwords {
        let described = if problem.is_some() { " aria-describedby=\"problem\" aria-invalid=\"true\"" } else { "" };
        let (user_focus, password_focus) = if user.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
        let go = if *errand == Errand::SignOut { "End all sessions" } else { "Sign in" };
        html.push_str(&format!(
            "<label for=\"username\">User name</label>\
             <input id=\"username\" name=\"username\" value=\"{}\" autocomplete=\"username\" autocapitalize=\"none\" \
             spellcheck=\"false\" required maxlength=\"256\"{user_focus}{described}>\
             <label for=\"password\">Password</label>\
             <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required \
             maxlength=\"1024\"{password_focus}{described}>\
             <button name=\"do\" value=\"password\">{go}</button>",
            escape(user)
        ));
    }
    if let Some(provider) = &config.provider {
        let second = if config.passwords { " second" } else { "" };
        html.push_str(&format!(
            "<a class=\"button{second}\" href=\"/common/oauth2/v2.0/provider?slip={slip}\">Continue with {}</a>",
            escape(&provider.name)
        ));
    }
    if *errand != Errand::SignOut {
        html.push_str("<button class=\"second\" name=\"do\" value=\"cancel\" formnovalidate>Cancel</button>");
    }
    html.push_str("</form>");
    if config.passwords {
        html.push_str("<p class=\"note\"><a href=\"/common/oauth2/v2.0/password\">Change your password</a></p>");
    }
    let status = problem.map_or(StatusCode::OK, |e| crate::http::error::status(e.kind));
    let page = page.status(status).alert(problem.map(|e| plain(&e.message))).html(&html).cookie(Some(cookie));
    let res = page.answer(parts);
    match problem {
        Some(e) => page::noted(res, e),
        None => res,
    }
}

/// What an error says to a person: without Entra's number.
fn plain(message: &str) -> &str {
    match message.strip_prefix("AADSTS").and_then(|rest| rest.split_once(": ")) {
        Some((_, words)) => words,
        None => message,
    }
}

/// `POST …/sign-in`: a form came back.
pub(super) async fn submit(app: &App, parts: &Parts, fields: &[(String, String)]) -> Response {
    let text = |name: &str| field(fields, name).unwrap_or_default();
    let errand = match page::errand(app, parts, text("slip")) {
        Ok(errand) => errand,
        Err(e) => return page::problem(&e, parts),
    };
    if errand == Errand::Password {
        return password_form(app, parts, "", None);
    }
    if text("do") == "cancel" {
        return cancel(app, parts, &errand).await;
    }
    let user = text("username");
    caller::claim(app, None, parts, user);
    match prove(app, parts, user, text("password")).await {
        Ok(proof) => complete(app, parts, &errand, proof).await,
        Err(e) => form(app, parts, &errand, &client_name(app, &errand), user, Some(&e)),
    }
}

fn client_name(app: &App, errand: &Errand) -> String {
    match errand {
        Errand::Code { request, .. } => {
            app.service.sign_in_client(&request.client.to_string()).map(|c| c.name).unwrap_or_default()
        }
        Errand::Device { client, .. } => client.clone(),
        Errand::SignOut | Errand::Password => String::new(),
    }
}

/// Check a user name and password that were typed on a page.
async fn prove(app: &App, parts: &Parts, user: &str, password: &str) -> Result<Proof, Error> {
    let attempt = app.rates.attempt(caller::peer(parts), Some(user))?;
    let password = Secret::new(password.to_owned());
    match app.service.check_password(user, &password, Timestamp::now()).await {
        Ok(Some(proof)) => {
            attempt.succeeded();
            Ok(proof)
        }
        Ok(None) => Err(Error::new(Kind::Forbidden, "invalid_grant", "The user name or the password is wrong.")),
        Err(e) => {
            attempt.give_back();
            Err(e)
        }
    }
}

/// The person proved who they are: do what they came for.
pub(super) async fn complete(app: &App, parts: &Parts, errand: &Errand, proof: Proof) -> Response {
    caller::name(parts, &Principal::Directory { object_id: proof.object_id, app_id: None });
    let now = Timestamp::now();
    let done = match errand {
        Errand::Code { request, .. } => match app.service.authorization_code(request, proof, now) {
            Ok(code) => return deliver(parts, errand, &Ok(code)),
            Err(e) => Err(e),
        },
        Errand::Device { id, .. } => app.service.answer_device(id, Some(proof), now).await,
        Errand::SignOut | Errand::Password => app.service.end_sessions(proof.object_id, now).await,
    };
    match done {
        Ok(()) if *errand == Errand::SignOut => Page::new("All sessions are ended")
            .text("Everything that was signed in as you must sign in again.")
            .answer(parts),
        Ok(()) => Page::new("You are signed in")
            .text("The application on your other device goes on by itself. You can close this window.")
            .answer(parts),
        Err(e) => page::problem(&e, parts),
    }
}

async fn cancel(app: &App, parts: &Parts, errand: &Errand) -> Response {
    match errand {
        Errand::Code { .. } => {
            deliver(parts, errand, &Err(("access_denied", "AADSTS65004: User declined to sign in.")))
        }
        Errand::Device { id, .. } => match app.service.answer_device(id, None, Timestamp::now()).await {
            Ok(()) => Page::new("Not signed in").text("The application was told that you declined.").answer(parts),
            Err(e) => page::problem(&e, parts),
        },
        Errand::SignOut | Errand::Password => logout(app, parts),
    }
}

/// Send the browser back to the client that waits on its machine, with a code or with why
/// there is none.
fn deliver(parts: &Parts, errand: &Errand, answer: &Result<Secret<String>, (&str, &str)>) -> Response {
    let Errand::Code { request, state, post } = errand else {
        return page::problem(&Error::new(Kind::Internal, "InternalServerError", "nobody waits for this"), parts);
    };
    let mut fields: Vec<(&str, &str)> = match answer {
        Ok(code) => vec![("code", code.expose())],
        Err((error, why)) => vec![("error", error), ("error_description", why)],
    };
    if let Some(state) = state {
        fields.push(("state", state));
    }
    if *post {
        let mut html = format!("<form method=\"post\" action=\"{}\">", escape(&request.redirect));
        for (name, value) in fields {
            html.push_str(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)));
        }
        html.push_str("<button autofocus>Continue</button></form>");
        return Page::new("Back to the application")
            .leads_to(&request.redirect)
            .html(&html)
            .sends_itself()
            .answer(parts);
    }
    let joint = if request.redirect.contains('?') { '&' } else { '?' };
    let query = urlencoded::to_string(&fields).unwrap_or_default();
    see_other(&format!("{}{joint}{query}", request.redirect))
}

/// 303 to another address.
pub(super) fn see_other(to: &str) -> Response {
    let mut res = respond::empty(StatusCode::SEE_OTHER);
    match HeaderValue::from_str(to) {
        Ok(to) => {
            res.headers_mut().insert(header::LOCATION, to);
            res.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            res.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        Err(_) => *res.status_mut() = StatusCode::BAD_REQUEST,
    }
    res
}

/// `GET …/password`: choose another password.
pub(super) fn password_form(app: &App, parts: &Parts, user: &str, problem: Option<&Error>) -> Response {
    let (slip, cookie) = match page::slip(app, parts, &Errand::Password) {
        Ok(made) => made,
        Err(e) => return page::problem(&e, parts),
    };
    let input = |id: &str, label: &str, kind: &str, complete: &str, value: &str| {
        format!(
            "<label for=\"{id}\">{label}</label><input id=\"{id}\" name=\"{id}\" type=\"{kind}\" \
             autocomplete=\"{complete}\" value=\"{}\" required maxlength=\"1024\">",
            escape(value)
        )
    };
    let html = format!(
        "<form method=\"post\" action=\"/common/oauth2/v2.0/password\"><input type=\"hidden\" name=\"slip\" \
         value=\"{slip}\">{}{}{}{}<button>Change the password</button></form>\
         <p class=\"note\">At least 8 characters of three kinds (lower case, upper case, digits, others), or 16 of any. \
         All of your sessions end.</p>",
        input("username", "User name", "text", "username", user),
        input("password", "Password until now", "password", "current-password", ""),
        input("new", "New password", "password", "new-password", ""),
        input("again", "New password, once more", "password", "new-password", ""),
    );
    let status = problem.map_or(StatusCode::OK, |e| crate::http::error::status(e.kind));
    let page = Page::new("Change your password").status(status).alert(problem.map(|e| plain(&e.message)));
    let res = page.html(&html).cookie(Some(cookie)).answer(parts);
    match problem {
        Some(e) => page::noted(res, e),
        None => res,
    }
}

/// `POST …/password`
pub(super) async fn change_password(app: &App, parts: &Parts, fields: &[(String, String)]) -> Response {
    let text = |name: &str| field(fields, name).unwrap_or_default();
    match page::errand(app, parts, text("slip")) {
        Ok(Errand::Password) => {}
        Ok(_) => {
            return page::problem(
                &Error::new(Kind::Forbidden, "foreign_page", "This form is for something else."),
                parts,
            );
        }
        Err(e) => return page::problem(&e, parts),
    }
    let user = text("username");
    caller::claim(app, None, parts, user);
    let changed = async {
        if text("new") != text("again") {
            return Err(Error::new(Kind::Invalid, "invalid_request", "The new password is not the same twice."));
        }
        let attempt = app.rates.attempt(caller::peer(parts), Some(user))?;
        let (old, new) = (Secret::new(text("password").to_owned()), Secret::new(text("new").to_owned()));
        match app.service.change_password(user, &old, &new, Timestamp::now()).await {
            Ok(true) => {
                attempt.succeeded();
                Ok(())
            }
            Ok(false) => Err(Error::new(Kind::Forbidden, "invalid_grant", "The user name or the password is wrong.")),
            Err(e) => {
                attempt.give_back();
                Err(e)
            }
        }
    };
    match changed.await {
        Ok(()) => Page::new("The password is changed").text("Sign in again wherever you were signed in.").answer(parts),
        Err(e) => password_form(app, parts, user, Some(&e)),
    }
}
