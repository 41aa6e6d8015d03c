/** Endpoints of language models that the file names: hosts and paths, and the API that is spoken there. */
import { z } from "zod";
import { messageOf } from "../../errors.ts";
import { readPath } from "../../http/path.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import { compilePathGlob, type PathGlob } from "../../pattern/path-pattern.ts";
import { factKey } from "../../pipeline/facts.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import { dialects, type Endpoint, isMedia } from "../../protocols/inference-endpoints.ts";
import { hostGlob } from "../config-values.ts";

const maxEndpoints = 256;

const endpoint = z.strictObject({
  host: hostGlob().describe("Hosts, as a pattern such as *.models.example."),
  path: z
    .string()
    .superRefine((pattern, context) => {
      try {
        compilePathGlob(pattern);
      } catch (error) {
        context.addIssue({ code: "custom", message: messageOf(error) });
      }
    })
    .describe("Paths without their query, as a pattern in which * is a run within a segment."),
  api: z
    .enum(Object.keys(dialects) as (keyof typeof dialects)[])
    .describe("The API that is spoken there."),
  model: z
    .string()
    .regex(/\S/, { error: "must not be blank" })
    .optional()
    .describe("The model, where neither the body nor a known path names it."),
  stream: z
    .boolean()
    .default(false)
    .describe("Whether it streams although its request does not ask for it. Default false."),
});

/** The configuration of inference-parser. */
export const inferenceConfig = z.strictObject({
  endpoints: z
    .array(endpoint)
    .max(maxEndpoints)
    .default([])
    .describe(
      "Further endpoints, for POST. The first that matches counts, before the built-in paths. Default [].",
    ),
});

/** The endpoint that the file names for a message, for plugins behind the parser. */
export const mappedEndpoint = factKey<Endpoint>("inference-parser/endpoint");

interface Row {
  readonly host: HostGlob;
  readonly path: PathGlob;
  readonly endpoint: Endpoint;
}

/** The rows of one instance. */
export class EndpointMap {
  readonly #rows: readonly Row[];

  constructor({ endpoints }: z.output<typeof inferenceConfig>) {
    this.#rows = endpoints.map(({ host, path, api, model, stream }) => ({
      host: compileHostGlob(host),
      path: compilePathGlob(path),
      endpoint: {
        dialect: dialects[api],
        ...(isMedia(dialects[api]) ? { isMedia: true } : {}),
        place: {
          ...(model === undefined ? {} : { model }),
          ...(stream ? { stream: true } : {}),
        },
      },
    }));
  }

  /** Leaves the endpoint for those that ask, if a row matches. */
  apply(context: RequestContext): void {
    if (this.#rows.length === 0 || context.method !== "POST") return;
    const { host } = context.destination;
    const { readings } = readPath(context.pathname);
    const row = this.#rows.find(
      (one) => one.host.matches(host) && readings.some((path) => one.path.matches(path)),
    );
    if (row !== undefined) context.facts.set(mappedEndpoint, row.endpoint);
  }
}
