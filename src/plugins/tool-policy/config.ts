/** The configuration of tool-policy. Everything that can be compiled is compiled when the file is checked. */
import { z } from "zod";
import { messageOf } from "../../errors.ts";
import { compilePathGlob } from "../../pattern/path-pattern.ts";
import { parseCidr } from "../../net/address.ts";
import { parseArgumentPath } from "../../policy/tools/argument-path.ts";
import { compileArgumentSchema } from "../../policy/tools/argument-schema.ts";
import { compileLinearPattern } from "../../policy/tools/linear-pattern.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { hostGlob, words } from "../config-values.ts";

/** A text that `compile` takes; its Error is the problem. */
function compiled(compile: (text: string) => unknown): z.ZodString {
  return words().superRefine((text, context) => {
    try {
      compile(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: messageOf(error) });
    }
  });
}

const names = (): z.ZodArray<z.ZodString> => z.array(words()).min(1).max(10_000);

function absolutePath(): z.ZodString {
  return compiled((path) => {
    if (!path.startsWith("/")) throw new Error("must begin with a slash");
    compilePathGlob(path);
  });
}

const urlCondition = z.strictObject({
  schemes: z
    .array(z.enum(["https", "http", "wss", "ws", "ftp"]))
    .min(1)
    .default(["https"])
    .describe("Schemes that are allowed. Default https."),
  hosts: z
    .array(hostGlob())
    .min(1)
    .describe('Host patterns: "api.example.com", "*.example.com" (one label), "**.example.com".'),
  ports: z
    .array(z.int().min(1).max(65_535))
    .min(1)
    .optional()
    .describe("Ports that are allowed; absent: the default port of the scheme."),
  path_prefix: z
    .string()
    .regex(/^\/[^?#%;]*$/, { error: "must be a plain path that begins with a slash" })
    .optional()
    .describe("The path must be this one or below it."),
});

const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);

const argumentRule = z
  .strictObject({
    url: urlCondition.optional().describe("A URL, read by the WHATWG rules and spelled plainly."),
    path: z
      .strictObject({
        root: z
          .string()
          .regex(/^\/(?!.*(?:\/\.\.?(?:\/|$)|\/\/))/, {
            error: "must be an absolute path without dot segments",
          })
          .describe("The folder that the path must be in."),
      })
      .optional()
      .describe("An absolute file path inside a folder, after normalisation."),
    cidr: z
      .array(compiled(parseCidr))
      .min(1)
      .optional()
      .describe("An IP address or range inside one of these ranges."),
    enum: z.array(scalar).min(1).optional().describe("Exactly one of these values."),
    pattern: compiled(compileLinearPattern)
      .optional()
      .describe("A regular expression (RE2) that the whole text must match."),
    max_length: z.int().min(0).optional().describe("Characters of a text, at most."),
    max_items: z.int().min(0).optional().describe("Items of a list, at most."),
    optional: z.boolean().default(false).describe("The argument may be absent. Default false."),
  })
  .refine((rule) => Object.keys(rule).some((key) => key !== "optional"), {
    error: "needs a condition: url, path, cidr, enum, pattern, max_length or max_items",
  });

const callers = z
  .strictObject({
    subjects: names().optional().describe("Subjects of the caller's token."),
    clients: names().optional().describe("Client ids of the caller's token."),
    scopes: names().optional().describe("Scopes, all of which the caller must have."),
    agents: names()
      .optional()
      .describe("Names of agents, as the top-level callers block authenticates them."),
    binaries: names().optional().describe("Executables of the caller, by path or pattern (Linux)."),
  })
  .refine((whom) => Object.keys(whom).length > 0, {
    error: "names nobody; leave it out to mean everybody",
  });

const argumentRules = z.record(z.string(), argumentRule).superRefine((rules, context) => {
  if (Object.keys(rules).length === 0) {
    context.addIssue({
      code: "custom",
      message: "has no condition; leave it out to mean any arguments",
    });
  }
  for (const path of Object.keys(rules)) {
    try {
      parseArgumentPath(path);
    } catch (error) {
      context.addIssue({ code: "custom", path: [path], message: messageOf(error) });
    }
  }
});

const schema = z.record(z.string(), z.unknown()).superRefine((value, context) => {
  try {
    compileArgumentSchema(value);
  } catch (error) {
    context.addIssue({ code: "custom", message: `is no usable JSON Schema: ${messageOf(error)}` });
  }
});

const rule = z
  .strictObject({
    name: words().describe("What refusals and records call the rule."),
    effect: z
      .enum(["allow", "deny", "ask"])
      .default("allow")
      .describe(
        "A deny rule beats every other rule, and ask, by which a person decides, beats allow. Default allow.",
      ),
    callers: callers.optional().describe("Whom the rule speaks about; absent: everybody."),
    methods: names()
      .default(["tools/call"])
      .describe("Methods that the rule speaks about. Default tools/call."),
    tools: names()
      .optional()
      .describe(
        "Exact names of tools (for prompts/get: of prompts). A rule that allows or asks must have them.",
      ),
    arguments: argumentRules
      .optional()
      .describe(
        "Conditions by place: dotted (through every item of a list) or a JSON pointer. All must hold; a missing argument or one of another type does not.",
      ),
    schema: schema.optional().describe("A JSON Schema (2020-12) for all arguments."),
    allow_private: z
      .array(words())
      .default([])
      .describe(
        "Addresses, ranges and host names that are not public and may yet be in URLs of arguments, and file: for local files. Default none.",
      ),
  })
  .superRefine(({ effect, methods, tools, arguments: conditions, schema: judged }, context) => {
    const takesNames = methods.includes("tools/call") || methods.includes("prompts/get");
    if (effect !== "deny" && takesNames && tools === undefined) {
      const message = `${effect === "allow" ? "an allow rule" : "a rule that asks"} for tools/call or prompts/get names what may be called`;
      context.addIssue({ code: "custom", path: ["tools"], message });
    }
    if (effect !== "deny" && !takesNames && tools !== undefined) {
      const message = "names are judged for tools/call and prompts/get only";
      context.addIssue({ code: "custom", path: ["tools"], message });
    }
    if (
      effect === "deny" &&
      tools === undefined &&
      conditions === undefined &&
      judged === undefined
    ) {
      const message = "a deny rule needs tools, arguments or a schema";
      context.addIssue({ code: "custom", path: ["effect"], message });
    }
  });

/** What clients may send without a rule: the mechanics of the protocol, by which nothing is read or done. */
const mechanics = [
  "initialize",
  "ping",
  "notifications/*",
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "completion/complete",
  "logging/setLevel",
  "tasks/*",
  "server/discover",
  "subscriptions/listen",
];

const server = z.strictObject({
  name: words().describe("What records call the server."),
  hosts: z
    .array(hostGlob())
    .min(1)
    .optional()
    .describe("Host patterns; absent: every host, which is what the inbound chain wants."),
  ports: z
    .array(z.int().min(1).max(65_535))
    .min(1)
    .optional()
    .describe("Ports; absent: every port."),
  paths: z
    .array(absolutePath())
    .min(1)
    .default(["/mcp"])
    .describe("Paths of the endpoint; case and a slash at the end do not matter. Default /mcp."),
  methods: names()
    .default(mechanics)
    .describe("Methods that clients may send without a rule; name/* is a namespace."),
  server_requests: z
    .array(words())
    .default(["ping"])
    .describe("Requests that the server may send to its client. Default ping."),
  rules: z
    .array(rule)
    .max(10_000)
    .default([])
    .describe("What may be called; what no rule allows is refused."),
});

/** The schema of `config` of a tool-policy entry. */
export const toolPolicyConfig = z
  .strictObject({
    servers: guarded(
      z.array(server).min(1).max(1000).describe("The MCP servers that are guarded."),
      "all",
    ),
    other_servers: z
      .enum(["deny", "ignore"])
      .default("deny")
      .describe("What becomes of MCP messages to servers that no entry names. Default deny."),
    tools: z
      .strictObject({
        pin: guarded(
          z
            .boolean()
            .default(false)
            .describe(
              "Refuses a tool whose description or schema is no longer what was first seen. Default false.",
            ),
        ),
        pins_when_away: z
          .enum(["refuse", "local"])
          .default("refuse")
          .describe(
            "What happens to messages about tools while the store of `state`, which keeps the pins, is away. local: what this process has seen counts. Default refuse.",
          ),
      })
      .default({ pin: false, pins_when_away: "refuse" })
      .describe("What holds for all tools."),
  })
  .superRefine(({ servers }, context) => {
    const seen = new Set<string>();
    for (const [at, { name }] of servers.entries()) {
      if (seen.has(name)) {
        const message = `there are two servers "${name}"`;
        context.addIssue({ code: "custom", path: ["servers", at, "name"], message });
      }
      seen.add(name);
    }
  });

/** A checked configuration. */
export type ToolPolicyConfig = z.output<typeof toolPolicyConfig>;

/** Whether a rule speaks about what the caller's token says. */
export function judgesTokens({ servers }: ToolPolicyConfig): boolean {
  return servers.some(({ rules }) =>
    rules.some(
      ({ callers: whom }) =>
        whom?.subjects !== undefined || whom?.clients !== undefined || whom?.scopes !== undefined,
    ),
  );
}
