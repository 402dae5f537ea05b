// A chat room in a terminal: node chat.mjs NAME [ROOM]. Start waft with examples/push-service/waft.toml first.
import readline from "node:readline";
import Faye from "faye";

const [name = "somebody", room = "lobby"] = process.argv.slice(2);
const client = new Faye.Client(process.env.BAYEUX ?? "http://localhost:7999/bayeux");

await client.subscribe(`/chat/${room}`, ({ from, text }) => console.log(`${from}: ${text}`));
console.log(`You are ${name} in ${room}. Write a line, or end with Ctrl-D.`);

for await (const text of readline.createInterface({ input: process.stdin })) {
  await client.publish(`/chat/${room}`, { from: name, text });
}
await client.disconnect();
process.exit(0);
