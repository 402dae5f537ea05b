// The npm package ws as a peer: WebSockets on channels, and an HTTP door to publish to them.
'use strict';
const http = require('http');
const { WebSocketServer } = require('ws');

const [clientPort, controlPort] = process.argv.slice(2).map(Number);
const channels = new Map();
const channelOf = (url) => new URL(url, 'http://bench').searchParams.get('channel');

const server = new WebSocketServer({ host: '127.0.0.1', port: clientPort, backlog: 4096, perMessageDeflate: false });
server.on('connection', (socket, request) => {
  const name = channelOf(request.url);
  if (!channels.has(name)) channels.set(name, new Set());
  const listeners = channels.get(name);
  listeners.add(socket);
  socket.on('close', () => {
    listeners.delete(socket);
    if (listeners.size === 0) channels.delete(name);
  });
});

http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const message = Buffer.concat(parts);
    for (const socket of channels.get(channelOf(request.url)) || []) socket.send(message, { binary: false });
    response.end();
  });
}).listen(controlPort, '127.0.0.1');
