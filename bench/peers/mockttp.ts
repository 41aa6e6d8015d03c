/** mockttp: every request passed through, unknown protocols in a tunnel relayed as they are. */
import * as mockttp from "mockttp";

import { announce } from "../ready.ts";

// The package's types leave this function out.
const { generateCACertificate } = mockttp as unknown as {
  generateCACertificate(this: void): Promise<{ key: string; cert: string }>;
};

// With BENCH_TLS it opens TLS as well, with an authority of its own.
const https =
  process.env["BENCH_TLS"] === undefined ? {} : { https: await generateCACertificate() };
const server = mockttp.getLocal({
  recordTraffic: false,
  passthrough: ["unknown-protocol"],
  ...https,
});
await server.start();
await server.forAnyRequest().thenPassThrough();
announce({ proxy: server.port });
