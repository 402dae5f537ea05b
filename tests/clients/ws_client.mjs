// A client with the npm package ws. It sends a numbered message for every "go" that is published, expects the echoes in
// order, and closes on "stop". Usage: node ws_client.mjs URL
import WebSocket from 'ws';

const socket = new WebSocket(process.argv[2]);
let sent = 0;
let heard = 0;

socket.on('open', () => console.log('open'));
socket.on('message', (data) => {
  const text = data.toString();
  console.log(`heard ${text}`);
  if (text === 'go') socket.send(`number ${(sent += 1)}`);
  else if (text === 'stop') socket.close(1000, 'done');
  else if (text !== `number ${(heard += 1)}`) throw new Error(`${text} came when number ${heard} was expected`);
});
socket.on('close', (code) => {
  console.log(`closed ${code}`);
  process.exit(code === 1000 ? 0 : 1);
});
socket.on('error', (error) => {
  console.log(`error ${error.message}`);
  process.exit(1);
});
