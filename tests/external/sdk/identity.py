"""Every way of signing in that azure-identity (PyPI) has and the server answers: each gets a token
for the control plane, with which the registries are listed, and one for a registry."""

import os
import subprocess
import sys

from azure.containerregistry import ContainerRegistryClient
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    AzureCliCredential,
    CertificateCredential,
    ChainedTokenCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    DeviceCodeCredential,
    EnvironmentCredential,
    InteractiveBrowserCredential,
    ManagedIdentityCredential,
    UsernamePasswordCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from checks import check, equals, refuses

server, tenant, subscription = os.environ["SERVER"], os.environ["TENANT"], os.environ["SUBSCRIPTION"]
login, name = os.environ["LOGIN_SERVER"], os.environ["REG"]
here = dict(authority=server, disable_instance_discovery=True)
app, secret, pem = os.environ["APP"], os.environ["APP_SECRET"], os.environ["APP_PEM"]
browser = [sys.executable, os.path.join(os.path.dirname(__file__), "browser.py")]


def works(what, credential):
    client = ContainerRegistryManagementClient(credential, subscription, base_url=server, credential_scopes=[server + "/.default"])
    equals(f"{what}: the control plane", [name], [r.name for r in client.registries.list() if r.name == name])
    with ContainerRegistryClient("https://" + login, credential, audience="https://containerregistry.azure.net") as registry:
        check(f"{what}: a registry", isinstance(list(registry.list_repository_names()), list))


works("a secret", ClientSecretCredential(tenant, app, secret, **here))
refuses("a wrong secret", lambda: ClientSecretCredential(tenant, app, "wrong", **here).get_token(server + "/.default"), ClientAuthenticationError, says="AADSTS7000215")
works("a certificate", CertificateCredential(tenant, app, pem, **here))
works("a certificate with its chain", CertificateCredential(tenant, app, pem, send_certificate_chain=True, **here))
os.environ.update(AZURE_CLIENT_ID=app, AZURE_TENANT_ID=tenant, AZURE_AUTHORITY_HOST=server, AZURE_CLIENT_SECRET=secret)
works("the environment", EnvironmentCredential(disable_instance_discovery=True))
works("what there is", DefaultAzureCredential(disable_instance_discovery=True))
del os.environ["AZURE_CLIENT_SECRET"]
os.environ["AZURE_CLIENT_CERTIFICATE_PATH"] = pem
works("the environment, a certificate", EnvironmentCredential(disable_instance_discovery=True))
for variable in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_AUTHORITY_HOST"):
    del os.environ[variable]

token = os.environ["FEDERATED_TOKEN_FILE"]
works("another issuer's token", WorkloadIdentityCredential(tenant_id=tenant, client_id=app, token_file_path=token, **here))
works("an assertion", ClientAssertionCredential(tenant, app, lambda: open(token).read(), **here))

user, password = os.environ["BROWSER_USER"], os.environ["BROWSER_PASSWORD"]
az_client = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
works("a user's password", UsernamePasswordCredential(az_client, user, password, tenant_id=tenant, **here))
refuses("a wrong one", lambda: UsernamePasswordCredential(az_client, user, "wrong", tenant_id=tenant, **here).get_token(server + "/.default"), ClientAuthenticationError, says="AADSTS50126")


def on_a_phone(address, code, expires):
    # The form wants the tab for the address and the code, and then name and password.
    subprocess.run(browser + [address], env=dict(os.environ, BROWSER_CODE=code), check=True, timeout=60)


works("a code on another device", DeviceCodeCredential(az_client, tenant_id=tenant, prompt_callback=on_a_phone, **here))
os.environ["BROWSER"] = " ".join(browser) + " %s &"
works("a browser", InteractiveBrowserCredential(tenant_id=tenant, client_id=az_client, **here))
works("az", AzureCliCredential(tenant_id=tenant))
works("one of several", ChainedTokenCredential(AzureCliCredential(tenant_id=tenant), ClientSecretCredential(tenant, app, secret, **here)))

# A managed identity, as App Service gives it; IDENTITY_ENDPOINT and IDENTITY_HEADER are set.
works("a managed identity", ManagedIdentityCredential())
