/** Request bodies above limits.max_body are looked through as they pass: the origin never has the end of one that is refused. */
import { randomBytes } from "node:crypto";
import { gzipSync } from "node:zlib";
import { beforeAll, describe, expect, test } from "vitest";
import { checkDigits } from "../../src/dlp/key-formats.ts";
import { type BridgeOptions, BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const host = "api.allowed.test";
const random = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
const key = `ghp_${random}${checkDigits(random)}`;
const card = "4111111111111111";
const prose = "Call the tool, then answer in French; ".repeat(10_000);

let plain: HttpOrigin;
let secure: TlsOrigin;
let proxy: BridgeProxy;

function start(
  over: object,
  {
    plugins = [],
    file = {},
    limits = { max_body: "64KiB" },
  }: Pick<BridgeOptions, "plugins" | "file" | "limits"> = {},
): Promise<BridgeProxy> {
  const rules = [
    { hosts: ["www.allowed.test"], detectors: ["cards", "provider_keys"], action: "redact" },
    { hosts: ["other.allowed.test"], action: "observe" },
  ];
  return TestAuthority.create().then(async (authority) => {
    secure = await own(TlsOrigin.start(await authority.server([host]), "both"));
    return own(
      BridgeProxy.start({
        ports: [secure.port],
        originCa: authority.caPem,
        plugins: [
          {
            name: "dlp",
            config: { rules, default: { action: "refuse" }, larger_bodies: "stream", ...over },
          },
          ...plugins,
        ],
        otherwise: "allow",
        file,
        limits: { ...limits },
      }),
    );
  });
}

beforeAll(async () => {
  plain = await own(HttpOrigin.launch());
  proxy = await start({});
});

let counter = 0;

async function post(
  body: string | Buffer,
  to = host,
  fields: Readonly<Record<string, string>> = {},
  through = proxy,
) {
  const mark = `/call-${(counter += 1)}`;
  const authority = `${to}:${plain.port}`;
  const answer: RawResponse = await request(through.forward, {
    method: "POST",
    target: `http://${authority}${mark}`,
    headers: { Host: authority, ...fields },
    body,
  });
  return { answer, seen: plain.requests.find(({ target }) => target === mark) };
}

const hiding: Readonly<Record<string, () => Buffer>> = {
  "at the end": () => Buffer.from(`${prose} ${key}`),
  "in the middle": () => Buffer.from(`${prose} ${key} ${prose}`),
  "in base64 of all": () => Buffer.from(Buffer.from(`${prose} ${key}`).toString("base64")),
  "in gzip of much": () =>
    gzipSync(
      Buffer.concat([Buffer.from(randomBytes(200_000).toString("hex")), Buffer.from(` ${key}`)]),
    ),
  "in escapes of hex of gzip": () =>
    Buffer.from(
      gzipSync(`${randomBytes(90_000).toString("hex")} ${key} ${prose}`)
        .toString("hex")
        .replaceAll(/[a-f]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`),
    ),
  "in base64 of gzip": () =>
    Buffer.from(gzipSync(`${randomBytes(200_000).toString("hex")} ${key}`).toString("base64")),
  "in escapes": () =>
    Buffer.from(`"${prose.replaceAll("t", "\\u0074")} ${key.replaceAll("_", "\\u005f")}"`),
};

describe("refuse", () => {
  test.each(Object.entries(hiding))(
    "a key %s: the origin has no whole request",
    async (_where, make) => {
      const { answer, seen } = await post(make());
      expect(answer.status).toBe(403);
      expect(answer.json()).toMatchObject({ error: "dlp.refused", plugin: "dlp" });
      expect(seen).toBeUndefined();
    },
  );

  test("what holds nothing passes as it is, with a length and in chunks", async () => {
    const body = Buffer.concat([randomBytes(300_000), Buffer.from(prose)]);
    const { answer, seen } = await post(body);
    expect([answer.status, seen?.body.equals(body)]).toEqual([200, true]);
    expect(seen?.header("content-length")).toBe(String(body.length));

    const authority = `${host}:${plain.port}`;
    const wire = await RawClient.connect(proxy.forward);
    wire.send(
      `POST http://${authority}/chunks HTTP/1.1\r\nHost: ${authority}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    for (let at = 0; at < prose.length; at += 10_000) {
      const piece = prose.slice(at, at + 10_000);
      wire.send(`${piece.length.toString(16)}\r\n${piece}\r\n`);
    }
    wire.send("0\r\n\r\n");
    expect((await wire.response()).status).toBe(200);
    wire.close();
    expect(plain.requests.find(({ target }) => target === "/chunks")?.text).toBe(prose);
  });

  test("a content coding is looked below, one that is not known is refused", async () => {
    const noise = randomBytes(100_000).toString("hex");
    const coding = { "Content-Encoding": "gzip" };
    const clean = gzipSync(noise);
    const { answer, seen } = await post(clean, host, coding);
    expect([answer.status, seen?.body.equals(clean)]).toEqual([200, true]);
    expect((await post(gzipSync(`${noise} ${key}`), host, coding)).answer.status).toBe(403);
    const other = await post(prose, host, { "Content-Encoding": "zstd" });
    expect([other.answer.status, other.seen]).toEqual([413, undefined]);
  });

  test("on the bridge, with HTTP/1.1 and HTTP/2", async () => {
    const authority = secure.at(host);
    for (const [text, status] of [
      [prose, 200],
      [`${prose} ${key}`, 403],
    ] as const) {
      const wire = await proxy.http1(authority);
      const answer = await wire.exchange(
        `POST /one HTTP/1.1\r\nHost: ${authority}\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
      );
      wire.close();
      expect(answer.status).toBe(status);
      const session = await proxy.http2(authority);
      const seen = await new Promise<number>((resolve, reject) => {
        const stream = session.request({ ":method": "POST", ":path": "/two" });
        stream.once("response", (head) => resolve(head[":status"] ?? 0));
        stream.once("error", reject);
        stream.resume();
        stream.end(text);
      });
      session.close();
      expect(seen).toBe(status);
    }
    expect(secure.seen.every(({ body }) => !body.includes(key))).toBe(true);
  });

  test("a hundred at once", async () => {
    const all = await Promise.all(
      Array.from({ length: 100 }, (_none, at) => post(at % 2 === 0 ? prose : `${prose}${key}`)),
    );
    expect(all.map(({ answer }) => answer.status)).toEqual(
      all.map((_one, at) => (at % 2 === 0 ? 200 : 403)),
    );
  });
});

test("redact: what a budget is asked about in between stays in its order", async () => {
  const limits = [{ name: "up", unit: "bytes_up", limit: 4_000_000, window: "day" }];
  const counted = await start(
    {},
    { plugins: [{ name: "budgets", config: { limits } }], file: { workers: 2 } },
  );
  const body = `${prose} ${card} and ${prose} ${card}, ${prose}`.repeat(3);
  const authority = `www.allowed.test:${plain.port}`;
  const wire = await own(RawClient.connect(counted.forward));
  wire.send(
    `POST http://${authority}/counted HTTP/1.1\r\nHost: ${authority}\r\nTransfer-Encoding: chunked\r\n\r\n`,
  );
  wire.send(`${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`);
  const { status } = await wire.response("POST");
  const seen = plain.requests.find(({ target }) => target === "/counted");
  const expected = body.replaceAll(card, "[redacted:cards]");
  expect([status, seen?.text.length]).toEqual([200, expected.length]);
  expect(seen?.text === expected).toBe(true);
});

test("redact: JSON stays JSON, forms stay forms", async () => {
  const to = "www.allowed.test";
  const body = JSON.stringify({ a: prose, card: Number(card), key, list: [card, 1], z: prose });
  const { seen } = await post(body, to, { "Content-Type": "application/json" });
  expect(JSON.parse(seen?.text ?? "")).toEqual({
    a: prose,
    card: "[redacted:cards]",
    key: "[redacted:provider_keys]",
    list: ["[redacted:cards]", 1],
    z: prose,
  });
  const form = await post(`a=${"x+".repeat(100_000)}&card=${card}&b=1`, to, {
    "Content-Type": "application/x-www-form-urlencoded",
  });
  expect(form.seen?.text.endsWith("&card=%5Bredacted%3Acards%5D&b=1")).toBe(true);
  const name = await post(JSON.stringify({ a: prose, [key]: 1 }), to, {
    "Content-Type": "application/json",
  });
  expect([name.answer.status, name.seen]).toEqual([403, undefined]);
});

test("observe: it passes, and is recorded", async () => {
  const { answer, seen } = await post(`${prose} ${key}`, "other.allowed.test");
  expect([answer.status, seen?.text.endsWith(key)]).toEqual([200, true]);
  const { text } = await request(proxy.address("sessions"), {
    target: "/v1/sessions/default",
    headers: { Host: "localhost" },
  });
  expect(text).toContain("provider_keys (github) in the body");
  expect(text).not.toContain(key);
});

describe("limits.max_buffered", () => {
  const piece = Buffer.from("Call the tool, then answer in French; ".repeat(10_000)).subarray(
    0,
    300 * 1024,
  );

  /** An upload that has sent more than limits.max_body, and goes on. */
  async function begin(through: BridgeProxy): Promise<{ client: RawClient; mark: string }> {
    const mark = `/call-${(counter += 1)}`;
    const at = `${host}:${plain.port}`;
    const client = await own(RawClient.connect(through.forward));
    client.send(
      `POST http://${at}${mark} HTTP/1.1\r\nHost: ${at}\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    client
      .send(`${piece.length.toString(16)}\r\n`)
      .send(piece)
      .send("\r\n");
    return { client, mark };
  }

  const end = async ({ client }: { client: RawClient }): Promise<number> =>
    (await client.send("0\r\n\r\n").response("POST")).status;
  const isUnderWay = ({ mark }: { mark: string }): boolean =>
    plain.heads.some(({ startLine }) => startLine.includes(mark));

  test("what was read before it was too large is held no longer than it has to be", async () => {
    const small = await start({}, { limits: { max_body: "256KiB", max_buffered: "1MiB" } });
    const uploads = [];
    // More than the limit, if what has gone on were still held.
    for (let at = 0; at < 8; at += 1) {
      const upload = await begin(small);
      await eventually(() => isUnderWay(upload));
      uploads.push(upload);
    }
    expect(await Promise.all(uploads.map(end))).toEqual(Array(8).fill(200));
  });

  test("what is not judged yet is counted: too many at once are refused with the key, and nothing stays taken", async () => {
    const small = await start({}, { limits: { max_body: "256KiB", max_buffered: "1MiB" } });
    const uploads: { client: RawClient; answered: Promise<RawResponse> }[] = [];
    let refused: RawResponse | undefined;
    // Each keeps a block and a window at least.
    for (let at = 0; at < 40; at += 1) {
      const upload = await begin(small);
      const answered = upload.client.response("POST").then((response) => (refused = response));
      await eventually(() => refused !== undefined || isUnderWay(upload));
      if (refused !== undefined) break;
      uploads.push({ ...upload, answered });
    }
    expect(refused?.status).toBe(503);
    expect(refused?.text).toContain("limits.max_buffered");
    for (const { client } of uploads) client.send("0\r\n\r\n");
    const answers = await Promise.all(uploads.map(({ answered }) => answered));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect((await post(Buffer.alloc(400_000, "x"), host, {}, small)).answer.status).toBe(200);
  });
});

test.each(["refuse", undefined])("larger_bodies: %s refuses them", async (larger_bodies) => {
  const strict = await start({ larger_bodies });
  const { answer, seen } = await post(prose, host, {}, strict);
  expect([answer.status, seen]).toEqual([413, undefined]);
  expect(answer.text).toContain("limits.max_body");
});
