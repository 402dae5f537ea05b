// A backend with Koa and @fanoutio/serve-grip, used as its authors describe. PORT and GRIP_URL come from the environment.
import Koa from 'koa';
import { ServeGrip } from '@fanoutio/serve-grip';

const app = new Koa();
const serveGrip = new ServeGrip({ grip: process.env.GRIP_URL });
app.use(serveGrip.koa);

app.use(async (ctx) => {
  const hold = (how) => {
    const instruct = ctx.res.grip.startInstruct();
    instruct.addChannel('news');
    how(instruct);
  };
  ctx.type = 'text/plain';
  switch (ctx.path) {
    case '/whoami':
      ctx.body = `proxied=${ctx.req.grip.isProxied} signed=${ctx.req.grip.isSigned}\n`;
      break;
    case '/stream':
      hold((instruct) => instruct.setHoldStream());
      ctx.body = 'welcome\n';
      break;
    case '/poll':
      hold((instruct) => instruct.setHoldLongPoll(25));
      ctx.body = 'no news\n';
      break;
    case '/news': {
      const publisher = serveGrip.getPublisher();
      await publisher.publishHttpStream('news', 'hello\n');
      await publisher.publishHttpResponse('news', 'hello\n');
      ctx.body = 'published\n';
      break;
    }
    default:
      ctx.status = 404;
  }
});

app.listen(Number(process.env.PORT), '127.0.0.1');
