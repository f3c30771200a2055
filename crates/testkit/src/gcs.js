// Google Cloud Storage's XML API in front of an S3 server, for tests.
//
// Google made that API interchangeable with S3: the same paths, the same XML for lists and
// for uploads in parts. What differs is how a request is authorised and the names of a few
// headers, and that is all that is translated here. Keys, bytes, conditions, parts and
// copies are the S3 server's work. A token or a signature must be there; whether it is right
// is not checked.
//
// usage: node gcs.js PORT S3-PORT ACCESS-KEY SECRET
const crypto = require('crypto');
const http = require('http');
const [port, s3Port, access, secret] = process.argv.slice(2);

const encode = (text) => encodeURIComponent(text).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
const hmac = (key, text) => crypto.createHmac('sha256', key).update(text).digest();
const sha256 = (text) => crypto.createHash('sha256').update(text).digest('hex');

// Signature version 4 over what is sent on.
function sign(method, path, query, headers) {
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  headers['x-amz-date'] = now;
  headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
  headers.host = `127.0.0.1:${s3Port}`;
  const names = Object.keys(headers).filter((n) => n === 'host' || n.startsWith('x-amz-')).sort();
  const canonical = [method, path, query, ...names.map((n) => `${n}:${headers[n].trim()}`), '', names.join(';'),
    'UNSIGNED-PAYLOAD'].join('\n');
  const scope = `${now.slice(0, 8)}/us-east-1/s3/aws4_request`;
  const key = ['us-east-1', 's3', 'aws4_request'].reduce(hmac, hmac('AWS4' + secret, now.slice(0, 8)));
  const signature = hmac(key, ['AWS4-HMAC-SHA256', now, scope, sha256(canonical)].join('\n')).toString('hex');
  headers.authorization = `AWS4-HMAC-SHA256 Credential=${access}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`;
}

http.createServer((req, res) => {
  const url = new URL(req.url, 'http://gcs');
  const signed = url.searchParams.has('X-Goog-Signature');
  if (!signed && !(req.headers.authorization || '').startsWith('Bearer ')) {
    req.resume();
    return res.writeHead(403).end();
  }
  const path = url.pathname.split('/').map((part) => encode(decodeURIComponent(part))).join('/').replace(/%2F/g, '/');
  const query = [...url.searchParams].filter(([name]) => !name.startsWith('X-Goog-'))
    .map(([name, value]) => `${encode(name)}=${encode(value)}`).sort().join('&');
  const headers = {};
  for (const [name, value] of Object.entries(req.headers)) {
    if (['range', 'content-length', 'content-type', 'if-match', 'if-none-match'].includes(name)) headers[name] = value;
    if (name === 'x-goog-copy-source') headers['x-amz-copy-source'] = value.replace(/%2F/gi, '/');
    if (name.startsWith('x-goog-meta-')) headers[name.replace('goog', 'amz')] = value;
  }
  if (req.headers['x-goog-if-generation-match'] === '0') headers['if-none-match'] = '*';
  sign(req.method, path, query, headers);
  const on = http.request({ host: '127.0.0.1', port: s3Port, method: req.method, path: query ? `${path}?${query}` : path, headers }, (answer) => {
    const back = { ...answer.headers };
    if (back.etag) back['x-goog-generation'] = String(parseInt(sha256(back.etag + back['last-modified']).slice(0, 12), 16));
    res.writeHead(answer.statusCode, back);
    answer.pipe(res);
  });
  on.on('error', () => res.destroy());
  res.on('close', () => on.destroy());
  req.pipe(on);
}).listen(Number(port), '127.0.0.1');
