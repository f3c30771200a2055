#!/usr/bin/env python3
"""A browser for people who are not there: opens a page, fills in the forms that it meets as a
person would who has a name, a password and perhaps a code, and follows what comes, until a page
asks nothing more. It runs no script and keeps cookies for as long as it lives.

usage: browser.py URL      with BROWSER_USER, BROWSER_PASSWORD and, for a device, BROWSER_CODE;
                           BROWSER_LINK is text of a link that is followed where a page has it
"""

import html.parser
import http.cookiejar
import os
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request


class Forms(html.parser.HTMLParser):
    """The forms of a page: where each goes, its fields and its buttons."""

    def __init__(self):
        super().__init__()
        self.forms = []
        self.text = []
        self.inside = None
        self.links = []
        self.link = None

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "a":
            self.link = [attrs.get("href", ""), ""]
            self.links.append(self.link)
        if tag == "form":
            self.inside = {"action": attrs.get("action", ""), "method": attrs.get("method", "get").lower(), "fields": [], "buttons": []}
            self.forms.append(self.inside)
        elif self.inside is not None and tag == "input":
            (self.inside["buttons"] if attrs.get("type") == "submit" else self.inside["fields"]).append(attrs)
        elif self.inside is not None and tag == "button":
            if attrs.get("type", "submit") == "submit":
                self.inside["buttons"].append(attrs)

    def handle_endtag(self, tag):
        if tag == "a":
            self.link = None
        if tag == "form":
            self.inside = None

    def handle_data(self, data):
        if data.strip():
            self.text.append(data.strip())
        if self.link is not None:
            self.link[1] += data


def answer(field):
    """What a person puts in this field, or nothing."""
    kind, name = field.get("type", "text").lower(), field.get("name", "").lower()
    hint = field.get("autocomplete", "").lower()
    if kind == "hidden":
        return field.get("value", "")
    if kind == "password":
        return os.environ["BROWSER_PASSWORD"]
    if kind in ("checkbox", "radio"):
        return field.get("value", "on") if "checked" in field else None
    if "code" in name or hint == "one-time-code":
        return field.get("value") or os.environ["BROWSER_CODE"]
    if kind == "email" or hint == "username" or "user" in name or "login" in name:
        return os.environ["BROWSER_USER"]
    return field.get("value", "")


def main():
    context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE"))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=context),
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
    )
    target, data, seen = sys.argv[1], None, []
    for _ in range(12):
        origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(target))
        headers = {"Accept": "text/html"}
        if data is not None:
            headers["Origin"] = origin
        try:
            with opener.open(urllib.request.Request(target, data, headers), timeout=30) as page:
                address, body = page.geturl(), page.read().decode()
        except urllib.error.HTTPError as problem:
            address, body = problem.geturl(), problem.read().decode()
            print(f"{problem.code} at {address.split('?')[0]}", file=sys.stderr)
        forms = Forms()
        forms.feed(body)
        step = (address, tuple(forms.text))
        print(" | ".join(forms.text), file=sys.stderr)
        if not forms.forms or step in seen:
            sys.exit(0 if not forms.forms else "the same page again: " + " | ".join(forms.text))
        seen.append(step)
        wanted = os.environ.get("BROWSER_LINK")
        link = next((href for href, text in forms.links if wanted and wanted in text), None)
        if link is not None:
            target, data = urllib.parse.urljoin(address, link), None
            continue
        form = forms.forms[0]
        values = [(f["name"], answer(f)) for f in form["fields"] if f.get("name")]
        values = [(name, value) for name, value in values if value is not None]
        if form["buttons"] and form["buttons"][0].get("name"):
            values.append((form["buttons"][0]["name"], form["buttons"][0].get("value", "")))
        sent = urllib.parse.urlencode(values)
        target = urllib.parse.urljoin(address, form["action"])
        if form["method"] == "post":
            data = sent.encode()
        else:
            target, data = target.split("?")[0] + "?" + sent, None
    sys.exit("there was no end of forms")


main()
