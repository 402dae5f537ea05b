// A CometD client as it is, with the acknowledgement extension. Arguments: endpoint, transport, channel. Tells what
// happens, a line each; a line of input `publish JSON` publishes to the channel.
import readline from "node:readline";
import { adapt } from "cometd-nodejs-client";

adapt();
const { CometD, AckExtension } = await import("cometd");
const [endpoint, transport, channel] = process.argv.slice(2);
const cometd = new CometD();
for (const other of ["websocket", "long-polling", "callback-polling"]) {
  if (other !== transport) cometd.unregisterTransport(other);
}
cometd.registerExtension("ack", new AckExtension());
cometd.configure({ url: endpoint, maxNetworkDelay: 2000, backoffIncrement: 200, maxBackoff: 1000 });
cometd.addListener("/meta/connect", (reply) => {
  console.log(reply.successful ? `connected ${reply.ext.ack}` : "connect failed");
});
cometd.handshake((reply) => {
  console.log(`handshake ${reply.successful} ack ${reply.ext?.ack}`);
  if (reply.successful) {
    cometd.subscribe(
      channel,
      (message) => console.log(`message ${JSON.stringify(message.data)}`),
      (answer) => console.log(`subscribed ${answer.successful}`),
    );
  }
});
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [, json] = line.split(/ (.*)/);
  cometd.publish(channel, JSON.parse(json), (answer) => console.log(`published ${answer.successful}`));
}
