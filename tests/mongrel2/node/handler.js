// An unmodified m2node handler. Its module `zmq` is the compatibility layer of today's zeromq.
const { Handler } = require("m2node/lib/m2node/handler");

const [send, recv] = process.argv.slice(2);
const handler = new Handler({ recv_spec: send, send_spec: recv });
handler.on("request", (request) => {
  // Notices are not requests.
  if (request.headers.METHOD === "JSON") return;
  const path = request.path || (request.headers && request.headers.PATH);
  const body = `m2node: ${path}`;
  handler.sendResponse(request, Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`));
});
console.log("connected");
