// Every operation of @azure/container-registry (npm) against the server under test.
import { createHash, randomBytes } from "node:crypto";
import { all, check, credential, env, equals, refuses, registry } from "./checks.mjs";

const endpoint = "https://" + env.LOGIN_SERVER;
const sha256 = (bytes) => "sha256:" + createHash("sha256").update(bytes).digest("hex");
async function read(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

// --- blobs and manifests
const content = new registry.ContainerRegistryContentClient(endpoint, "sdk/js", credential);
const layer = randomBytes(300_000);
const uploaded = await content.uploadBlob(layer);
equals("upload a blob", [sha256(layer), layer.length], [uploaded.digest, uploaded.sizeInBytes]);
const large = randomBytes(9 << 20);
equals("upload one in pieces", sha256(large), (await content.uploadBlob(large)).digest);
check("download a blob", layer.equals(await read((await content.downloadBlob(uploaded.digest)).content)));
check("download a large one", large.equals(await read((await content.downloadBlob(sha256(large))).content)));
const config = Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } }));
await content.uploadBlob(config);
const manifest = (n, bytes) => ({
  schemaVersion: 2,
  mediaType: "application/vnd.oci.image.manifest.v1+json",
  config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: sha256(config), size: config.length },
  layers: [{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest: sha256(bytes), size: bytes.length }],
  annotations: { n: String(n) },
});
const first = (await content.setManifest(manifest(1, layer), { tag: "v1" })).digest;
const second = (await content.setManifest(manifest(2, large), { tag: "v2" })).digest;
const untagged = (await content.setManifest(manifest(3, layer))).digest;
check("set manifests", new Set([first, second, untagged]).size === 3);
const got = await content.getManifest("v1");
equals("get one by tag", [first, "application/vnd.oci.image.manifest.v1+json"], [got.digest, got.mediaType]);
equals("by digest", second, (await content.getManifest(second)).digest);
await refuses("one that is not there", () => content.getManifest("nosuch"), 404);
await refuses("a blob that is not there", () => content.downloadBlob("sha256:" + "0".repeat(64)), 404);

// --- repositories
const client = new registry.ContainerRegistryClient(endpoint, credential);
for (let n = 0; n < 4; n++) {
  const other = new registry.ContainerRegistryContentClient(endpoint, `sdk/more${n}`, credential);
  await other.uploadBlob(config);
  await other.uploadBlob(layer);
  await other.setManifest(manifest(n, layer), { tag: "latest" });
}
const names = await all(client.listRepositoryNames());
check("list repositories", ["sdk/js", "sdk/more0", "sdk/more3"].every((n) => names.includes(n)), names);
const pages = await all(client.listRepositoryNames().byPage({ maxPageSize: 2 }));
equals("page by page", names, pages.flat());
check("no page is longer", pages.every((p) => p.length <= 2), pages);
const repository = client.getRepository("sdk/js");
const properties = await repository.getProperties();
equals("properties of a repository", ["sdk/js", 3, 2], [properties.name, properties.manifestCount, properties.tagCount]);
check("when it was made", properties.createdOn instanceof Date && properties.lastUpdatedOn instanceof Date, properties);
equals("change them", false, (await repository.updateProperties({ canWrite: false })).canWrite);
await refuses("then nothing is pushed", () => content.setManifest(manifest(4, layer), { tag: "v4" }), 405);
equals("change them back", true, (await repository.updateProperties({ canWrite: true })).canWrite);
await refuses("of one that is not there", () => client.getRepository("sdk/nosuch").getProperties(), 404);

// --- manifests
const manifests = await all(repository.listManifestProperties());
equals("list manifests", [first, second, untagged].sort(), manifests.map((m) => m.digest).sort());
equals("with their tags", ["v1"], manifests.find((m) => m.digest === first).tags);
const newest = (await all(repository.listManifestProperties({ order: "LastUpdatedOnDescending" }))).map((m) => m.digest);
const oldest = (await all(repository.listManifestProperties({ order: "LastUpdatedOnAscending" }))).map((m) => m.digest);
equals("newest and oldest first", newest, oldest.reverse());
equals("page by page", newest, (await all(repository.listManifestProperties({ order: "LastUpdatedOnDescending" }).byPage({ maxPageSize: 1 }))).flat().map((m) => m.digest));
const artifact = client.getArtifact("sdk/js", "v1");
equals("properties of a manifest", [first, "amd64", "linux"], await artifact.getManifestProperties().then((m) => [m.digest, m.architecture, m.operatingSystem]));
equals("lock it", false, (await artifact.updateManifestProperties({ canDelete: false })).canDelete);
await refuses("then it is not deleted", () => artifact.delete(), 405);
equals("unlock it", true, (await artifact.updateManifestProperties({ canDelete: true })).canDelete);

// --- tags
equals("list tags", ["v1", "v2"], (await all(artifact.listTagProperties())).map((t) => t.name));
equals("properties of a tag", ["v1", first], await artifact.getTagProperties("v1").then((t) => [t.name, t.digest]));
equals("lock a tag", false, (await artifact.updateTagProperties("v1", { canDelete: false })).canDelete);
await refuses("then it is not deleted", () => artifact.deleteTag("v1"), 405);
equals("unlock it", true, (await artifact.updateTagProperties("v1", { canDelete: true })).canDelete);

// --- deleting
await artifact.deleteTag("v1");
await refuses("delete a tag", () => artifact.getTagProperties("v1"), 404);
await artifact.deleteTag("v1");
check("again is no error", true);
await content.deleteManifest(second);
await refuses("delete a manifest", () => content.getManifest(second), 404);
await client.getArtifact("sdk/js", first).delete();
await content.deleteBlob((await content.uploadBlob(Buffer.from("of no use"))).digest);
check("delete a blob", true);
await repository.delete();
for (let n = 0; n < 4; n++) await client.deleteRepository(`sdk/more${n}`);
await refuses("delete repositories", () => repository.getProperties(), 404);

// --- without anybody
const anonymous = new registry.ContainerRegistryClient("https://" + env.ANONYMOUS);
check("anonymous: the catalogue", (await all(anonymous.listRepositoryNames())).includes("public"));
equals("anonymous: manifests", 1, (await all(anonymous.getRepository("public").listManifestProperties())).length);
equals("anonymous: tags", ["v1"], (await all(anonymous.getArtifact("public", "v1").listTagProperties())).map((t) => t.name));
await refuses("anonymous: nothing is deleted", () => anonymous.deleteRepository("public"), 401);
await refuses("where it is not allowed nothing is read", () => all(new registry.ContainerRegistryClient(endpoint).listRepositoryNames()), 401);
