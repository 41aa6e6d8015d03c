/** Permits for tests of what stands below a pipeline. */
import { parseAbsoluteTarget } from "../../src/net/destination.ts";
import { type Client, type Direction, makeFlow } from "../../src/pipeline/flow.ts";
import { type Permit, Pipeline } from "../../src/pipeline/pipeline.ts";
import { createLogger } from "../../src/telemetry/log.ts";

/** A permit for this origin, asked for by this client. */
export function permitFor(
  origin: string,
  client: Client = { address: "127.0.0.1", port: 1 },
  direction: Direction = "outbound",
): Permit {
  const { destination } = parseAbsoluteTarget(`${origin}/`);
  const log = createLogger("silent");
  const pipeline = new Pipeline([], { direction, otherwise: "allow", log });
  return pipeline.permitSkipped(makeFlow({ direction, transport: "http", client, destination }));
}
