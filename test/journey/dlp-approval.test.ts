/** dlp asks a person: on every surface that sees requests, for exactly one request, and never with the secret in the question. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { checkDigits } from "../../src/dlp/key-formats.ts";
import { Approver } from "../support/approvals.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { request, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const host = "api.allowed.test";
const random = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
const key = `ghp_${random}${checkDigits(random)}`;
const card = "4111111111111111";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-dlp-approval-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let plain: HttpOrigin;
let secure: TlsOrigin;
let proxy: BridgeProxy;
let operator: Approver;

const dlp = {
  name: "dlp",
  config: {
    rules: [{ name: "cards", hosts: [host], detectors: ["cards"], action: "redact" }],
    default: { action: "ask" },
  },
};

async function start(session: object): Promise<BridgeProxy> {
  const authority = await TestAuthority.create();
  secure = await own(TlsOrigin.start(await authority.server([host])));
  return own(
    BridgeProxy.start({
      ports: [secure.port],
      originCa: authority.caPem,
      names: [host],
      plugins: [dlp],
      otherwise: "allow",
      file: { session },
    }),
  );
}

beforeAll(async () => {
  plain = await own(HttpOrigin.launch());
  proxy = await start({ api_secret_file: secretFile });
  operator = new Approver(proxy, "operator-secret");
});

function post(body: string, path = "/", through = proxy): Promise<RawResponse> {
  const authority = `${host}:${plain.port}`;
  return request(through.forward, {
    method: "POST",
    target: `http://${authority}${path}`,
    headers: [
      ["Host", authority],
      ["Content-Type", "application/json"],
    ],
    body,
  });
}

async function over1(body: string): Promise<{ readonly status: number; readonly text: string }> {
  const authority = secure.at(host);
  const wire = await proxy.http1(authority);
  try {
    return await wire.exchange(
      `POST /in HTTP/1.1\r\nHost: ${authority}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
  } finally {
    wire.close();
  }
}

async function over2(body: string): Promise<{ readonly status: number; readonly text: string }> {
  const session = await proxy.http2(secure.at(host));
  try {
    return await new Promise((resolve, reject) => {
      const stream = session.request({
        ":method": "POST",
        ":path": "/in",
        "content-type": "application/json",
      });
      let [status, text] = [0, ""];
      stream.on("response", (head) => (status = head[":status"] ?? 0));
      stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
      stream.once("error", reject);
      stream.once("end", () => resolve({ status, text }));
      stream.end(body);
    });
  } finally {
    session.close();
  }
}

test.each([
  ["absolute form", post],
  ["the bridge, HTTP/1.1", over1],
  ["the bridge, HTTP/2", over2],
])("%s: it waits, and goes on or is refused as a person says", async (what, send) => {
  const body = JSON.stringify({ what, note: key });
  const allowed = send(body);
  const ask = await operator.next();
  expect(ask).toMatchObject({ plugin: "dlp", rule: "default" });
  expect(ask.why).toBe(`the request to ${host} holds provider_keys (github) in body $.note`);
  expect(JSON.stringify(ask)).not.toContain(key);
  await operator.allow(ask.id);
  expect((await allowed).status).toBe(200);

  const denied = send(JSON.stringify({ what, note: key, other: 1 }));
  await operator.deny((await operator.next()).id, "not this one");
  const { status, text } = await denied;
  expect([status, text.includes("not this one"), text.includes(key)]).toEqual([403, true, false]);
});

test("an approval is for one body, and what another rule redacts is redacted", async () => {
  const sent = post(JSON.stringify({ note: key, card }), "/both");
  await operator.allow((await operator.next()).id);
  expect((await sent).status).toBe(200);
  const seen = plain.requests.find(({ target }) => target === "/both");
  expect(JSON.parse(seen?.text ?? "")).toEqual({ note: key, card: "[redacted:cards]" });

  const other = post(JSON.stringify({ note: key, card, more: 1 }), "/both");
  await operator.deny((await operator.next()).id);
  expect((await other).status).toBe(403);
});

test("what is asked shows neither a query nor arguments with the secret", async () => {
  const call = {
    jsonrpc: "2.0",
    id: 7,
    method: "tools/call",
    params: { name: "gist", arguments: { text: `take ${key}`, n: 1 } },
  };
  const sent = post(JSON.stringify(call), `/mcp?key=${key}&x=1`);
  const ask = await operator.next();
  expect(JSON.stringify(ask)).not.toContain(key);
  expect(ask.request).toMatchObject({
    tool: "gist",
    path: "/mcp?key=%5Bredacted%3Aprovider_keys%5D&x=1",
    arguments: '{"n":1,"text":"take [redacted:provider_keys]"}',
  });
  await operator.deny(ask.id, "no");
  expect((await sent).json()).toMatchObject({ jsonrpc: "2.0", id: 7 });
  const { text } = await request(proxy.address("sessions"), {
    target: "/v1/sessions/default",
    headers: { Host: "localhost", Authorization: "Bearer operator-secret" },
  });
  expect(text).toContain("/mcp");
  expect(text).not.toContain(key);
});

test("nobody can answer: it is refused at once, and the refusal names the keys", async () => {
  const alone = await start({});
  const { status, text } = await post(JSON.stringify({ note: key }), "/", alone);
  expect(status).toBe(403);
  expect(text).toContain("session.api_secret_file");
});
