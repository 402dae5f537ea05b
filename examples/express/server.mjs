// A backend with Express and @fanoutio/serve-grip. See README.md beside this file.
import express from 'express';
import { WebSocketMessageFormat } from '@fanoutio/grip';
import { ServeGrip } from '@fanoutio/serve-grip';

const app = express();
const serveGrip = new ServeGrip({ grip: process.env.GRIP_URL ?? 'http://127.0.0.1:5561/?verify-iss=pushpin&verify-key=changeme' });
app.use(serveGrip);

app.get('/stream', (req, res) => {
  if (!req.grip.isProxied) {
    return res.status(501).send('Ask through waft.\n');
  }
  const instruct = res.grip.startInstruct();
  instruct.addChannel('news');
  instruct.setHoldStream();
  res.type('text/plain').send('welcome\n');
});

app.get('/poll', (req, res) => {
  const instruct = res.grip.startInstruct();
  instruct.addChannel('news');
  instruct.setHoldLongPoll(25);
  res.type('text/plain').send('no news\n');
});

app.get('/whoami', (req, res) => {
  res.send(`proxied=${req.grip.isProxied} signed=${req.grip.isSigned}\n`);
});

// A stateless WebSocket: each event is a POST request. The text of a client is its echo; "/say" reaches all.
app.post('/ws', (req, res) => {
  const socket = req.grip.wsContext;
  if (socket === null) {
    return res.status(400).send('Open a WebSocket through waft.\n');
  }
  if (socket.isOpening()) {
    socket.accept();
    socket.subscribe('room');
  }
  while (socket.canRecv()) {
    let message;
    try {
      message = socket.recv();
    } catch {
      break; // The client has gone.
    }
    if (message === null) {
      socket.close();
      break;
    }
    socket.send(message);
  }
  res.end();
});

app.post('/say', express.text({ type: () => true }), async (req, res) => {
  await serveGrip.getPublisher().publishFormats('room', new WebSocketMessageFormat(req.body));
  res.send('said\n');
});

app.post('/news', express.text({ type: () => true }), async (req, res) => {
  const publisher = serveGrip.getPublisher();
  await publisher.publishHttpStream('news', `${req.body}\n`);
  await publisher.publishHttpResponse('news', `${req.body}\n`);
  res.send('published\n');
});

const port = Number(process.env.PORT ?? 8000);
app.listen(port, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${port}`));
