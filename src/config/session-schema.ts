/**
 * `session` and `audit`: what is recorded of messages, how much of it, for how long, and who may read it.
 */
import { z } from "zod";
import { count, duration, listOf, size, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";
import { readWhere } from "../yaml/idle-keys.ts";

const never = "never";

/** A file that grows up to a size, and the older ones beside it. */
const fileBounds = {
  path: words().describe("The file. Older ones are kept beside it as PATH.1, PATH.2 and so on."),
  max_file: size(65_536)
    .default("64MiB")
    .describe("Size at which a new file is begun. Default 64MiB."),
};

const persistSchema = z.strictObject({
  ...fileBounds,
  max_files: count(1, 1_000)
    .default(4)
    .describe("Files kept, the current one included. Default 4."),
});

const receiptHost = z
  .string()
  .regex(/^[^\s:]+$/, { error: "must be a host pattern without a port" });

/** `audit.receipts`. */
const receiptsSchema = z.strictObject({
  on_request: z
    .boolean()
    .default(true)
    .describe(
      "Whether a client that sends authbridge-receipt: request gets a receipt in the response. Default true.",
    ),
  hosts: listOf(receiptHost).describe(
    "Host patterns whose responses have a receipt in any case. * is one label, ** is many. Default [].",
  ),
  origins: listOf(receiptHost).describe(
    "Host patterns whose origins get the receipt in the request. Default [].",
  ),
});

const auditKeys = z.strictObject({
  ...fileBounds,
  max_files: count(1, 10_000)
    .default(100)
    .describe("Files kept, the current one included. Default 100."),
  signing_key_file: guarded(
    words()
      .optional()
      .describe(
        "An Ed25519 private key in PEM that signs checkpoints and receipts; read again when it changes. Without it every process makes a key of its own, which ends with it.",
      ),
  ),
  origin: z
    .string()
    .regex(/^[^\s+]{1,200}$/, { error: "must be a name without blanks and plus signs" })
    .optional()
    .describe(
      "What checkpoints and receipts call this log. Default authbridge-proxy/ and the name of the host.",
    ),
  checkpoint_every: count(1, 1_000_000)
    .default(1_000)
    .describe("Decisions after which a signed checkpoint is written. Default 1000."),
  checkpoint_interval: duration()
    .default("1m")
    .describe("The longest time for which a written decision waits for a checkpoint. Default 1m."),
  receipts: receiptsSchema
    .optional()
    .describe(
      "Signed receipts of decisions in the field authbridge-receipt. Needs signing_key_file. Without the block nobody gets one.",
    ),
});

/** The `audit` block. */
export const auditSchema = auditKeys.superRefine(({ receipts, signing_key_file: key }, context) => {
  if (receipts === undefined || key !== undefined) return;
  const message =
    "needs audit.signing_key_file: a receipt is checked when the process and a key of its own are gone";
  context.addIssue({ code: "custom", path: ["receipts"], message });
});

/** Without sessions there is neither an API nor a store. */
const isEnabled = ({ enabled }: { readonly enabled?: unknown }): boolean => enabled === true;

/** The `session` block. */
export const sessionSchema = z.strictObject({
  enabled: z
    .boolean()
    .default(true)
    .describe("Keep session events and serve the session API. Default true."),
  ttl: z
    .union([z.literal(never), duration()])
    .default("30m")
    .describe(
      'Time after its last event at which a session is forgotten; "never" leaves it to the other bounds. Default 30m.',
    ),
  max_events: z
    .int()
    .default(500)
    .describe("Events kept per session; 0 or less means the default. Default 500."),
  max_sessions: z
    .int()
    .default(100)
    .describe("Sessions kept; 0 or less means the default. Default 100."),
  max_bytes: size(1_048_576)
    .default("64MiB")
    .describe("Memory that all events together may take, approximately. Default 64MiB."),
  bodies: z
    .enum(["off", "truncated", "full"])
    .default("truncated")
    .describe(
      "What events keep of the content that parsers read: off keeps names, ids and token counts, truncated keeps max_body of it. Secrets are taken out in any case. Default truncated.",
    ),
  max_body: size(64)
    .default("32KiB")
    .describe(
      "Characters of content that one event keeps where bodies is truncated; the newest message of a conversation has precedence. Default 32KiB.",
    ),
  redact: listOf(words(), 100).describe(
    "Further patterns (RE2 syntax) whose matches are taken out of events. Default [].",
  ),
  header: z
    .string()
    .regex(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$/, { error: "must be the name of a header" })
    .optional()
    .describe(
      "Header whose value names the session of a message, for agents that carry one from inbound to outbound. Default: none.",
    ),
  add_traceparent: z
    .boolean()
    .default(true)
    .describe(
      "Give messages of an A2A or MCP conversation a traceparent header on their way to the agent where they have none, so that what an instrumented agent sends out is tied to its session. Default true.",
    ),
  executables: z
    .boolean()
    .default(false)
    .describe(
      "Look up which executable made each connection (Linux, on one machine), also where no policy asks, and name it in events. Default false.",
    ),
  ties_when_away: z
    .enum(["refuse", "local"])
    .default("refuse")
    .describe(
      "Replicas tell each other through the store of `state` which messages belong to which conversation and user. While it is away, refuse: a message that others may know of is taken for nobody's, so that what asks for its user refuses it. local: what this process knows counts. Default refuse.",
    ),
  api_secret_file: readWhere(
    guarded(
      words()
        .optional()
        .describe(
          "File with a secret that clients of the session API have to send as bearer token; read again when it changes. Default: no secret is asked for.",
        ),
    ),
    "with enabled: false",
    isEnabled,
  ),
  api_cors_origins: readWhere(
    listOf(
      z.string().regex(/^https?:\/\/[^/\s*?#@]+$/, {
        error: 'must be an origin such as "https://console.example"',
      }),
      100,
    ).describe("Origins whose web pages may read the session API. Default []."),
    "with enabled: false",
    isEnabled,
  ),
  persist: readWhere(
    persistSchema
      .optional()
      .describe(
        "Keep events in a file, and read them again at the next start. Default: in memory only.",
      ),
    "with enabled: false",
    isEnabled,
  ),
});
