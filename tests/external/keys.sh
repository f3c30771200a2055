# Tokens of the server verified by libraries that know nothing of it but its issuer: PyJWT and
# Authlib's joserfc, through discovery and the key set; also across a change of the signing key.
# shellcheck shell=bash source=tests/external/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/external/az-lib.sh
. "$(dirname "$0")/az-lib.sh"
real_az
tenant=$(field tenantId)
verifier=$WORK/verify-venv
if [ ! -x "$verifier/bin/python" ]; then
    python3 -m venv "$verifier"
    "$verifier/bin/pip" install --quiet --disable-pip-version-check 'pyjwt[crypto]==2.10.1' joserfc==1.1.0
fi
export SSL_CERT_FILE=$REQUESTS_CA_BUNDLE
cat >"$WORK/verify.py" <<'PY'
import json, sys, urllib.request
import jwt
from joserfc import jwt as jose
from joserfc.jwk import KeySet

issuer, audience, token = sys.argv[1], sys.argv[2], sys.stdin.read().strip()
get = lambda url: json.load(urllib.request.urlopen(url))
doc = get(issuer + "/.well-known/openid-configuration")
assert doc["issuer"] == issuer, doc["issuer"]
key = jwt.PyJWKClient(doc["jwks_uri"]).get_signing_key_from_jwt(token).key
claims = jwt.decode(token, key, algorithms=doc["id_token_signing_alg_values_supported"], audience=audience,
                    issuer=issuer, options={"require": ["exp", "iat", "nbf", "iss", "aud", "sub"]})
again = jose.decode(token, KeySet.import_key_set(get(doc["jwks_uri"])), algorithms=["RS256"])
jose.JWTClaimsRegistry(iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience}).validate(again.claims)
assert again.claims == claims
print(claims["oid"], claims["appid"])
PY
issuer=$SERVER/$tenant/v2.0
token() { az account get-access-token --resource "$1" --query accessToken -o tsv; }
verify() { "$verifier/bin/python" "$WORK/verify.py" "$issuer" "$1" <<<"$2"; }

old=$(token "$SERVER")
says "PyJWT and joserfc verify a directory token" "$(field clientId)" verify "$SERVER" "$old"
refuses "for its audience only" "InvalidAudience|Audience" verify https://elsewhere "$old"
refuses "and as it was signed" "InvalidSignature|Signature|Invalid" verify "$SERVER" "${old%?????}AAAAA"
check "another signing key" az rest --method post --url "$SERVER/$tenant/discovery/v2.0/keys" --resource "$SERVER" --body '{}'
says "a token of the key before is verified all the same" "$(field clientId)" verify "$SERVER" "$old"
check "and opens what it opened" az group list
# az keeps tokens; another profile gets one of the new key.
az_as fresh login --service-principal -u "$(field clientId)" -p "$(field clientSecret)" --tenant "$tenant" >/dev/null
new=$(az_as fresh account get-access-token --resource "$SERVER" --query accessToken -o tsv)
says "and one of the new key" "$(field clientId)" verify "$SERVER" "$new"
kid() { cut -d. -f1 <<<"$1" | "$verifier/bin/python" -c 'import base64,json,sys; t=sys.stdin.read().strip(); print(json.loads(base64.urlsafe_b64decode(t + "=" * (-len(t) % 4)))["kid"])'; }
[ "$(kid "$old")" != "$(kid "$new")" ] && ok "they are two keys" || fail "they are two keys"
