/** The routes of token-broker: for which hosts the broker is asked, and which endpoints it is told of. */
import { z } from "zod";
import { hostGlob, serviceUrl } from "../config-values.ts";
import { rulesReader } from "../credentials/host-routes.ts";

/** One rule, as it stands in the routes file and inline. */
export const brokerRule = z.strictObject({
  host: hostGlob().describe("Destination host, as a glob in which * stays within one label."),
  action: z
    .enum(["broker", "passthrough"])
    .default("broker")
    .describe("passthrough leaves the request's credential as it is."),
  authorization_endpoint: serviceUrl()
    .optional()
    .describe("Told to the broker in X-Authorization-Endpoint."),
  token_endpoint: serviceUrl().optional().describe("Told to the broker in X-Token-Endpoint."),
});

/** A checked rule. */
export type BrokerRule = z.output<typeof brokerRule>;

/** Reads the text of a routes file; an Error says everything that is wrong with it, and where. */
export const parseBrokerRoutes = rulesReader(brokerRule);
