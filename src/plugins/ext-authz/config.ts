/** The configuration of ext-authz, in the words of Envoy's filter of that name where it has one. */
import { z } from "zod";
import { duration, words } from "../config-values.ts";
import { addedFields, fieldProblems } from "./added-fields.ts";
import { patternList } from "./string-matcher.ts";
import { guarded } from "../../yaml/empty-values.ts";

function serviceAddress() {
  return z
    .string()
    .regex(/^(?:https?:\/\/[^\s]+|unix:\/\/\/[^\s:]+)$/, {
      error: "must be an http:// or https:// address, or unix:///path/of/the/socket",
      abort: true,
    })
    .refine((text) => URL.canParse(text), { error: "is not a valid address" })
    .refine((text) => text.startsWith("unix:") || /^\/?$/.test(new URL(text).pathname), {
      error: "must be an address without a path",
    });
}

const timeout = duration(1, 600_000)
  .default("1s")
  .describe("Until the verdict is there, waiting for a free place included. Default 1s.");

const grpcService = z.strictObject({
  target_uri: serviceAddress().describe(
    "Address of the service: https://HOST:PORT (TLS), http://HOST:PORT (HTTP/2 without TLS) or unix:///PATH.",
  ),
  timeout,
  initial_metadata: guarded(addedFields.describe("Metadata that is sent with each call.")),
});

const httpService = z.strictObject({
  server_uri: z
    .strictObject({
      uri: serviceAddress().describe("Address of the service, without a path."),
      timeout,
    })
    .describe("The service that is asked."),
  path_prefix: guarded(
    z
      .string()
      .regex(/^\/[\x21-\x7e]*$/, { error: "must be a path" })
      .refine((path) => !/[?#]/.test(path), { error: "must be a path without a query" })
      .optional()
      .describe("What precedes the request's path in the question."),
  ),
  authorization_request: z
    .strictObject({
      allowed_headers: guarded(
        patternList()
          .optional()
          .describe(
            "Fields of the request that are sent besides Host, Authorization and the length of the body. As allowed_headers of the entry.",
          ),
      ),
      headers_to_add: guarded(
        addedFields.describe(
          "Fields of the question, in place of those that the client sent under these names.",
        ),
      ),
    })
    .prefault({})
    .describe("What the service is sent."),
  authorization_response: z
    .strictObject({
      allowed_upstream_headers: patternList()
        .optional()
        .describe(
          "Fields of a 200 that the request goes on with, in place of its own. Default: none.",
        ),
      allowed_upstream_headers_to_append: patternList()
        .optional()
        .describe("The same, beside its own."),
      allowed_client_headers: guarded(
        patternList()
          .optional()
          .describe(
            "Fields of a refusal that the client gets, besides Location, WWW-Authenticate and Content-Type. Default: all of them but those of the connection.",
          ),
      ),
      allowed_client_headers_on_success: patternList()
        .optional()
        .describe("Fields of a 200 that the client gets with the response. Default: none."),
    })
    .prefault({})
    .describe("What is taken over of the service's answer."),
});

const requestBody = z.strictObject({
  max_request_bytes: z
    .int()
    .min(1)
    .max(64 * 1024 * 1024)
    .describe("Longest body that the service is told, within limits.max_body."),
  allow_partial_message: z
    .boolean()
    .default(false)
    .describe(
      "Tell the service the beginning of a longer body, within limits.max_body. false: such a request is refused with 413.",
    ),
  pack_as_bytes: z
    .boolean()
    .default(false)
    .describe(
      "Over gRPC: send it in raw_body. false: in body, which holds text only; a body that is not UTF-8 is refused. Over HTTP it goes as it is.",
    ),
});

/** Fields that a service sets only where the file says so. */
export const guardedFields = [
  "authorization",
  "cookie",
  "dpop",
  "host",
  "x-api-key",
  "api-key",
  "apikey",
  "x-goog-api-key",
  "x-auth-token",
  "x-amz-security-token",
  ":path",
] as const;

interface Services {
  readonly grpc_service?: z.output<typeof grpcService> | undefined;
  readonly http_service?: z.output<typeof httpService> | undefined;
}

const statusCode = z.int().min(400).max(599);

/** The schema of `config` of an ext-authz entry. */
export const extAuthzConfig = z
  .strictObject({
    transport_api_version: z
      .enum(["V3"])
      .default("V3")
      .describe("Version of the API; there is no other one."),
    grpc_service: grpcService
      .optional()
      .describe("Asks envoy.service.auth.v3.Authorization/Check over gRPC."),
    http_service: httpService
      .optional()
      .describe("Asks over HTTP: 200 allows, 5xx is a failure, everything else is a refusal."),
    tls: z
      .strictObject({
        client_certificate_file: words()
          .optional()
          .describe(
            "File with the certificate that the service is shown, in PEM; read again when it changes.",
          ),
        client_certificate_key_file: words().optional().describe("File with its key, in PEM."),
        svid: z
          .boolean()
          .default(false)
          .describe("Show the X.509-SVID of the block spiffe in place of files."),
      })
      .optional()
      .describe("What this proxy shows of itself to a service with an https address."),
    with_request_body: guarded(
      requestBody
        .optional()
        .describe("Tell the service the body of requests. Default: it is not told."),
    ),
    failure_mode_allow: z
      .boolean()
      .default(false)
      .describe("Let requests pass while the service gives no verdict. Never where too many wait."),
    failure_mode_allow_header_add: z
      .boolean()
      .default(false)
      .describe("Mark such requests with x-envoy-auth-failure-mode-allowed: true."),
    status_on_error: z
      .union([statusCode, z.strictObject({ code: statusCode.describe("The status.") })])
      .transform((value) => (typeof value === "number" ? value : value.code))
      .default(403)
      .describe(
        "Status of requests that are refused because the service gave no verdict. Default 403.",
      ),
    allowed_headers: guarded(
      patternList()
        .optional()
        .describe(
          "Fields of the request that the service is told. Default over gRPC: all of them.",
        ),
    ),
    disallowed_headers: guarded(
      patternList()
        .refine(({ patterns }) => patterns.length > 0, {
          path: ["patterns"],
          error: "must not be empty; leave disallowed_headers out to mean none",
        })
        .optional()
        .describe("Fields that it is not told, whatever allowed_headers says."),
    ),
    encode_raw_headers: z
      .boolean()
      .default(false)
      .describe("Tell fields line by line in header_map, in place of headers. gRPC only."),
    include_peer_certificate: z
      .boolean()
      .default(false)
      .describe("Tell the client's certificate (source.certificate). gRPC only."),
    include_tls_session: z
      .boolean()
      .default(false)
      .describe(
        "Tell the name that the client asked for in its handshake (tls_session.sni). gRPC only.",
      ),
    include_executable: z
      .boolean()
      .default(false)
      .describe(
        "Look the calling process up (outbound), for source.labels.executable. Without it, it is told where another plugin looks it up. gRPC only.",
      ),
    include: z
      .array(
        z
          .string()
          .regex(
            /^(?:a2a\.content|mcp\.params|mcp\.params\.[^.]+|inference\.tools\.detail|inference\.messages)$/,
            {
              error:
                "must be one of a2a.content, mcp.params, mcp.params.NAME, inference.tools.detail, inference.messages",
            },
          ),
      )
      .max(100)
      .default([])
      .describe(
        "Heavy parts of what the parsers found, for metadata_context: a2a.content, mcp.params, mcp.params.NAME, inference.tools.detail, inference.messages. gRPC only.",
      ),
    context_extensions: z
      .record(z.string().min(1), z.string())
      .default({})
      .describe("Names and values that the service is told with each request. gRPC only."),
    allow_headers: z
      .array(z.enum(guardedFields))
      .default([])
      .describe(
        `What the service may set besides ordinary fields: ${guardedFields.join(", ")} (the whole path and query). host: inbound only. A verdict that sets another one of these is refused.`,
      ),
    connect: guarded(
      z
        .enum(["check", "inspect"])
        .optional()
        .describe(
          "check: the service decides about a CONNECT, too, and a tunnel that it allows may be opaque. inspect: it is asked about the requests in the tunnel, and an opaque tunnel is refused. Default: check over gRPC; over HTTP inspect, which is the only one.",
        ),
    ),
    max_concurrency: z
      .int()
      .min(1)
      .max(10_000)
      .default(256)
      .describe(
        "Questions at a time; sixteen times as many may wait, and more are refused with 503.",
      ),
    cache_ttl: duration(0, 3_600_000)
      .default("0s")
      .describe(
        "How long a verdict on the same question is kept, where the service may be asked less often than there are requests. Default 0s: not at all.",
      ),
  })
  .superRefine((config, context) => {
    const { grpc_service: grpc, http_service: http, tls } = config;
    const issue = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: "custom", path, message });
    if ((grpc === undefined) === (http === undefined))
      issue([], "needs one of grpc_service and http_service");
    if (http !== undefined && config.connect === "check")
      issue(
        ["connect"],
        "cannot be check with http_service: a CONNECT cannot be asked about over HTTP",
      );
    if (
      http?.authorization_request.allowed_headers !== undefined &&
      config.allowed_headers !== undefined
    )
      issue(["allowed_headers"], "is also set below http_service.authorization_request: keep one");
    if (config.failure_mode_allow_header_add && !config.failure_mode_allow)
      issue(["failure_mode_allow_header_add"], "has no effect without failure_mode_allow");
    for (const { path, message } of fieldProblems(config)) issue(path, message);
    if (tls === undefined) return;
    const { client_certificate_file: file, client_certificate_key_file: key, svid } = tls;
    if (!addressOf(config).startsWith("https://"))
      issue(["tls"], "has no effect where the address of the service is not https://");
    if ((file === undefined) !== (key === undefined))
      issue(["tls"], "needs client_certificate_file and client_certificate_key_file together");
    if (svid === (file !== undefined))
      issue(["tls"], "needs svid: true or client_certificate_file, one of them");
  });

/** A checked configuration. */
export type ExtAuthzConfig = z.output<typeof extAuthzConfig>;

/** The address of the service. */
export function addressOf({ grpc_service: grpc, http_service: http }: Services): string {
  return (grpc?.target_uri ?? http?.server_uri.uri ?? "").replace(/\/$/, "");
}
