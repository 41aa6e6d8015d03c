/** JSON, YAML and GraphQL that others wrote. */
import { parseConfig } from "../../src/config/load.ts";
import { decodeBody } from "../../src/http/body.ts";
import { classifyRpc } from "../../src/http/json-rpc.ts";
import { spliceJson } from "../../src/http/json-splice.ts";
import { parseStrictJson } from "../../src/http/strict-json.ts";
import { readAllowlist } from "../../src/policy/file/allowlist-reader.ts";
import { readPolicyDocument } from "../../src/policy/file/document.ts";
import { readGraphqlDocument } from "../../src/policy/graphql-document.ts";
import { YamlDocument } from "../../src/yaml/document.ts";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { splitProblem, type Target, texts } from "./target.ts";

const jsonWords = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  '"a":',
  "\\",
  "\\u0000",
  "\\ud800",
  "null",
  "true",
  "1e999",
  "-0",
  "0",
  ".5",
  "\t",
  "\xff",
  "\xef\xbb\xbf",
  "[".repeat(200),
  '"__proto__":',
];

const json: Target = {
  name: "json",
  covers: ["/src/http/strict-json.ts", "/src/http/json-rpc.ts", "/src/http/json-splice.ts"],
  seeds: texts(
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"b":[1,2]}}}',
    '[{"id":null},1,"x"]',
    '{"a":1,"a":2}',
    '{"\\u0061":1,"a":2}',
    '"\\ud83d\\ude00"',
    "[[[[]]]]",
    " 1 ",
  ),
  words: jsonWords,
  check(bytes) {
    const read = parseStrictJson(bytes);
    if (read.kind === "invalid") return { outcome: "invalid" };
    const text = bytes.toString();
    const problem = splitProblem(JSON.parse(text), read.value);
    const body = classifyRpc(read.value);
    const value = read.value as Record<string, unknown>;
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    const [first] = isObject ? Object.keys(value) : [];
    if (first === undefined || problem !== undefined) return { outcome: body.kind, problem };
    // One member is another value, and every other byte is where it was.
    const other = spliceJson(text, [{ path: [first], json: '"other"' }]);
    const wanted = { ...value, [first]: "other" };
    const isOther = splitProblem(JSON.parse(other), wanted);
    return { outcome: `${body.kind} spliced`, problem: isOther };
  },
};

const policy: Target = {
  name: "policy-file",
  covers: [
    "/src/policy/file/",
    "/src/yaml/document.ts",
    "/src/pattern/",
    "/src/policy/host-syntax.ts",
  ],
  seeds: texts(
    "version: 1\nnetwork_policies:\n  api:\n    name: api\n    endpoints:\n      - host: api.example.com\n        port: 443\n        rules:\n          - allow: {method: GET, path: /v1/**}\n    binaries:\n      - path: /usr/bin/curl\n",
    "network_policies: {a: {endpoints: [{host: '*.example.com', ports: [80, 443], access: read-only, enforcement: audit}]}}",
    "network_policies:\n  a: &a\n    endpoints: []\n  b: *a\n",
    "allow: [example.com:443, {host: '**.a.example', methods: [GET], paths: ['/a/*']}]\n",
  ),
  words: [
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "*",
    "**",
    "&a ",
    "*a",
    "!!binary ",
    "host: ",
    "port: 443",
    "path: /",
    "\t",
    "'",
    '"',
    "%",
    "|",
    ">",
    "network_policies:",
    "0x1",
    "~",
    "\u2028",
  ],
  check(bytes) {
    const document = new YamlDocument(bytes.toString());
    if (document.problems.length > 0) return { outcome: "no YAML" };
    const { value } = document;
    const locate = (path: readonly (string | number)[]): ReturnType<typeof document.locate> =>
      document.locate(path);
    const read = readPolicyDocument({ value, locate });
    const list = readAllowlist({
      allow: (value as { readonly allow?: unknown } | null)?.allow,
      locate,
    });
    const isSilent = read.document === undefined && read.problems.length === 0;
    return {
      outcome: `${String(read.document !== undefined)} ${Math.min(5, read.problems.length)} ${String(list.allowlist !== undefined)}`,
      problem: isSilent ? "refused without a word" : undefined,
    };
  },
};

const config: Target = {
  name: "config-file",
  covers: ["/src/config/", "/src/yaml/"],
  seeds: texts(
    "mode: proxy-sidecar\nlistener:\n  forward_proxy_addr: :8081\n  reverse_proxy_addr: :8080\n  reverse_proxy_backend: http://127.0.0.1:8000\npipeline:\n  outbound:\n    plugins:\n      - name: token-exchange\n        config: {token_url: https://idp.example/token, client_id: '${A:-b}'}\n",
    "listener: {forward_proxy_addr: '127.0.0.1:0'}\ntls_bridge: {mode: enabled}\n",
    "limits: {max_tunnels: 1k, header_timeout: 10s}\n",
  ),
  words: [
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "${A}",
    "${",
    "&a ",
    "*a",
    "null",
    "10s",
    "1MiB",
    "-1",
    "listener:",
    "pipeline:",
    "\t",
    "'",
    "<<: ",
    "? ",
    "__proto__: ",
  ],
  check(bytes) {
    const read = parseConfig(bytes, "config.yaml", { env: { A: "a" } });
    if (read.kind !== "rejected") return { outcome: "read" };
    const isSilent = read.problems.length === 0;
    return {
      outcome: `${Math.min(5, read.problems.length)} problems`,
      problem: isSilent ? "refused without a word" : undefined,
    };
  },
};

const graphql: Target = {
  name: "graphql",
  covers: ["/src/policy/graphql-document.ts"],
  seeds: texts(
    "{ a }",
    "query Q($a: Int = 1) @d { a: b(c: $a) { d } ...F ... on T { e } } fragment F on T { f }",
    'mutation { a(b: """x\\"""y""") }',
    "subscription { a } # c",
  ),
  words: [
    "{",
    "}",
    "(",
    ")",
    "...",
    "on",
    "@",
    "$",
    ":",
    "!",
    '"""',
    '"',
    "\\",
    "#",
    "query ",
    "mutation ",
    "fragment F on T ",
    "\n",
    "\ufeff",
    "..",
    "{".repeat(50),
  ],
  check(bytes) {
    const read = readGraphqlDocument(bytes.toString());
    return {
      outcome:
        "error" in read ? String(read.error).replaceAll(/\d+/g, "") : read.operation.operationType,
    };
  },
};

const limit = 1_000;
const codings = ["gzip", "br", "deflate", "zstd", "gzip, br", "identity"] as const;
const coding: Target = {
  name: "content-coding",
  covers: ["/src/http/body.ts", "/src/http/stream-decoder.ts"],
  seeds: [
    gzipSync("hello"),
    brotliCompressSync("hello"),
    deflateSync("hello"),
    gzipSync(Buffer.alloc(100_000)),
    Buffer.concat([gzipSync("a"), gzipSync("b")]),
  ],
  words: ["\x1f\x8b", "\x08", "\0\0", "\xff", "\x78\x9c", "\x28\xb5\x2f\xfd"],
  async check(bytes, dice) {
    const name = dice.oneOf(codings);
    const read = await decodeBody(bytes, name, limit);
    const isOver = read.kind === "body" && read.bytes.length > limit;
    return {
      outcome: `${name} ${read.kind}`,
      problem: isOver ? `${name}: more than the limit` : undefined,
    };
  },
};

export const targets: readonly Target[] = [json, policy, config, graphql, coding];
