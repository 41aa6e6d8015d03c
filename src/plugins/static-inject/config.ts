/** The configuration of static-inject, with the keys of the Go program and those added since. */
import { z } from "zod";
import { isFileName } from "../../secrets/secret-directory.ts";
import { hostGlob, words } from "../config-values.ts";
import { placesConfig } from "../credentials/place-config.ts";
import { secretConfig, secretError } from "../credentials/secret-config.ts";
import type { NamedSource } from "../credentials/secret-set.ts";
import { usualPlaces } from "./usual-places.ts";
import { guarded, narrowing } from "../../yaml/empty-values.ts";

/** The schema of `config` of a static-inject entry. */
export const staticInjectConfig = z
  .strictObject({
    source: z
      .enum(["secret_dir", "mappings"])
      .describe("Where the credentials are: one file per key, or in this file."),
    secret_dir: words()
      .optional()
      .describe("Directory with one file per key; the file is read at every request."),
    mappings: z
      .record(words(), z.union([z.string(), secretConfig], { error: secretError }))
      .optional()
      .describe(
        "Credentials by key: a text, or the source that one comes from, by its `type`. Prefer secret_dir or a source to a text: this file is easily shown.",
      ),
    key_by: z
      .enum(["host", "static"])
      .default("host")
      .describe("host: the key is the destination, host:port before host. static: always `key`."),
    key: words().optional().describe("The key for key_by: static."),
    hosts: narrowing(hostGlob(), 1_000).describe(
      "Destinations, as host globs, that this entry attaches credentials for; others are left alone. Any when left out.",
    ),
    placeholder: words()
      .optional()
      .describe(
        "The stand-in that the client must send to have it replaced, wherever it puts credentials (see placeholder_in and places). When absent: any bearer token, or any value of inject_header or of another field for API keys.",
      ),
    placeholder_in: guarded(
      z
        .array(z.enum(usualPlaces))
        .min(1)
        .optional()
        .describe(
          "Which of the usual places the stand-in is looked for in. authorization: with any scheme, or as user or password of Basic. header: inject_header and the fields that SDKs send API keys in, such as x-api-key, x-goog-api-key and api-key. query: parameters such as key, api_key and access_token. path: a whole segment, or one that begins with bot. The credential is taken out of responses to requests that had it in query or path. Default: all of them.",
        ),
    ),
    places: placesConfig(
      "The only places that the stand-in is looked for in, instead of the usual ones: each by its name, and for the hosts and paths that it names. The credential is taken out of every response to a request that had it in one of them. Needs placeholder.",
    ),
    inject_header: z
      .string()
      .regex(/^[!#$%&'*+\-.^`|~\w]+$/, { error: "must be a header name" })
      .optional()
      .describe(
        "Field that gets the credential, whichever field has the stand-in: Authorization as `Bearer <value>`, any other the bare value (and no Authorization). When absent: the place of the stand-in. In a query or a path it is always replaced in its place.",
      ),
    allow_plaintext: guarded(
      z
        .boolean()
        .optional()
        .describe(
          "Attach credentials to plain HTTP requests. Default: true with a warning at the start, as in the Go program; false refuses them.",
        ),
    ),
  })
  .superRefine((config, context) => {
    const issue = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    if (config.source === "secret_dir" && config.secret_dir === undefined) {
      issue("secret_dir", "is required for source: secret_dir");
    }
    const isMapped = Object.keys(config.mappings ?? {}).length > 0;
    if (config.source === "secret_dir" && isMapped) {
      issue("mappings", "has no effect with source: secret_dir");
    }
    if (config.source === "mappings" && config.secret_dir !== undefined) {
      issue("secret_dir", "has no effect with source: mappings");
    }
    if (config.source === "mappings" && !isMapped) {
      issue("mappings", "must have at least one entry for source: mappings");
    }
    if (config.key_by === "static" && config.key === undefined) {
      issue("key", "is required for key_by: static");
    }
    if (config.key_by === "host" && config.key !== undefined) {
      issue("key", "has no effect with key_by: host");
    }
    const { key, source } = config;
    if (key !== undefined && source === "secret_dir" && !isFileName(key)) {
      issue("key", "must be a file name inside secret_dir");
    }
    if (
      /^(?:host|content-length|transfer-encoding|connection|te|upgrade|trailer)$/i.test(
        config.inject_header ?? "",
      )
    ) {
      issue("inject_header", "names a field that frames or routes the message");
    }
  })
  .superRefine(({ places, placeholder, placeholder_in: usual }, context) => {
    if (places === undefined) return;
    const issue = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    if (placeholder === undefined) issue("placeholder", "is required with places");
    if (usual !== undefined) issue("placeholder_in", "has no effect with places");
  });

/** A checked configuration. */
export type StaticInjectConfig = z.output<typeof staticInjectConfig>;

/** The sources among the mappings; keys of hosts are compared in lower case. */
export function namedSourcesOf({ mappings = {}, key_by: by }: StaticInjectConfig): NamedSource[] {
  return Object.entries(mappings).flatMap(([key, config]) => {
    if (typeof config === "string") return [];
    return [{ key: by === "host" ? key.toLowerCase() : key, path: ["mappings", key], config }];
  });
}

/** Words about risks that the configuration takes, for the log at the start. */
export function injectWarningsOf(config: StaticInjectConfig): string[] {
  const warnings: string[] = [];
  if (config.allow_plaintext === undefined) {
    warnings.push(
      "allow_plaintext is not set: credentials are attached to plain HTTP requests too",
    );
  }
  if (config.key_by === "static" && config.hosts.length === 0) {
    warnings.push("key_by: static without hosts attaches the credential for every destination");
  }
  return warnings;
}
