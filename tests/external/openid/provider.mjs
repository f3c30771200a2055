// An organisation's OpenID provider for a test: oidc-provider as it comes, with its own pages,
// where whoever comes is who they say. usage: provider.mjs MODULES PORT CLIENT SECRET REDIRECT
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, port, client, secret, redirect] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

// Who is known, and in which groups.
const groups = { 'grace@example.com': ['registry-users', 'staff'], 'kay@example.com': ['staff'] };
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: client,
    client_secret: secret,
    redirect_uris: [redirect],
    response_types: ['code'],
    grant_types: ['authorization_code'],
  }],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id.split('@')[0].toUpperCase(),
      email: id,
      email_verified: !id.startsWith('unverified'),
      name: `The ${id.split('@')[0]}`,
      groups: groups[id] ?? [],
    }),
  }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
