/** Texts with and without what the detectors look for, made from a seed: for tests, and for the table of docs/dlp.md. */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { checkDigits } from "../../src/dlp/key-formats.ts";
import { passesLuhn } from "../../src/dlp/numbers.ts";
import type { DetectorName } from "../../src/dlp/detectors.ts";

/** A source of bytes that are the same at every run. */
export class Seeded {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  below(limit: number): number {
    this.#state = (Math.imul(this.#state ^ (this.#state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    const mixed = Math.imul(this.#state ^ (this.#state >>> 13), 0x297a2d39) >>> 0;
    return ((mixed ^ (mixed >>> 16)) >>> 0) % limit;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  text(length: number, digits: string): string {
    return Array.from({ length }, () => digits.charAt(this.below(digits.length))).join("");
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

const lower = "abcdefghijklmnopqrstuvwxyz";
const numerals = "0123456789";
const upper = lower.toUpperCase();
const word = upper + lower + numerals;
const hexadecimal = "0123456789abcdef";

/** Values that a detector has to find. */
export const positives: Readonly<
  Record<Exclude<DetectorName, "own_secrets">, readonly ((dice: Seeded) => string)[]>
> = {
  provider_keys: [
    (dice) => `AKIA${dice.text(16, `${upper}234567`)}`,
    (dice) => checked("ghp_", dice),
    (dice) => checked("ghs_", dice),
    (dice) => `github_pat_${dice.text(22, word)}_${dice.text(59, word)}`,
    (dice) => `xoxb-${dice.text(12, numerals)}-${dice.text(13, numerals)}-${dice.text(24, word)}`,
    (dice) => `sk_live_${dice.text(24, word)}`,
    (dice) => `sk-${dice.text(20, word)}T3BlbkFJ${dice.text(20, word)}`,
    (dice) => `sk-proj-${dice.text(74, word)}T3BlbkFJ${dice.text(74, word)}`,
    (dice) => `sk-ant-api03-${dice.text(93, `${word}-_`)}AA`,
    (dice) => `AIza${dice.text(35, `${word}-_`)}`,
    (dice) => `glpat-${dice.text(20, `${word}-_`)}`,
    (dice) => checked("npm_", dice),
    (dice) => `hf_${dice.text(34, upper + lower)}`,
    (dice) => `SK${dice.text(32, hexadecimal)}`,
    (dice) => `SG.${dice.text(22, `${word}-_`)}.${dice.text(43, `${word}-_`)}`,
  ],
  private_keys: ["RSA ", "EC ", "OPENSSH ", ""].map((kind) => (dice) => {
    const lines = dice
      .bytes(240)
      .toString("base64")
      .replace(/(.{64})/g, "$1\n");
    return `-----BEGIN ${kind}PRIVATE KEY-----\n${lines}\n-----END ${kind}PRIVATE KEY-----`;
  }),
  jwt: [
    (dice) =>
      [
        Buffer.from('{"alg":"RS256","typ":"JWT"}').toString("base64url"),
        Buffer.from(JSON.stringify({ sub: dice.text(8, lower) })).toString("base64url"),
        dice.bytes(64).toString("base64url"),
      ].join("."),
  ],
  named_secrets: [
    (dice) => `"api_key": "${dice.text(24, word)}"`,
    (dice) => `password=${dice.text(20, `${word}!#$*`)}`,
    (dice) => `CLIENT_SECRET: ${dice.text(32, word)}`,
    (dice) => `"refresh_token":"${dice.bytes(30).toString("base64url")}"`,
  ],
  cards: [
    (dice) => card("4", 16, dice),
    (dice) => card("52", 16, dice),
    (dice) => card("37", 15, dice),
    (dice) => card("6011", 16, dice).replace(/(\d{4})(?=\d)/g, "$1 "),
  ],
  iban: [
    (dice) => iban("DE", 18, dice),
    (dice) => iban("FR", 23, dice).replace(/(.{4})(?=.)/g, "$1 "),
  ],
  email: [(dice) => `${dice.text(7, lower)}.${dice.text(5, lower)}@${dice.text(8, lower)}.example`],
  phone: [(dice) => `+49 ${dice.text(3, "123456789")} ${dice.text(7, numerals)}`],
  us_ssn: [
    (dice) =>
      `${dice.pick(["123", "451", "612"])}-${dice.text(2, "123456789")}-${dice.text(4, "123456789")}`,
  ],
};

function checked(begins: string, dice: Seeded): string {
  const text = dice.text(30, word);
  return begins + text + checkDigits(text);
}

function card(begins: string, length: number, dice: Seeded): string {
  const front = begins + dice.text(length - begins.length - 1, numerals);
  return front + numerals.split("").find((last) => passesLuhn(front + last));
}

function iban(country: string, length: number, dice: Seeded): string {
  const account = dice.text(length, numerals);
  const text = `${account}${country}00`.replace(/[A-Z]/g, (letter) =>
    String(letter.charCodeAt(0) - 55),
  );
  const rest = text.split("").reduce((sum, figure) => (sum * 10 + Number(figure)) % 97, 0);
  return `${country}${String(98 - rest).padStart(2, "0")}${account}`;
}

const prose =
  "The quick brown fox jumps over the lazy dog while the token budget of the model is counted, and the password policy says " +
  "that a secret must be rotated. See https://docs.example.com/guide/authentication#api-keys for how api_key is set.";

const uuid = (dice: Seeded): string =>
  [8, 4, 4, 4, 12].map((length) => dice.text(length, hexadecimal)).join("-");
const sha = (dice: Seeded, kind = "sha512"): string =>
  createHash(kind)
    .update(dice.bytes(16))
    .digest(kind === "sha1" ? "hex" : "base64");

/** A request of the traffic that agents have, with nothing in it. */
export interface Benign {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const json = { "content-type": "application/json" };
const bodyOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/** Shapes of requests by what sends them. */
const shapes: readonly ((dice: Seeded) => Benign)[] = [
  (dice) => ({
    path: "/v1/chat/completions",
    headers: {
      ...json,
      authorization: `Bearer sk-${dice.text(20, word)}T3BlbkFJ${dice.text(20, word)}`,
    },
    body: bodyOf({
      model: "gpt-4.1-2025-04-14",
      max_tokens: 4096,
      messages: [
        { role: "system", content: prose },
        {
          role: "user",
          content: `id ${uuid(dice)}\n\tcommit ${sha(dice, "sha1")}\n"quoted" text; é ü 漢字`,
        },
        {
          role: "assistant",
          tool_calls: [
            {
              id: `call_${dice.text(24, word)}`,
              function: {
                name: "run",
                arguments: JSON.stringify({ path: "C:\\temp\\new", n: 0.1234567890123456 }),
              },
            },
          ],
        },
      ],
      seed: 1_764_445_362_123,
    }),
  }),
  (dice) => ({
    path: "/v1/messages?beta=true",
    headers: {
      ...json,
      "x-api-key": `sk-ant-api03-${dice.text(93, word)}AA`,
      "anthropic-version": "2023-06-01",
    },
    body: bodyOf({
      model: "claude-sonnet-4-5-20250929",
      messages: [
        {
          role: "user",
          content: [
            {
              type: "image",
              source: {
                type: "base64",
                media_type: "image/png",
                data: dice.bytes(3_000).toString("base64"),
              },
            },
            { type: "text", text: prose },
          ],
        },
      ],
      metadata: { user_id: `user_${dice.text(64, hexadecimal)}_account__session_${uuid(dice)}` },
    }),
  }),
  (dice) => ({
    path: "/mcp",
    headers: { ...json, "mcp-session-id": uuid(dice), "mcp-protocol-version": "2025-06-18" },
    body: bodyOf({
      jsonrpc: "2.0",
      id: dice.below(9_999),
      method: "tools/call",
      params: {
        name: "search",
        arguments: {
          query: prose.slice(0, 80),
          cursor: dice.bytes(24).toString("base64"),
          nextPageToken: dice.bytes(40).toString("base64url"),
        },
        _meta: { progressToken: dice.below(1_000) },
      },
    }),
  }),
  (dice) => ({
    path: "/owner/repo.git/git-upload-pack",
    headers: {
      "content-type": "application/x-git-upload-pack-request",
      "content-encoding": "identity",
    },
    body: Buffer.from(
      Array.from({ length: 20 }, () => `0032want ${sha(dice, "sha1")}\n`).join("") +
        "00000009done\n",
    ),
  }),
  (dice) => ({
    path: "/owner/repo.git/git-receive-pack",
    headers: { "content-type": "application/x-git-receive-pack-request" },
    body: Buffer.concat([
      Buffer.from(
        `00a5${"0".repeat(40)} ${sha(dice, "sha1")} refs/heads/main\0report-status\n0000PACK`,
      ),
      dice.bytes(2_000),
      gzipSync(prose),
    ]),
  }),
  (dice) => ({
    path: "/-/npm/v1/security/advisories/bulk",
    headers: json,
    body: bodyOf({
      packages: Array.from({ length: 12 }, () => ({
        name: `@scope/${dice.text(9, lower)}`,
        version: "10.21.3-beta.4",
        resolved: `https://registry.npmjs.org/x/-/x-1.0.0.tgz`,
        integrity: `sha512-${sha(dice)}`,
      })),
    }),
  }),
  (dice) => ({
    path: `/search?q=${encodeURIComponent(prose.slice(0, 60))}&page_token=${dice.bytes(30).toString("base64url")}&sig=${uuid(dice)}`,
    headers: {
      accept: "text/html",
      cookie: `session=${dice.bytes(48).toString("base64url")}; csrftoken=${dice.text(64, word)}`,
    },
    body: Buffer.alloc(0),
  }),
  (dice) => ({
    path: "/upload",
    headers: { "content-type": "text/javascript" },
    body: Buffer.from(
      Array.from(
        { length: 40 },
        () =>
          `function ${dice.text(2, word)}(e,t){return e.token===t.secret||"${dice.text(6, word)}".charCodeAt(0)+${dice.below(99_999)}}`,
      ).join(";"),
    ),
  }),
  (dice) => ({
    path: "/v1/embeddings",
    headers: json,
    body: bodyOf({
      input: [prose, Array.from({ length: 50 }, () => dice.below(100_000))],
      vectors: Array.from(
        { length: 64 },
        () => (dice.below(2 ** 31) / 2 ** 31 - 0.5) * 1.000000001,
      ),
    }),
  }),
  (dice) => ({
    path: "/v1/traces",
    headers: json,
    body: bodyOf({
      resourceSpans: [
        {
          spans: Array.from({ length: 8 }, () => ({
            traceId: dice.text(32, hexadecimal),
            spanId: dice.text(16, hexadecimal),
            startTimeUnixNano: `1764445362${dice.text(9, numerals)}`,
            attributes: [{ key: "gen_ai.usage.input_tokens", value: { intValue: "1234" } }],
          })),
        },
      ],
    }),
  }),
  (dice) => ({
    path: "/token",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: Buffer.from(
      `grant_type=authorization_code&code_verifier=${dice.text(64, word)}&redirect_uri=https%3A%2F%2Fapp.example%2Fcb&token_type=bearer&password=hunter2`,
    ),
  }),
  (dice) => ({
    path: "/form",
    headers: { "content-type": "multipart/form-data; boundary=x" },
    body: Buffer.concat([
      Buffer.from(`--x\r\nContent-Disposition: form-data; name="file"; filename="a.gz"\r\n\r\n`),
      gzipSync(JSON.stringify({ at: uuid(dice), text: prose })),
      Buffer.from("\r\n--x--\r\n"),
    ]),
  }),
  (dice) => ({
    path: "/docs",
    headers: { "content-type": "text/markdown" },
    body: Buffer.from(
      `# Setup\n\nSet \`api_key: your-api-key-here\` or \`export TOKEN=\${MY_TOKEN}\`.\nAn example is AKIAIOSFODNN7EXAMPLE.\n\n-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n\n-----BEGIN CERTIFICATE-----\n${dice.bytes(300).toString("base64")}\n-----END CERTIFICATE-----\nssh-ed25519 ${dice.bytes(51).toString("base64")} me\n`,
    ),
  }),
];

/** So many requests, the shapes in turn. */
export function benignRequests(count: number, seed = 1): readonly Benign[] {
  const dice = new Seeded(seed);
  return Array.from({ length: count }, (_none, index) =>
    (shapes[index % shapes.length] as (typeof shapes)[number])(dice),
  );
}
