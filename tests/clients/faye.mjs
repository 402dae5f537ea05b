// A Faye client as it is. Arguments: endpoint, transport, then what to do; each line of input is a command:
// `subscribe CHANNEL`, `unsubscribe CHANNEL`, `publish CHANNEL JSON`, `token TEXT`, `quit`. Tells what happens, a line each.
import readline from "node:readline";
import Faye from "faye";

const [endpoint, transport] = process.argv.slice(2);
const client = new Faye.Client(endpoint, { timeout: 20, retry: 1 });
// It shakes hands by long-polling whatever comes then.
if (transport !== "websocket") client.disable("websocket");
let token;
client.addExtension({
  outgoing(message, callback) {
    if (token) message.ext = { ...message.ext, auth_token: token };
    callback(message);
  },
});
const subscriptions = new Map();
const commands = {
  subscribe(channel) {
    const subscription = client.subscribe(channel).withChannel((from, data) => {
      console.log(`message ${channel} ${from} ${JSON.stringify(data)}`);
    });
    subscriptions.set(channel, subscription);
    return subscription;
  },
  async unsubscribe(channel) {
    subscriptions.get(channel).cancel();
  },
  publish(channel, json) {
    return client.publish(channel, JSON.parse(json));
  },
  async token(text) {
    token = text;
  },
  async quit() {
    await client.disconnect();
    process.exit(0);
  },
};
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [name, ...rest] = line.split(" ");
  commands[name](...rest).then(
    () => console.log(`done ${line}`),
    (error) => console.log(`failed ${line}: ${error.code}:${error.params}:${error.message}`),
  );
}
