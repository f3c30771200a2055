// @azure/arm-containerregistry (npm): every operation of what is here.
import { all, check, credential, env, equals, management, refuses } from "./checks.mjs";

const [group, name] = [env.GROUP, "sdkregistry"];
// With the audience that the library asks for by itself, and with ours.
const plain = new management.ContainerRegistryManagementClient(credential, env.SUBSCRIPTION, { endpoint: env.SERVER });
check("signs in with the audience that it has by itself", (await all(plain.registries.list())).length > 0);
const client = new management.ContainerRegistryManagementClient(credential, env.SUBSCRIPTION, {
  endpoint: env.SERVER,
  credentials: { scopes: [env.SERVER + "/.default"] },
});

check("operations", (await all(client.operations.list())).some((o) => o.name.endsWith("registries/read")));
const type = "Microsoft.ContainerRegistry/registries";
equals("check a name", true, (await client.registries.checkNameAvailability({ name, type })).nameAvailable);
const made = await client.registries.create(group, name, { location: "eastus", sku: { name: "Premium" }, tags: { x: "y" }, adminUserEnabled: true });
equals("create", [name, "Premium", "Succeeded", true], [made.name, made.sku.name, made.provisioningState, made.adminUserEnabled]);
check("when", made.creationDate instanceof Date, made);
equals("the name is taken", false, (await client.registries.checkNameAvailability({ name, type })).nameAvailable);
equals("get", made.id, (await client.registries.get(group, name)).id);
await refuses("get one that is not there", () => client.registries.get(group, "nosuchregistry"), 404, "ResourceNotFound");
check("list", (await all(client.registries.list())).some((r) => r.name === name));
check("list of a group", (await all(client.registries.listByResourceGroup(group))).some((r) => r.name === name));
const changed = await client.registries.update(group, name, {
  tags: { x: "z" },
  anonymousPullEnabled: true,
  networkRuleSet: { defaultAction: "Allow", ipRules: [{ iPAddressOrRange: "192.0.2.0/24", action: "Allow" }] },
  policies: { retentionPolicy: { days: 5, status: "enabled" } },
});
equals("update", [{ x: "z" }, true, "192.0.2.0/24", 5], [
  changed.tags,
  changed.anonymousPullEnabled,
  changed.networkRuleSet.ipRules[0].iPAddressOrRange,
  changed.policies.retentionPolicy.days,
]);
const usages = (await client.registries.listUsages(group, name)).value;
equals("usages", ["Bytes", 0], usages.filter((u) => u.name === "Size").map((u) => [u.unit, u.currentValue])[0]);
const before = await client.registries.listCredentials(group, name);
const after = await client.registries.regenerateCredential(group, name, { name: "password" });
equals("credentials of the admin user, renewed", [name, false, true], [
  before.username,
  before.passwords[0].value === after.passwords[0].value,
  before.passwords[1].value === after.passwords[1].value,
]);
check("private link resources", (await all(client.registries.listPrivateLinkResources(group, name))).some((r) => r.properties.groupId === "registry"));

// --- scope maps and tokens
const map = await client.scopeMaps.create(group, name, "team-map", { actions: ["repositories/app/content/read"], description: "reads" });
equals("create a scope map", ["repositories/app/content/read"], map.actions);
equals("get it", "reads", (await client.scopeMaps.get(group, name, "team-map")).description);
equals("change it", "both", (await client.scopeMaps.update(group, name, "team-map", { description: "both" })).description);
check("list them", (await all(client.scopeMaps.list(group, name))).some((s) => s.name === "_repositories_pull"));
const token = await client.tokens.create(group, name, "ci-token", { scopeMapId: map.id, status: "enabled" });
equals("create a token", "enabled", token.status);
const passwords = await client.registries.generateCredentials(group, name, { tokenId: token.id });
equals("generate its passwords", ["ci-token", 2, true], [passwords.username, passwords.passwords.length, passwords.passwords.every((p) => p.value)]);
equals("get it", map.id.toLowerCase(), (await client.tokens.get(group, name, "ci-token")).scopeMapId.toLowerCase());
equals("disable it", "disabled", (await client.tokens.update(group, name, "ci-token", { status: "disabled" })).status);
equals("list tokens", ["ci-token"], (await all(client.tokens.list(group, name))).map((t) => t.name));
await client.tokens.delete(group, name, "ci-token");
await refuses("delete a token", () => client.tokens.get(group, name, "ci-token"), 404);
await client.scopeMaps.delete(group, name, "team-map");
await refuses("delete a scope map", () => client.scopeMaps.get(group, name, "team-map"), 404);

// --- cache rules
equals("create a cache rule", "mirror/app", (await client.cacheRules.create(group, name, "mirror", { sourceRepository: "quay.io/acme/app", targetRepository: "mirror/app" })).targetRepository);
equals("get it", "quay.io/acme/app", (await client.cacheRules.get(group, name, "mirror")).sourceRepository);
check("list them", (await all(client.cacheRules.list(group, name))).some((r) => r.name === "mirror"));
await client.cacheRules.delete(group, name, "mirror");
await refuses("delete it", () => client.cacheRules.get(group, name, "mirror"), 404);

// --- what there is none of yet
for (const what of ["webhooks", "credentialSets", "connectedRegistries", "privateEndpointConnections"]) {
  equals(`list ${what}`, [], await all(client[what].list(group, name)));
}
check("list replications", Array.isArray(await all(client.replications.list(group, name))));

await client.registries.delete(group, name);
await refuses("delete a registry", () => client.registries.get(group, name), 404);
