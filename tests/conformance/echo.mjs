// The targets of the conformance run. On one port an echo by WebSocket; on the other an echo that takes the same
// messages as events over HTTP.
import http from 'node:http';
import { createRequire } from 'node:module';

// The packages are those of the clients.
const { WebSocketServer } = createRequire(new URL('../clients/package.json', import.meta.url))('ws');

const [direct, events] = process.argv.slice(2).map(Number);

// The suite sends 16 MiB in one message, and 4 MiB in fragments of 64 bytes.
const limits = { maxPayload: 32 * 1024 * 1024, maxFragments: 0 };
const sockets = new WebSocketServer({ host: '127.0.0.1', port: direct, perMessageDeflate: true, ...limits });
sockets.on('connection', (socket) => {
  socket.on('message', (content, isBinary) => socket.send(content, { binary: isBinary }));
  // A client that breaks the protocol ends its connection; the next case goes on.
  socket.on('error', () => {});
});

function* read(body) {
  for (let at = 0; at < body.length; ) {
    const end = body.indexOf('\r\n', at);
    const [type, length] = body.toString('latin1', at, end).split(' ');
    at = end + 2;
    const size = length === undefined ? undefined : parseInt(length, 16);
    yield [type, size === undefined ? undefined : body.subarray(at, at + size)];
    if (size !== undefined) at += size + 2;
  }
}

function write(type, content) {
  if (content === undefined) return [Buffer.from(`${type}\r\n`)];
  return [Buffer.from(`${type} ${content.length.toString(16)}\r\n`), content, Buffer.from('\r\n')];
}

const answers = { OPEN: 'OPEN', TEXT: 'TEXT', BINARY: 'BINARY', PING: 'PONG', CLOSE: 'CLOSE' };

const server = http.createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const answer = [];
  for (const [type, content] of read(Buffer.concat(pieces))) {
    if (answers[type]) answer.push(...write(answers[type], content));
  }
  response.setHeader('Content-Type', 'application/websocket-events');
  response.end(Buffer.concat(answer));
});
server.keepAliveTimeout = 0;
server.listen(events, '127.0.0.1');
