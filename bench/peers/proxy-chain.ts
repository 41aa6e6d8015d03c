/** proxy-chain: forward and CONNECT, no upstream proxy, no authentication. */
import { Agent } from "node:http";

import { Server } from "proxy-chain";

import { announce } from "../ready.ts";

const httpAgent = new Agent({ keepAlive: true, maxSockets: Infinity });
const server = new Server({
  port: 0,
  host: "127.0.0.1",
  verbose: false,
  prepareRequestFunction: () => ({ httpAgent }),
});
await server.listen();
announce({ proxy: server.port });
