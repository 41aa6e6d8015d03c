/**
 * `state`: where what has to outlive the process, or to agree between replicas, is kept.
 */
import { z } from "zod";
import { duration, listOf, size, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

const node = () =>
  z.string().regex(/^(?:\[[\da-fA-F:.]+\]|[^\s:/@[\]]+):\d{1,5}$/, {
    error: 'must be host and port, such as "redis-1.example:6379" or "[fd00::1]:6379"',
  });

/** A server of Redis or Valkey, without a password: the file of the configuration is no place for it. */
const serverUrl = () =>
  z
    .string()
    .regex(/^rediss?:\/\/[^\s]+$/, {
      error: "must be a redis:// or rediss:// address",
      abort: true,
    })
    .refine((text) => URL.canParse(text) && /^(?:\/\d{0,5})?$/.test(new URL(text).pathname), {
      error: "is not a valid address, such as redis://redis.example:6379/0",
      abort: true,
    })
    .refine((text) => !/[?#]/.test(text), {
      error: "has a query or a fragment, which nothing reads",
    })
    .refine((text) => new URL(text).password === "", {
      error: "has a password in it: put it into the file of password_file",
    });

/** The `state` block. */
export const stateSchema = z.strictObject({
  store: z
    .enum(["memory", "file", "redis"])
    .default("memory")
    .describe(
      "memory: of this process, lost with it. file: of this process, and still there after it. redis: Redis or Valkey, shared by every replica that names the same. Default memory.",
    ),
  path: words().optional().describe("The file, with store: file. One process has it."),
  url: serverUrl()
    .optional()
    .describe(
      "With store: redis, the server: redis://HOST:PORT/DATABASE, or rediss:// for TLS; a node of the cluster, or a sentinel where sentinel_name is set. A user name in it is the one of the ACL.",
    ),
  nodes: listOf(node(), 100).describe(
    "Further nodes of the cluster, or further sentinels, as HOST:PORT. Default [].",
  ),
  cluster: z.boolean().default(false).describe("The servers are a cluster. Default false."),
  sentinel_name: words()
    .optional()
    .describe("Name under which sentinels know the server; url and nodes are then sentinels."),
  password_file: guarded(
    words()
      .optional()
      .describe("File with the password; read again at every connection. Default: none is sent."),
  ),
  ca_file: words()
    .optional()
    .describe(
      "PEM file with the authorities of the server's certificate, in place of the system's.",
    ),
  cert_file: words().optional().describe("PEM file with our own certificate, for mutual TLS."),
  key_file: words().optional().describe("PEM file with the key of cert_file."),
  server_name: words()
    .optional()
    .describe("Name that the server's certificate has to have. Default: the host of the address."),
  key_prefix: z
    .string()
    .max(128)
    .regex(/^[^\s{}]*$/, { error: "must not have spaces or braces" })
    .default("authbridge:")
    .describe("Begins every key and channel of this program there. Default authbridge:."),
  timeout: duration({ maxMs: 30_000 })
    .default("250ms")
    .describe(
      "Longest that a request waits for the store; what then happens is said where the store is used. Default 250ms.",
    ),
  max_size: size(65_536)
    .default("64MiB")
    .describe(
      "Memory that entries of the stores memory and file may take, approximately. Nothing is forgotten to make room. Default 64MiB.",
    ),
  encryption_key_file: guarded(
    words()
      .optional()
      .describe(
        "File with keys of 32 bytes in base64 or hex, one a line: values (not counters) are sealed with the first by AES-256-GCM, and opened with any of them; read again when it changes. These are the pins of tools, the logins that ended and the tokens that handles stand for.",
      ),
  ),
});
