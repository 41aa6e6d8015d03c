/** `approval`: how long requests wait for a person, who may decide, and how they hear of it. */
import { z } from "zod";
import { guarded } from "../yaml/empty-values.ts";
import { count, duration, listOf, words } from "./value-schema.ts";
import { readWhere } from "../yaml/idle-keys.ts";

const dayMs = 24 * 3_600_000;

const operator = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.@-]{1,64}$/, { error: "must be a name of up to 64 letters, digits and . _ @ -" })
    .describe("What records call the operator."),
  secret_file: words().describe(
    "File with the secret that the operator sends as bearer token; read again when it changes.",
  ),
});

const webhook = z.strictObject({
  url: z
    .string()
    .regex(/^https?:\/\/[^\s/@]+(?:\/\S*)?$/, { error: "must be an http or https URL" })
    .describe("Where each question is posted."),
  format: z
    .enum(["generic", "slack"])
    .default("generic")
    .describe("The JSON of the question, or a message with buttons. Default generic."),
  secret_file: guarded(
    words()
      .optional()
      .describe(
        "Secret that messages are signed with (HMAC-SHA256). A message to a Slack webhook needs none. Default: not signed.",
      ),
  ),
  timeout: duration({ maxMs: 60_000 })
    .default("5s")
    .describe("How long one attempt may take. Default 5s."),
  attempts: count(1, 10).default(4).describe("How often a message is tried. Default 4."),
});

const callback = z
  .strictObject({
    secret_file: words()
      .optional()
      .describe("Secret that decisions are signed with (HMAC-SHA256 with a timestamp)."),
    slack_signing_secret_file: words()
      .optional()
      .describe("The signing secret of the Slack app whose buttons are pressed."),
  })
  .refine((keys) => Object.values(keys).some((value) => value !== undefined), {
    error: "needs secret_file or slack_signing_secret_file",
  });

/** Who polls does not wait. */
const isHolding = ({ on_pending: what }: { readonly on_pending?: unknown }): boolean =>
  what === "hold";

/** The `approval` block. */
export const approvalSchema = z
  .strictObject({
    on_pending: z
      .enum(["hold", "poll"])
      .default("hold")
      .describe(
        "What a client gets while nobody has decided. hold: it waits. poll: 202 (an error for JSON-RPC, 403 for CONNECT) with the id, and it sends the request again. Default hold.",
      ),
    hold: readWhere(
      duration({ maxMs: dayMs })
        .default("10m")
        .describe("How long a request waits for a decision. Default 10m."),
      "with on_pending: poll",
      isHolding,
    ),
    expires: duration({ maxMs: 7 * dayMs })
      .default("15m")
      .describe(
        "How long a question can be answered, and how long a decision for once can be used. Default 15m.",
      ),
    keep_alive: readWhere(
      duration({ minMs: 100, maxMs: 300_000 })
        .default("15s")
        .describe(
          "How often a held client that takes event streams (MCP) gets a sign of life. Default 15s.",
        ),
      "with on_pending: poll",
      isHolding,
    ),
    retry_after: duration({ minMs: 1_000, maxMs: 3_600_000 })
      .default("5s")
      .describe("When a client that polls is told to come again. Default 5s."),
    max_pending: count(1, 100_000)
      .default(1_000)
      .describe("Questions that may be open at a time; more are refused. Default 1000."),
    max_pending_per_caller: count(1, 100_000)
      .default(200)
      .describe("The same for one caller. Default 200."),
    max_held: readWhere(
      count(1, 100_000)
        .default(2_000)
        .describe(
          "Requests that may wait at a time, in each thread; more are refused. Default 2000.",
        ),
      "with on_pending: poll",
      isHolding,
    ),
    max_held_per_caller: readWhere(
      count(1, 100_000).default(1_000).describe("The same for one caller. Default 1000."),
      "with on_pending: poll",
      isHolding,
    ),
    max_duration: duration({ maxMs: 24 * dayMs })
      .default("24h")
      .describe("The longest time that one decision may hold. Default 24h."),
    two_person: guarded(
      z.boolean().default(false).describe("Two different operators have to allow. Default false."),
    ),
    operators: guarded(
      listOf(operator, 100).describe(
        "Persons who decide with secrets of their own. Default: whoever has the secret of session.api_secret_file.",
      ),
    ),
    webhook: webhook.optional().describe("Tells of each question. Default: nobody is told."),
    callback: callback
      .optional()
      .describe("Takes signed decisions from a chat or another service. Default: none."),
  })
  .superRefine((approval, context) => {
    const names = new Set(approval.operators.map(({ name }) => name));
    if (names.size < approval.operators.length) {
      context.addIssue({
        code: "custom",
        path: ["operators"],
        message: "has a name twice: records could not tell the two apart",
      });
    }
    const files = new Set(approval.operators.map(({ secret_file: path }) => path));
    if (files.size < approval.operators.length) {
      const message = "has a secret_file twice: one person would be two";
      context.addIssue({ code: "custom", path: ["operators"], message });
    }
    if (approval.two_person && names.size < 2) {
      const message = "needs two operators with secrets of their own (approval.operators)";
      context.addIssue({ code: "custom", path: ["two_person"], message });
    }
    if (approval.two_person && approval.callback !== undefined) {
      const message =
        "cannot stand beside two_person: whoever signs a callback could speak for two persons";
      context.addIssue({ code: "custom", path: ["callback"], message });
    }
  });
