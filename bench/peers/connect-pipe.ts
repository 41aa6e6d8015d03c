/** The plainest tunnel in Node: the `connect` event, `net.connect`, and `pipe` both ways. */
import { createServer } from "node:http";
import { connect } from "node:net";

import { announce, portOf } from "../ready.ts";

const server = createServer((_request, response) => {
  response.writeHead(405).end();
});
server.on("connect", (request, client, head) => {
  const target = new URL(`http://${request.url ?? ""}`);
  const upstream = connect({ port: Number(target.port), host: target.hostname, noDelay: true });
  upstream.on("connect", () => {
    client.write("HTTP/1.1 200 Connection Established\r\n\r\n");
    if (head.length > 0) {
      upstream.write(head);
    }
    upstream.pipe(client);
    client.pipe(upstream);
  });
  upstream.on("error", () => client.destroy());
  client.on("error", () => upstream.destroy());
  upstream.on("close", () => client.destroy());
  client.on("close", () => upstream.destroy());
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  announce({ proxy: portOf(server) });
});
// An orderly end, so that a profiler can write its file.
process.once("SIGTERM", () => process.exit(0));
