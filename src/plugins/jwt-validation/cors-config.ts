/** The keys of `cors`: which pages of other origins may use the agent from a browser. */
import { z } from "zod";
import { isToken } from "../../http/headers.ts";
import { duration } from "../config-values.ts";
import { readWhere } from "../../yaml/idle-keys.ts";

const fieldName = () => z.string().refine(isToken, { error: "must be a header name" });

/** A star is a token, and the name of nothing that a browser asks for. */
const isNoStar = (text: string): boolean => text !== "*";
const noStar = "must be a name: a star stands for nothing here, and what is allowed is named";

/** Fetch section 4.8 (normalize a method) writes these in capitals; methods are compared exactly. */
const normalised = new Set(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"]);

const method = () =>
  z
    .string()
    .refine(isToken, { error: "must be a method" })
    .refine(isNoStar, { error: noStar })
    .superRefine((text, context) => {
      const capitals = text.toUpperCase();
      if (text === capitals || !normalised.has(capitals)) return;
      const message = `must be in capitals, as browsers ask for it: ${capitals}`;
      context.addIssue({ code: "custom", message });
    });

/** Origins as browsers serialise them, and `*`. */
function isOrigin(text: string): boolean {
  if (text === "*") return true;
  return /^[a-z][a-z0-9+.-]*:\/\/\S+$/.test(text) && URL.canParse(text) && isSerialised(text);
}

function isSerialised(text: string): boolean {
  const { origin, protocol, host } = new URL(text);
  // URL gives no origin to the schemes of apps.
  return text === (origin === "null" ? `${protocol}//${host}` : origin);
}

/** The schema of `cors`. */
export const corsConfig = z
  .strictObject({
    allowed_origins: z
      .array(
        z.string().refine(isOrigin, {
          error:
            "must be an origin such as https://app.example.com, in lower case and without a path, or *",
        }),
      )
      .min(1)
      .max(1_000)
      .describe("Origins of the pages, compared exactly; * is every one."),
    allowed_methods: z
      .array(method())
      .min(1)
      .max(64)
      .default(["GET", "HEAD", "POST", "DELETE"])
      .describe("Methods that pages may use."),
    allowed_headers: z
      .array(fieldName().refine(isNoStar, { error: noStar }))
      .max(256)
      .default([
        "Authorization",
        "Content-Type",
        "Accept",
        "DPoP",
        "Last-Event-ID",
        "Mcp-Method",
        "Mcp-Name",
        "MCP-Protocol-Version",
        "Mcp-Session-Id",
      ])
      .describe("Fields that pages may send. Default: what clients of MCP and A2A send."),
    exposed_headers: z
      .array(fieldName())
      .max(256)
      .default(["WWW-Authenticate", "DPoP-Nonce", "Mcp-Session-Id", "MCP-Protocol-Version"])
      .describe("Fields of responses that pages may read."),
    allow_credentials: z
      .boolean()
      .default(false)
      .describe("Let pages send cookies and client certificates. Not with the origin *."),
    max_age: readWhere(
      duration(0, 86_400_000)
        .default("10m")
        .describe("How long a browser remembers the answer to a preflight."),
      "with preflight: pass",
      ({ preflight }) => preflight === "answer",
    ),
    preflight: z
      .enum(["answer", "pass"])
      .default("answer")
      .describe(
        "answer: preflights are answered here, and the fields of CORS in the agent's responses are replaced. pass: preflights of allowed origins go to the agent without a token, whose fields stay; the proxy adds its own to its refusals only.",
      ),
  })
  .superRefine((cors, context) => {
    const { allowed_origins: origins, allow_credentials: credentials } = cors;
    const issue = (path: string, message: string): void =>
      context.addIssue({ code: "custom", path: [path], message });
    if (credentials && cors.exposed_headers.includes("*"))
      issue("exposed_headers", "has *, which is no wildcard with allow_credentials");
    if (!origins.includes("*")) return;
    if (credentials)
      issue("allow_credentials", "cannot be true with the origin *: name the origins");
    if (origins.length > 1)
      issue("allowed_origins", "has * beside other origins: keep one of them");
  });

export type CorsConfig = z.output<typeof corsConfig>;
