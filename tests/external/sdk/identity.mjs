// The ways of signing in that @azure/identity (npm) has and the server answers.
import { spawn } from "node:child_process";
import { all, check, env, equals, identity, management, registry } from "./checks.mjs";

const [server, tenant, app] = [env.SERVER, env.TENANT, env.APP];
const here = { authorityHost: server, disableInstanceDiscovery: true };
const azClient = "04b07795-8ddb-461a-bbee-02f9e1bf7b46";

async function works(what, credential) {
  const client = new management.ContainerRegistryManagementClient(credential, env.SUBSCRIPTION, { endpoint: server });
  equals(`${what}: the control plane`, true, (await all(client.registries.list())).some((r) => r.name === env.REG));
  const images = new registry.ContainerRegistryClient("https://" + env.LOGIN_SERVER, credential, { audience: "https://containerregistry.azure.net" });
  check(`${what}: a registry`, Array.isArray(await all(images.listRepositoryNames())));
}

async function refused(what, credential, says) {
  try {
    check(what, false, await credential.getToken(server + "/.default"));
  } catch (error) {
    check(what, String(error).includes(says), error);
  }
}

await works("js, a secret", new identity.ClientSecretCredential(tenant, app, env.APP_SECRET, here));
await refused("js, a wrong secret", new identity.ClientSecretCredential(tenant, app, "wrong", here), "AADSTS7000215");
await works("js, a certificate", new identity.ClientCertificateCredential(tenant, app, { certificatePath: env.APP_PEM }, here));
await works("js, another issuer's token", new identity.WorkloadIdentityCredential({ tenantId: tenant, clientId: app, tokenFilePath: env.FEDERATED_TOKEN_FILE, ...here }));
await works("js, a user's password", new identity.UsernamePasswordCredential(tenant, azClient, env.BROWSER_USER, env.BROWSER_PASSWORD, here));
await works(
  "js, a code on another device",
  new identity.DeviceCodeCredential({
    tenantId: tenant,
    clientId: azClient,
    userPromptCallback: (told) =>
      spawn(env.AZURE_PYTHON, [new URL("browser.py", import.meta.url).pathname, told.verificationUri], {
        env: { ...env, BROWSER_CODE: told.userCode },
        stdio: ["ignore", "ignore", "inherit"],
      }),
    ...here,
  }),
);
await works("js, az", new identity.AzureCliCredential({ tenantId: tenant }));
if (env.IDENTITY_ENDPOINT) await works("js, a managed identity", new identity.ManagedIdentityCredential());
