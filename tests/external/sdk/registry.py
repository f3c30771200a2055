"""Every operation of azure-containerregistry (PyPI) against the server under test."""

import hashlib
import io
import json
import os
from datetime import datetime

from azure.containerregistry import (
    ArtifactManifestOrder,
    ArtifactManifestProperties,
    ArtifactTagOrder,
    ArtifactTagProperties,
    ContainerRegistryClient,
    DigestValidationError,
    RepositoryProperties,
)
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import ClientSecretCredential

from checks import check, equals, refuses

server, endpoint = os.environ["SERVER"], "https://" + os.environ["LOGIN_SERVER"]
credential = ClientSecretCredential(
    os.environ["TENANT"], os.environ["CLIENT_ID"], os.environ["CLIENT_SECRET"], authority=server, disable_instance_discovery=True
)
# The audience that the library asks for when none is named, and the one that Azure documents.
for audience in (None, "https://containerregistry.azure.net", "https://management.azure.com"):
    options = {"audience": audience} if audience else {}
    with ContainerRegistryClient(endpoint, credential, **options) as client:
        list(client.list_repository_names())
    check(f"signs in for the audience {audience or 'that it has by itself'}", True)

client = ContainerRegistryClient(endpoint, credential)

# --- blobs and manifests
layer = os.urandom(300_000)
digest, size = client.upload_blob("sdk/python", io.BytesIO(layer))
equals("upload a blob", ("sha256:" + hashlib.sha256(layer).hexdigest(), len(layer)), (digest, size))
# More than one piece of 4 MiB.
large = os.urandom(9 << 20)
large_digest, large_size = client.upload_blob("sdk/python", io.BytesIO(large))
equals("upload a blob in pieces", len(large), large_size)
equals("download a blob", layer, b"".join(client.download_blob("sdk/python", digest)))
equals("download one in pieces", large, b"".join(client.download_blob("sdk/python", large_digest)))
config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
config_digest, config_size = client.upload_blob("sdk/python", io.BytesIO(config))


def manifest(n, layers):
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": d, "size": s} for d, s in layers],
        "annotations": {"n": str(n)},
    }


first = client.set_manifest("sdk/python", manifest(1, [(digest, size)]), tag="v1")
second = client.set_manifest("sdk/python", io.BytesIO(json.dumps(manifest(2, [(large_digest, large_size)])).encode()), tag="v2")
untagged = client.set_manifest("sdk/python", manifest(3, [(digest, size)]))
check("set manifests", first.startswith("sha256:") and len({first, second, untagged}) == 3, (first, second, untagged))
got = client.get_manifest("sdk/python", "v1")
equals("get a manifest by tag", first, got.digest)
equals("which is what was put", manifest(1, [(digest, size)]), dict(got.manifest))
equals("with its type", "application/vnd.oci.image.manifest.v1+json", got.media_type)
equals("get one by digest", second, client.get_manifest("sdk/python", second).digest)
index = client.set_manifest(
    "sdk/python",
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": first, "size": len(json.dumps(dict(got.manifest))),
             "platform": {"architecture": "amd64", "os": "linux"}}
        ],
    },
    tag="multi",
    media_type="application/vnd.oci.image.index.v1+json",
)
check("set an index", index.startswith("sha256:"), index)
refuses("a manifest that is not there", lambda: client.get_manifest("sdk/python", "nosuch"), ResourceNotFoundError)
refuses("a blob that is not there", lambda: b"".join(client.download_blob("sdk/python", "sha256:" + "0" * 64)), ResourceNotFoundError)
refuses("a manifest whose layer is not there", lambda: client.set_manifest("sdk/python", manifest(9, [("sha256:" + "1" * 64, 5)]), tag="bad"), HttpResponseError)

# --- repositories
for n in range(5):
    name = f"sdk/page{n}"
    client.upload_blob(name, io.BytesIO(config))
    client.upload_blob(name, io.BytesIO(layer))
    client.set_manifest(name, manifest(n, [(digest, size)]), tag="latest")
names = list(client.list_repository_names())
check("list repositories", {"sdk/python", "sdk/page0", "sdk/page4"} <= set(names), names)
equals("page by page", names, [n for page in client.list_repository_names(results_per_page=2).by_page() for n in page])
check("no page is longer", max(len(list(p)) for p in client.list_repository_names(results_per_page=2).by_page()) == 2)
properties = client.get_repository_properties("sdk/python")
equals("properties of a repository", ("sdk/python", 4, 3), (properties.name, properties.manifest_count, properties.tag_count))
check("when it was made", isinstance(properties.created_on, datetime) and isinstance(properties.last_updated_on, datetime), properties)
check("and all is allowed", all((properties.can_delete, properties.can_list, properties.can_read, properties.can_write)), properties)
changed = client.update_repository_properties("sdk/python", can_write=False)
equals("change them", False, changed.can_write)
refuses("then nothing is pushed", lambda: client.set_manifest("sdk/python", manifest(4, [(digest, size)]), tag="v4"), HttpResponseError)
changed = client.update_repository_properties("sdk/python", RepositoryProperties(can_delete=True, can_list=True, can_read=True, can_write=True))
equals("change them back, by an object", True, changed.can_write)
refuses("of a repository that is not there", lambda: client.get_repository_properties("sdk/nosuch"), ResourceNotFoundError)

# --- manifests
listed = list(client.list_manifest_properties("sdk/python"))
equals("list manifests", {first, second, untagged, index}, {m.digest for m in listed})
by = {m.digest: m for m in listed}
equals("with their tags", ["v1"], by[first].tags)
check("or none", not by[untagged].tags, by[untagged].tags)
check("with their platform", (by[first].architecture, by[first].operating_system) == ("amd64", "linux"), (by[first].architecture, by[first].operating_system))
check("and size", by[second].size_in_bytes > 0, by[second].size_in_bytes)
newest = [m.digest for m in client.list_manifest_properties("sdk/python", order_by=ArtifactManifestOrder.LAST_UPDATED_ON_DESCENDING)]
oldest = [m.digest for m in client.list_manifest_properties("sdk/python", order_by=ArtifactManifestOrder.LAST_UPDATED_ON_ASCENDING)]
equals("newest first and oldest first", newest, oldest[::-1])
equals("manifests page by page", newest, [m.digest for p in client.list_manifest_properties("sdk/python", order_by=ArtifactManifestOrder.LAST_UPDATED_ON_DESCENDING, results_per_page=2).by_page() for m in p])
one = client.get_manifest_properties("sdk/python", "v1")
equals("properties of a manifest by tag", first, one.digest)
equals("by digest", first, client.get_manifest_properties("sdk/python", first).digest)
one = client.update_manifest_properties("sdk/python", first, can_delete=False, can_write=False)
equals("lock a manifest", (False, False), (one.can_delete, one.can_write))
refuses("then it is not deleted", lambda: client.delete_manifest("sdk/python", "v1"), HttpResponseError, says="disallowed")
one = client.update_manifest_properties("sdk/python", "v1", ArtifactManifestProperties(can_delete=True, can_list=True, can_read=True, can_write=True))
equals("unlock it, by an object", True, one.can_delete)

# --- tags
equals("list tags", ["multi", "v1", "v2"], sorted(t.name for t in client.list_tag_properties("sdk/python")))
newest = [t.name for t in client.list_tag_properties("sdk/python", order_by=ArtifactTagOrder.LAST_UPDATED_ON_DESCENDING)]
equals("newest tag first", "multi", newest[0])
equals("tags page by page", newest, [t.name for p in client.list_tag_properties("sdk/python", order_by=ArtifactTagOrder.LAST_UPDATED_ON_DESCENDING, results_per_page=1).by_page() for t in p])
tag = client.get_tag_properties("sdk/python", "v1")
equals("properties of a tag", ("v1", first), (tag.name, tag.digest))
equals("lock a tag", False, client.update_tag_properties("sdk/python", "v1", can_delete=False).can_delete)
refuses("then it is not deleted", lambda: client.delete_tag("sdk/python", "v1"), HttpResponseError, says="disallowed")
tag = client.update_tag_properties("sdk/python", "v1", ArtifactTagProperties(can_delete=True, can_list=True, can_read=True, can_write=True))
equals("unlock it, by an object", True, tag.can_delete)
refuses("a tag that is not there", lambda: client.get_tag_properties("sdk/python", "nosuch"), ResourceNotFoundError)

# --- deleting
client.delete_tag("sdk/python", "v2")
refuses("delete a tag", lambda: client.get_tag_properties("sdk/python", "v2"), ResourceNotFoundError)
equals("its manifest stays", second, client.get_manifest("sdk/python", second).digest)
client.delete_tag("sdk/python", "v2")
check("again is no error", True)
client.delete_manifest("sdk/python", "multi")
client.delete_manifest("sdk/python", second)
refuses("delete manifests by tag and digest", lambda: client.get_manifest("sdk/python", second), ResourceNotFoundError)
client.delete_manifest("sdk/python", second)
spare = client.upload_blob("sdk/python", io.BytesIO(b"of no use"))[0]
client.delete_blob("sdk/python", spare)
check("delete a blob", True)
for name in ["sdk/python"] + [f"sdk/page{n}" for n in range(5)]:
    client.delete_repository(name)
refuses("delete repositories", lambda: client.get_repository_properties("sdk/python"), ResourceNotFoundError)
client.delete_repository("sdk/nosuch")
check("of one that is not there too", True)

# --- without anybody
anonymous = ContainerRegistryClient("https://" + os.environ["ANONYMOUS"], None)
equals("anonymous: properties", "public", anonymous.get_repository_properties("public").name)
equals("anonymous: tags", ["v1"], [t.name for t in anonymous.list_tag_properties("public")])
got = anonymous.get_manifest("public", "v1")
check("anonymous: a manifest and a blob", b"".join(anonymous.download_blob("public", got.manifest["config"]["digest"])))
check("anonymous: the catalogue", "public" in list(anonymous.list_repository_names()))
refuses("anonymous: nothing is deleted", lambda: anonymous.delete_tag("public", "v1"), ClientAuthenticationError)
refuses("anonymous: no manifest", lambda: anonymous.delete_manifest("public", "v1"), ClientAuthenticationError)
refuses("anonymous: no repository", lambda: anonymous.delete_repository("public"), ClientAuthenticationError)
refuses("anonymous: nor changed", lambda: anonymous.update_tag_properties("public", "v1", can_delete=False), ClientAuthenticationError)
refuses("anonymous: nor put", lambda: anonymous.upload_blob("public", io.BytesIO(b"x")), ClientAuthenticationError)
closed = ContainerRegistryClient(endpoint, None)
refuses("where that is not allowed nothing is read", lambda: list(closed.list_repository_names()), ClientAuthenticationError)
