#!/usr/bin/env python3
"""An OpenID issuer as a build service or a cluster is one: discovery and keys over HTTP on
127.0.0.1, and a token in a file for whoever asks on standard input.

usage: issuer.py PORT      then lines `SUBJECT AUDIENCE LIFETIME-IN-SECONDS FILE`, each of which
                           is answered with one line when the file is written
"""

import base64
import http.server
import json
import sys
import threading
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

port = int(sys.argv[1])
issuer = f"http://127.0.0.1:{port}"
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def number(n):
    return base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


public = key.public_key().public_numbers()
pages = {
    "/.well-known/openid-configuration": {
        "issuer": issuer,
        "jwks_uri": issuer + "/keys",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    },
    "/keys": {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": number(public.n), "e": number(public.e)}]},
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = pages.get(self.path)
        body = json.dumps(page or {}).encode()
        self.send_response(200 if page else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    subject, audience, seconds, file = line.split()
    now = int(time.time())
    claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": now, "nbf": now - 5, "exp": now + int(seconds)}
    with open(file, "w") as out:
        out.write(jwt.encode(claims, key, algorithm="RS256", headers={"kid": "k1"}))
    print("written", flush=True)
