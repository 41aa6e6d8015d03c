/** mockttp: every request passed through, unknown protocols in a tunnel relayed as they are. */
import { getLocal } from "mockttp";

import { announce } from "../ready.ts";

const server = getLocal({ recordTraffic: false, passthrough: ["unknown-protocol"] });
await server.start();
await server.forAnyRequest().thenPassThrough();
announce({ proxy: server.port });
