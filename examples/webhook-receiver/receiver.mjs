// A receiver of webhooks without any package: it checks shared (v1) and public (v1a) keys of Standard Webhooks.
//
//   KEY=whsec_... node receiver.mjs      or with KEY=whpk_...

import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE_S = 300;
const seen = new Set();
const checks = (process.env.KEY ?? "").split(",").map(check);

// Makes of a key what checks a signature.
function check(key) {
  const [, kind, encoded] = /^(whsec|whpk)_(.+)$/.exec(key) ?? [];
  const bytes = Buffer.from(encoded ?? "", "base64");
  if (kind === "whsec") {
    return (version, text, signature) => {
      const expected = createHmac("sha256", bytes).update(text).digest();
      return version === "v1" && expected.length === signature.length && timingSafeEqual(expected, signature);
    };
  }
  if (kind === "whpk") {
    const jwk = { kty: "OKP", crv: "Ed25519", x: bytes.toString("base64url") };
    const publicKey = createPublicKey({ key: jwk, format: "jwk" });
    return (version, text, signature) => version === "v1a" && verify(null, text, publicKey, signature);
  }
  throw new Error("KEY must be whsec_... or whpk_..., several with commas between them");
}

function isGenuine(headers, body) {
  const id = headers["webhook-id"], timestamp = headers["webhook-timestamp"];
  if (!id || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const text = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  return (headers["webhook-signature"] ?? "").split(" ").some((part) => {
    const [version, signature] = part.split(",");
    return checks.some((one) => one(version, text, Buffer.from(signature ?? "", "base64")));
  });
}

createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  if (!isGenuine(request.headers, body)) {
    console.log("refused", request.headers["webhook-id"]);
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  // Delivery is at least once: the id tells what was here before.
  console.log(seen.has(id) ? "again" : "received", id, JSON.stringify(JSON.parse(body)));
  seen.add(id);
  response.writeHead(204).end();
}).listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => console.log("ready"));
