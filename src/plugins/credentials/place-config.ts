/** The places where clients put a credential, as the file describes them; one shape for every plugin that attaches one. */
import { z } from "zod";
import { messageOf } from "../../errors.ts";
import { isToken } from "../../http/headers.ts";
import { canonicalGlob, Glob } from "../../pattern/glob.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { hostGlob, words } from "../config-values.ts";

/** The kinds of places; each is a key of an item of `places`. */
export const placeKinds = [
  "header",
  "basic",
  "query",
  "path_segment",
  "form",
  "json",
  "mcp_meta",
  "websocket_protocol",
  "websocket_first_message",
] as const;

/** Kinds whose credential stands in the body. */
export const bodyKinds: ReadonlySet<string> = new Set(["form", "json", "mcp_meta"]);

const framing = /^(?:host|content-.*|transfer-encoding|connection|te|upgrade|trailer|sec-.*)$/i;

const marked = (what: string) =>
  z.string().regex(/^[^*/?#\s]*\*[^*/?#\s]*$/, {
    error: `must have one *, which stands for ${what}, and neither slashes nor spaces`,
  });

const pointer = z.string().regex(/^(?:\/(?:[^~]|~[01])*)+$/, {
  error: "must be a JSON Pointer (RFC 6901) such as /auth/token",
});

const pathGlob = z.string().superRefine((pattern, context) => {
  const issue = (message: string): void => context.addIssue({ code: "custom", message });
  if (!pattern.startsWith("/")) issue("must begin with a slash");
  try {
    pathGlobOf(pattern);
  } catch (error) {
    issue(messageOf(error));
  }
});

/** A compiled pattern of paths, as in policies: `*` stays within a segment, `**` does not. */
export function pathGlobOf(pattern: string): Glob {
  return new Glob(canonicalGlob(pattern), ["/"]);
}

/** One place. */
export const placeConfig = z
  .strictObject({
    header: z
      .string()
      .refine(isToken, { error: "must be a header name" })
      .refine((name) => !framing.test(name), {
        error: "names a field that frames, routes or describes the message",
      })
      .optional()
      .describe("A field, whose value is the stand-in, with or without a scheme before it."),
    basic: z
      .enum(["user", "password"])
      .optional()
      .describe("User or password of an Authorization field of the scheme Basic, as git has it."),
    query: words().optional().describe("A parameter of the query, in any case."),
    path_segment: marked("the stand-in")
      .optional()
      .describe(
        'A segment of the path; the star stands for the stand-in: "*" for a whole one, "bot*" for that of Telegram.',
      ),
    form: words().optional().describe("A member of an application/x-www-form-urlencoded body."),
    json: pointer
      .optional()
      .describe("A text in a JSON body, as a JSON Pointer (RFC 6901) such as /auth/token."),
    mcp_meta: words()
      .optional()
      .describe("A member of params._meta of an MCP message, or of each message of a batch."),
    websocket_protocol: marked("the stand-in")
      .optional()
      .describe(
        "A subprotocol that a WebSocket offers; the star stands for the stand-in: openai-insecure-api-key.* for the Realtime API.",
      ),
    encoded: z
      .literal("base64url")
      .optional()
      .describe("For websocket_protocol: what stands there is encoded so, as in Kubernetes."),
    websocket_first_message: pointer
      .optional()
      .describe("A text in the first message of a WebSocket, which is JSON; a JSON Pointer."),
    hosts: guarded(z.array(hostGlob()).min(1).max(1_000).optional()).describe(
      "Destinations, as host globs, for which this is a place. Default: all of the entry.",
    ),
    paths: guarded(z.array(pathGlob).min(1).max(1_000).optional()).describe(
      "Paths for which this is a place: * within a segment, ** across. A path that servers may read in another way is none of them. Default: any.",
    ),
  })
  .superRefine((place, context) => {
    const kinds = placeKinds.filter((kind) => place[kind] !== undefined);
    if (kinds.length !== 1) {
      const message = `must have exactly one of ${placeKinds.join(", ")}`;
      context.addIssue({ code: "custom", path: [], message });
    }
    if (place.encoded !== undefined && place.websocket_protocol === undefined) {
      const message = "has an effect with websocket_protocol only";
      context.addIssue({ code: "custom", path: ["encoded"], message });
    }
  });

/** A checked place. */
export type PlaceConfig = z.output<typeof placeConfig>;

/** A list of places. */
export function placesConfig(what: string) {
  return guarded(z.array(placeConfig).min(1).max(100).optional()).describe(what);
}

/** A place in words, such as `header x-api-key`. */
export function shownPlace(place: PlaceConfig): string {
  const kind = placeKinds.find((one) => place[one] !== undefined) ?? "header";
  return `${kind.replaceAll("_", " ")} ${place[kind] ?? ""}`;
}
