/** Receipts of decisions in a field of the response and of the request (`audit.receipts`). */
import { createPublicKey, generateKeyPairSync, hash, type JsonWebKey, verify } from "node:crypto";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import {
  type Address,
  exchangeBytes,
  openTunnel,
  type RawResponse,
  request,
} from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram, type Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const field = "authbridge-receipt";

let scratch: string;
let keyFile: string;
let origin: HttpOrigin;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "authbridge-receipt-"));
  keyFile = join(scratch, "key.pem");
  const { privateKey } = generateKeyPairSync("ed25519");
  writeFileSync(keyFile, privateKey.export({ type: "pkcs8", format: "pem" }));
  origin = await own(
    HttpOrigin.launch((asked) =>
      reply(200, JSON.stringify({ got: asked.header(field) ?? "nothing" }), { [field]: "forged" }),
    ),
  );
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

let logs = 0;
function start(receipts: Settings | undefined, over: Settings = {}): Promise<ProxyProcess> {
  const path = join(scratch, `audit-${(logs += 1)}.jsonl`);
  const audit = { path, signing_key_file: keyFile, origin: "here" };
  const policy = {
    name: "egress-policy",
    config: { allow: ["127.0.0.1"] },
  };
  const base = settings({
    ...outbound(policy),
    audit: receipts === undefined ? audit : { ...audit, receipts },
  });
  return own(ProxyProcess.start(merge(base, over)));
}

interface Claims {
  readonly id: string;
  readonly verdict: string;
}

/** What a receipt says, once its signature is checked with the key that the proxy shows. */
async function checked(proxy: Pick<ProxyProcess, "stats">, receipt: unknown): Promise<Claims> {
  const [head = "", body = "", signature = ""] = String(receipt).split(".");
  const { alg, kid } = JSON.parse(Buffer.from(head, "base64url").toString()) as Settings;
  expect(alg).toBe("EdDSA");
  const { keys } = JSON.parse((await proxy.stats("/v1/keys")).text) as {
    keys: (JsonWebKey & { kid: string })[];
  };
  const jwk = keys.find((key) => key.kid === kid) ?? {};
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.from(`${head}.${body}`);
  expect(verify(null, signed, key, Buffer.from(signature, "base64url"))).toBe(true);
  return JSON.parse(Buffer.from(body, "base64url").toString()) as Claims;
}

const asking = { [field]: "request" };
const fieldOf = (response: RawResponse): unknown => response.header(field);
const got = ({ text }: RawResponse): unknown => (JSON.parse(text) as { got: unknown }).got;

describe.each([1, 2])("with workers: %i", (workers) => {
  test("whoever asks gets a receipt of what was decided, and the origin sees nothing of it", async () => {
    const proxy = await start({}, { workers });
    const response = await request(proxy.forward, {
      target: `${origin.url}/path?query`,
      headers: asking,
    });
    expect(response.status, response.text).toBe(200);
    expect(got(response)).toBe("nothing");
    expect(await checked(proxy, fieldOf(response))).toMatchObject({
      iss: "here",
      method: "GET",
      host: `127.0.0.1:${origin.port}`,
      path: hash("sha256", "/path", "base64url"),
      caller: hash("sha256", "127.0.0.1", "base64url"),
      verdict: "allow",
      rule: expect.stringContaining("egress-policy"),
    });
    const refused = await request(proxy.forward, {
      target: "http://refused.example/",
      headers: asking,
    });
    expect(refused.status).toBe(403);
    expect(await checked(proxy, fieldOf(refused))).toMatchObject({
      verdict: "deny",
      host: "refused.example:80",
    });
    const plain = await request(proxy.forward, { target: `${origin.url}/` });
    expect(fieldOf(plain)).toBeUndefined();
  });
});

test("a request in a tunnel has its own receipt, and its id is that of the decision log", async () => {
  const proxy = await start({});
  const { client, answer } = await openTunnel(proxy.forward, `127.0.0.1:${origin.port}`);
  expect(answer.status).toBe(200);
  client.write({ target: "/inside", headers: { Host: `127.0.0.1:${origin.port}`, ...asking } });
  const claims = await checked(proxy, fieldOf(await client.response()));
  expect(claims).toMatchObject({ verdict: "allow", path: hash("sha256", "/inside", "base64url") });
  client.close();
  const proof = await request(proxy.address("sessions"), {
    target: `/v1/decisions/${claims.id}/proof`,
    headers: { Host: "localhost" },
  });
  expect(proof.status, proof.text).toBe(200);
});

test("requests in TLS that the proxy opens have them, over HTTP/1.1 and HTTP/2", async () => {
  const authority = await TestAuthority.create();
  const secure = await own(TlsOrigin.start(await authority.server(["api.allowed.test"])));
  const audit = {
    path: join(scratch, "bridged.jsonl"),
    signing_key_file: keyFile,
    origin: "here",
    receipts: {},
  };
  const proxy = await own(
    BridgeProxy.start({
      ports: [secure.port],
      originCa: authority.caPem,
      file: { audit },
    }),
  );
  const at = `api.allowed.test:${secure.port}`;
  const old = await proxy.get(at, "/one", `${field}: request\r\n`);
  expect(await checked(proxy, fieldOf(old))).toMatchObject({ verdict: "allow", host: at });
  const session = await proxy.http2(at);
  const stream = session.request({ ":path": "/two", ...asking });
  stream.end();
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  expect(await checked(proxy, headers[field])).toMatchObject({
    path: hash("sha256", "/two", "base64url"),
  });
  stream.resume();
  session.destroy();
});

test("an origin that the file names can check it, and nobody else can send it one", async () => {
  const proxy = await start({ on_request: false, origins: ["127.0.0.1"] });
  const response = await request(proxy.forward, {
    target: `${origin.url}/`,
    headers: { [field]: "a.b.c" },
  });
  expect(await checked(proxy, got(response))).toMatchObject({ verdict: "allow" });
  const asked = await request(proxy.forward, { target: `${origin.url}/`, headers: asking });
  expect(fieldOf(asked)).toBeUndefined();
});

test("a host that the file names has them in any case, in both directions", async () => {
  const proxy = await start(
    { hosts: ["127.0.0.1"] },
    { listener: { reverse_proxy_backend: origin.url, roles: ["forward", "reverse"] } },
  );
  for (const response of [
    await request(proxy.forward, { target: `${origin.url}/` }),
    await request(proxy.address("reverse"), { target: "/", headers: { Host: "localhost" } }),
  ]) {
    expect(await checked(proxy, fieldOf(response))).toMatchObject({ verdict: "allow" });
  }
});

/** Writes a receipt of its own wherever a field of a response may stand. */
const forger = (asked: IncomingMessage, response: ServerResponse): void => {
  response.writeEarlyHints({ link: "</a>; rel=preload", [field]: "forged" });
  response.writeHead(200, {
    "Content-Type": asked.url === "/events" ? "text/event-stream" : "text/plain",
    [field]: ["forged", "forged"],
    Trailer: field,
    "X-Got": asked.headers[field] ?? "nothing",
  });
  response.write("data: body\n\n");
  response.addTrailers({ "Authbridge-Receipt": "forged", "X-Whole": "yes" });
  response.end();
};

/** Everything that comes back, with what nobody reads a response for. */
function rawly(address: Address, target: string, host: string, wish = ""): Promise<string> {
  const fields = `Host: ${host}\r\nTE: trailers\r\n${wish}Connection: close\r\n`;
  return exchangeBytes(address, `GET ${target} HTTP/1.1\r\n${fields}\r\n`);
}

describe.each([1, 2])("with workers: %i", (workers) => {
  test(
    "what an origin writes into the field, anywhere in a response, reaches no client",
    { timeout: 60_000 },
    async () => {
      const server = createServer(forger);
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      const { port } = server.address() as AddressInfo;
      const url = `http://127.0.0.1:${port}`;
      const proxy = await start(
        {},
        { workers, listener: { reverse_proxy_backend: url, roles: ["forward", "reverse"] } },
      );
      for (const wish of [
        "",
        `${field}: request\r\n`,
        `${field}: a.b.c\r\n${field}: request\r\n`,
      ]) {
        for (const path of ["/", "/events"]) {
          for (const raw of [
            await rawly(proxy.forward, `${url}${path}`, `127.0.0.1:${port}`, wish),
            await rawly(proxy.address("reverse"), path, "localhost", wish),
          ]) {
            expect(raw).toMatch(/X-Whole: yes/i);
            expect(raw).toMatch(/X-Got: nothing/i);
            expect(raw).not.toContain("forged");
            const given = raw.match(/authbridge-receipt: ey/gi) ?? [];
            expect(given).toHaveLength(wish.includes(": request") && !wish.includes("a.b") ? 1 : 0);
          }
        }
      }
      const { client, answer } = await openTunnel(proxy.forward, `127.0.0.1:${port}`);
      expect(fieldOf(answer)).toBeUndefined();
      client.write({ target: "/inside", headers: { Host: `127.0.0.1:${port}`, ...asking } });
      const inside = await client.response();
      expect(await checked(proxy, fieldOf(inside))).toMatchObject({
        verdict: "allow",
      });
      client.close();
      server.close();
      server.closeAllConnections();
    },
  );
});

test.each(["http/1.1", "h2"] as const)(
  "an origin of %s writes nothing into it in opened TLS",
  async (protocol) => {
    const authority = await TestAuthority.create();
    const secure = await own(
      TlsOrigin.start(await authority.server(["api.allowed.test"]), protocol),
    );
    secure.on("/", forger);
    const audit = {
      path: join(scratch, `forged-${protocol.replace("/", "-")}.jsonl`),
      signing_key_file: keyFile,
      origin: "here",
      receipts: {},
    };
    const proxy = await own(
      BridgeProxy.start({ ports: [secure.port], originCa: authority.caPem, file: { audit } }),
    );
    const session = await proxy.http2(`api.allowed.test:${secure.port}`);
    for (const wish of [{}, asking]) {
      const stream = session.request({ ":path": "/", ...wish });
      stream.end();
      const seen: Record<string, unknown>[] = [];
      for (const name of ["headers", "response", "trailers"]) {
        stream.on(name, (fields: Record<string, unknown>) => seen.push(fields));
      }
      stream.resume();
      await once(stream, "close");
      expect(seen.length).toBeGreaterThan(1);
      expect(JSON.stringify(seen)).not.toContain("forged");
      const given = seen.flatMap((fields) => fields[field] ?? []);
      expect(given).toHaveLength(Object.keys(wish).length);
      for (const one of given) await checked(proxy, one);
    }
    session.destroy();
  },
);

test("a receipt is short, whatever it tells of", async () => {
  const proxy = await start({});
  const response = await request(proxy.forward, {
    target: `http://${"a".repeat(60)}.example/${"p".repeat(5_000)}`,
    headers: asking,
  });
  expect(response.status, response.text).toBe(403);
  const receipt = String(fieldOf(response));
  expect(receipt.length).toBeLessThan(2_048);
  await checked(proxy, receipt);
});

test("without the block nobody gets one, and what a client sends goes nowhere", async () => {
  const proxy = await start(undefined);
  for (const value of ["request", "a.b.c"]) {
    const response = await request(proxy.forward, {
      target: `${origin.url}/`,
      headers: { [field]: value },
    });
    expect([got(response), fieldOf(response)]).toEqual(["nothing", "forged"]);
  }
});

test("receipts without a key that stays are refused at the start", async () => {
  const config = join(scratch, "keyless.yaml");
  writeFileSync(config, "audit:\n  path: /tmp/a\n  receipts: {}\nlistener: { roles: [forward] }\n");
  const { code, stderr } = await runProgram(["check", "--config", config]);
  expect(code).not.toBe(0);
  expect(stderr).toContain("needs audit.signing_key_file");
});
