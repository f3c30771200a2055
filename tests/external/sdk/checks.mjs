// What the JavaScript scripts here share: a line for each check, counted with all the others.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";

// Azure's libraries are installed elsewhere: AZURE_JS names the folder.
const require = createRequire(process.env.AZURE_JS + "/");
export const identity = require("@azure/identity");
export const registry = require("@azure/container-registry");
export const management = require("@azure/arm-containerregistry");

const note = (result) => appendFileSync(process.env.RESULTS, result + "\n");

export function check(what, good, seen) {
  if (good) {
    console.log(`ok - ${what}`);
    note("ok");
  } else {
    console.log(`NOT OK - ${what}\n   `, seen);
    note("failed");
    process.exit(1);
  }
}

export const equals = (what, expected, seen) => check(what, isDeepStrictEqual(expected, seen), { expected, seen });

// refuses WHAT CALL STATUS CODE: the call fails with this HTTP status, and this code when one is given.
export async function refuses(what, call, status, code) {
  let value;
  try {
    value = await call();
  } catch (error) {
    return check(what, error.statusCode === status && (!code || error.code === code), error);
  }
  check(what, false, value);
}

export async function all(pages) {
  const found = [];
  for await (const item of pages) found.push(item);
  return found;
}

export const env = process.env;
// The owner, where the script is run as one.
export const credential = env.CLIENT_ID && new identity.ClientSecretCredential(env.TENANT, env.CLIENT_ID, env.CLIENT_SECRET, {
  authorityHost: env.SERVER,
  disableInstanceDiscovery: true,
});
