// Publishes with the library of the Fanout cloud as it is. HOST:PORT stands for the host that is built into it.
import net from "node:net";
import { createRequire } from "node:module";

const [host, port] = process.argv[2].split(":");
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...rest) {
  const options = Array.isArray(rest[0]) ? rest[0][0] : rest[0];
  if (options?.host === "api.fanout.io") {
    options.host = host;
    options.port = Number(port);
    delete options.lookup;
  }
  return connect.apply(this, rest);
};

const { Fanout } = createRequire(import.meta.url)("fanoutpub");
const published = (realm, key, data) =>
  new Promise((resolve) => new Fanout(realm, key, false).publish("open/node", data, (success) => resolve(success)));
console.log("published:", await published("demo", "c2VjcmV0", { from: "node" }));
console.log("other realm:", await published("other", "c2VjcmV0", "no"));
process.exit(0);
