/** Bad input: names, addresses, framing and heads that must be refused by the proxy and never reach an origin half-read. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import {
  forbiddenNames,
  loopbackHosts,
  privateHosts,
  specialHosts,
} from "../support/forbidden-hosts.ts";
import {
  exchangeBytes,
  get,
  openTunnel,
  RawClient,
  request,
  type RawResponse,
} from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
/** Reaches loopback names, as a test must. */
let proxy: ProxyProcess;
/** Reaches nothing that is special, as in production. */
let strict: ProxyProcess;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  [proxy, strict] = await Promise.all([
    own(
      ProxyProcess.start(
        settings({
          listener: { reverse_proxy_backend: origin.url },
          egress: { private_networks: "deny", hosts: { "mixed.test": ["10.0.0.7", "127.0.0.1"] } },
          limits: { header_timeout: "700ms", body_timeout: "700ms", max_headers: 50 },
        }),
      ),
    ),
    own(
      ProxyProcess.start(
        settings({
          egress: {
            allow_ips: [],
            private_networks: "deny",
            hosts: forbiddenNames,
          },
          limits: { connect_timeout: "300ms" },
        }),
      ),
    ),
  ]);
});

/** The first status line and the JSON of what the proxy said to raw bytes. */
async function said(
  bytes: string,
  through: "forward" | "reverse" = "forward",
): Promise<{ status: number; text: string; body: unknown }> {
  const text = await exchangeBytes(proxy[through], bytes);
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1] ?? 0);
  const end = text.indexOf("\r\n\r\n");
  let body: unknown;
  try {
    body = JSON.parse(text.slice(end + 4));
  } catch {
    body = undefined;
  }
  return { status, text, body };
}

const anyRefusal: unknown = { error: expect.any(String), message: expect.any(String) };

/** Every refusal is one of these, says why in JSON, and nothing reached the origin. */
async function expectRefused(
  bytes: string,
  statuses: readonly number[],
  through: "forward" | "reverse" = "forward",
): Promise<void> {
  const before = origin.connections.length + origin.heads.length;
  const { status, body, text } = await said(bytes, through);
  expect(statuses, text).toContain(status);
  expect(body, text).toMatchObject(anyRefusal as object);
  expect(text.match(/HTTP\/1\.1 /g), "one answer and no second").toHaveLength(1);
  expect(origin.connections.length + origin.heads.length, "reached the origin").toBe(before);
  expect((await get(proxy.forward, `${origin.url}/alive`)).status).toBe(200);
}

const target = (): string => origin.url;
const authority = (): string => origin.authority;

describe("names", () => {
  const targets: readonly (readonly [string, () => string, readonly number[]])[] = [
    ["NAME-10: userinfo", () => `http://www.allowed.test@${authority()}/`, [400]],
    ["NAME-13: ideographic dots", () => "http://api\xe3\x80\x82allowed\xe3\x80\x82test/", [400]],
    ["NAME-16: an empty label", () => "http://a..b/", [400]],
    ["NAME-16: a leading dot", () => "http://.a.test/", [400]],
    ["NAME-16: a label of 64", () => `http://${"a".repeat(64)}.test/`, [400]],
    ["NAME-16: a name of 254", () => `http://${"a.".repeat(127)}/`.replace("./", "ab/"), [400]],
    ["NAME-19: origin form", () => "/path", [400, 404]],
    ["NAME-22: the asterisk", () => "*", [400, 405]],
    ["no host", () => "http:///path", [400]],
    ["another scheme", () => `ftp://${authority()}/`, [400]],
    ["a port of zero", () => "http://127.0.0.1:0/", [400, 403]],
    ["a port that is none", () => "http://127.0.0.1:port/", [400]],
    ["a port too large", () => "http://127.0.0.1:65536/", [400]],
    ["a signed port", () => "http://127.0.0.1:+80/", [400]],
    ["an octet too large", () => "http://127.0.0.256/", [400]],
    ["an IPv6 address without its end", () => "http://[::1/", [400]],
    ["an IPv6 zone", () => "http://[fe80::1%25eth0]/", [400, 403]],
    ["a percent in the name", () => "http://%6c%6fcalhost/", [400]],
    ["a backslash", () => `http:\\\\${authority()}\\`, [400]],
    ["a backslash as slash", () => `http://${authority()}\\@evil.test/`, [400]],
    ["a fragment", () => `http://${authority()}/#frag`, [400]],
    ["a space in the path", () => `http://${authority()}/a b`, [400]],
    ["a control character", () => `http://${authority()}/a\x01b`, [400]],
    ["a NUL", () => `http://${authority()}/a\0b`, [400]],
    ["a bare authority", () => authority(), [400]],
  ];
  test.each(targets)("%s in a target is refused", async (_id, make, statuses) => {
    const host = /^[a-z]+:\/\/([^/]*)/.exec(make())?.[1] ?? "a.test";
    await expectRefused(`GET ${make()} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, statuses);
  });

  const authorities: readonly (readonly [string, () => string])[] = [
    ["no port", () => "a.test"],
    ["an empty port", () => "a.test:"],
    ["userinfo", () => `user@${authority()}`],
    ["a path", () => `${authority()}/x`],
    ["a whole URL", () => `http://${authority()}/`],
    ["a query", () => `${authority()}?x`],
    ["two ports", () => `${authority()}:80`],
    ["an empty label", () => "a..b:443"],
    ["full-width letters", () => "\xef\xbd\x85vil.test:443"],
    ["bare IPv6", () => "::1:443"],
    ["nothing", () => ":443"],
    ["the asterisk", () => "*:443"],
  ];
  test.each(authorities)("%s in a CONNECT is 400", async (_id, make) => {
    await expectRefused(`CONNECT ${make()} HTTP/1.1\r\nHost: ${make()}\r\n\r\n`, [400]);
  });

  test("NAME-04: case and root dot change nothing for a rule", async () => {
    const here = await own(
      ProxyProcess.start(
        merge(
          settings({ egress: { hosts: { "evil.test": ["127.0.0.1"] } } }),
          outbound({ name: "connect-denier", config: { host: "evil.test" } }),
        ),
      ),
    );
    for (const name of ["evil.test", "EVIL.test", "evil.test."]) {
      const { client, answer } = await openTunnel(here.forward, `${name}:${origin.port}`);
      client.close();
      expect(answer.status, name).toBe(403);
    }
  });

  test("NAME-22: the preface of HTTP/2 is no request", async () => {
    await expectRefused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400, 405, 505]);
  });
});

describe("addresses", () => {
  const refused = async (host: string, port = 80): Promise<void> => {
    const { client, answer } = await openTunnel(strict.forward, `${host}:${port}`);
    client.close();
    expect([400, 403], `CONNECT ${host}: ${answer.text}`).toContain(answer.status);
    const plain = await get(strict.forward, `http://${host}:${port}/`);
    expect([400, 403], `GET ${host}: ${plain.text}`).toContain(plain.status);
  };

  test.each(loopbackHosts)("IP-01: loopback spelled %s is refused", async (host) => {
    await refused(host);
  });

  test.each(specialHosts)("IP-04, IP-07: %s is refused", async (host) => {
    await refused(host);
  });

  test("IP-01: a name below localhost is refused, whatever the resolver makes of it", async () => {
    const answer = await get(strict.forward, `http://sub.localhost:${origin.port}/`);
    expect([400, 403, 502]).toContain(answer.status);
  });

  test("IP-10: a name with an allowed and a private address is never dialled at the private one", async () => {
    // Here the allowed one is on loopback; the private one would leave the connect waiting.
    const { client, answer } = await openTunnel(proxy.forward, `mixed.test:${origin.port}`);
    client.close();
    expect([200, 403]).toContain(answer.status);
  });

  test("private networks are refused where the file says so", async () => {
    for (const host of privateHosts) await refused(host);
  });

  test("IP-16: the proxy's own listeners are never dialled, even where loopback is allowed", async () => {
    const ports = [
      proxy.forward.port,
      proxy.reverse.port,
      proxy.address("stats").port,
      proxy.address("sessions").port,
      proxy.address("health").port,
    ];
    for (const port of ports) {
      for (const host of ["127.0.0.1", "localhost", "127.0.0.2", "[::ffff:127.0.0.1]"]) {
        const { client, answer } = await openTunnel(proxy.forward, `${host}:${port}`);
        client.close();
        expect([403, 502, 508], `${host}:${port} ${answer.text}`).toContain(answer.status);
        if (host !== "127.0.0.2") expect(answer.status, `${host}:${port}`).not.toBe(502);
        const plain = await get(proxy.forward, `http://${host}:${port}/config`);
        expect(plain.status).toBeGreaterThanOrEqual(400);
        expect(plain.text).not.toContain("pipeline");
      }
    }
  });

  test("the refusal names the code and not what is behind it", async () => {
    const answer = await get(strict.forward, origin.url);
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ error: "upstream.address-forbidden" });
    expect(origin.requests.filter(({ target }) => target === "/never")).toEqual([]);
  });
});

describe("Host", () => {
  test("FRONT-03: one that differs from the target is 421", async () => {
    await expectRefused(`GET ${target()}/ HTTP/1.1\r\nHost: evil.test\r\n\r\n`, [421]);
    await expectRefused(`CONNECT ${authority()} HTTP/1.1\r\nHost: evil.test:443\r\n\r\n`, [421]);
  });

  test("FRONT-03: the port counts too", async () => {
    await expectRefused(`GET ${target()}/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n`, [421]);
  });

  test("FRONT-04: two are 400, equal or not", async () => {
    for (const second of ["evil.test", authority()]) {
      await expectRefused(
        `GET ${target()}/ HTTP/1.1\r\nHost: ${authority()}\r\nHost: ${second}\r\n\r\n`,
        [400],
      );
    }
  });

  test.each(["", "a b", "a,b", "user@a.test", "a.test/x"])("%j is 400 or 421", async (host) => {
    await expectRefused(`GET ${target()}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`, [400, 421]);
  });

  test("none in HTTP/1.1 is 400", async () => {
    await expectRefused(`GET ${target()}/ HTTP/1.1\r\n\r\n`, [400]);
    await expectRefused("GET / HTTP/1.1\r\n\r\n", [400], "reverse");
  });

  test("FRONT-07: a second request on the connection is judged by its own Host", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    expect((await client.ask({ target: `${target()}/one` })).status).toBe(200);
    const second = await client.ask({ target: `${target()}/two`, headers: { Host: "evil.test" } });
    expect(second.status).toBe(421);
    expect(origin.requestsFor("/two")).toEqual([]);
  });

  test("other spellings of the same Host are the same", async () => {
    for (const host of [authority().toUpperCase(), authority()]) {
      expect((await get(proxy.forward, `${target()}/same`, { Host: host })).status).toBe(200);
    }
  });
});

describe.each(["forward", "reverse"] as const)("framing on the %s listener", (through) => {
  const line = (path = "/framing"): string =>
    `POST ${through === "forward" ? target() : ""}${path} HTTP/1.1\r\nHost: ${authority()}\r\n`;

  const cases: readonly (readonly [string, string, readonly number[]])[] = [
    [
      "H1-01: a length and chunks",
      "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      [400],
    ],
    [
      "H1-01: chunks and a length",
      "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
      [400],
    ],
    ["two lengths that differ", "Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody", [400]],
    ["two lengths that agree", "Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody", [400]],
    ["a list of lengths", "Content-Length: 4, 4\r\n\r\nbody", [400]],
    ["a negative length", "Content-Length: -1\r\n\r\n", [400]],
    ["a signed length", "Content-Length: +4\r\n\r\nbody", [400]],
    ["a hexadecimal length", "Content-Length: 0x4\r\n\r\nbody", [400]],
    ["an empty length", "Content-Length:\r\n\r\n", [400]],
    ["an endless length", `Content-Length: ${"9".repeat(40)}\r\n\r\n`, [400, 413]],
    ["a coding nobody knows", "Transfer-Encoding: wonder\r\n\r\n", [400, 501]],
    ["chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", [400, 501]],
    [
      "chunked in two lines",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      [400, 501],
    ],
    ["chunked not last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", [400, 501]],
    ["gzip before chunked", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", [400, 501]],
    ["identity", "Transfer-Encoding: identity\r\n\r\n", [400, 501]],
    ["chunked with a tab before it", "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", [400]],
    ["a space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", [400]],
    ["a name with a space", "X Y: 1\r\n\r\n", [400]],
    ["a folded field", "X-A: one\r\n two\r\n\r\n", [400]],
    ["a line without a colon", "nonsense\r\n\r\n", [400]],
    ["an empty name", ": x\r\n\r\n", [400]],
    ["a NUL in a value", "X-A: a\0b\r\n\r\n", [400]],
    ["a bare CR in a value", "X-A: a\rX-B: b\r\n\r\n", [400]],
    ["a bare LF between fields", "X-A: a\nX-B: b\r\n\r\n", [400]],
  ];
  test.each(cases)("%s is refused", async (_id, rest, statuses) => {
    await expectRefused(line() + rest, statuses, through);
  });

  const chunks: readonly (readonly [string, string])[] = [
    ["H1-04: a size with _", "1_0\r\n"],
    ["H1-04: a signed size", "+1\r\na\r\n0\r\n\r\n"],
    ["a size that is none", "xyz\r\n"],
    ["a negative size", "-1\r\n"],
    ["a size with 0x", "0x1\r\na\r\n0\r\n\r\n"],
    ["an endless size", `${"f".repeat(20)}\r\n`],
    ["H1-04: a bare LF after the size", "1\na\r\n0\r\n\r\n"],
    ["no line end after the data", "1\r\nab0\r\n\r\n"],
    ["H1-04: an extension of 1 MiB", `1;x=${"y".repeat(1_048_576)}\r\na\r\n0\r\n\r\n`],
    ["an extension with a bare CR", "1;a\rb\r\na\r\n0\r\n\r\n"],
  ];
  test.each(chunks)("%s is 400 and never a whole request", async (id, rest) => {
    const path = `/chunk-${id.replaceAll(/\W/g, "-")}`;
    const { status, text } = await said(
      `${line(path)}Transfer-Encoding: chunked\r\n\r\n${rest}`,
      through,
    );
    expect([400, 413, 431], text.slice(0, 300)).toContain(status);
    expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    // Half of it may have left already; a whole request must not have.
    expect(origin.requestsFor(path)).toEqual([]);
    expect((await get(proxy.forward, `${target()}/alive`)).status).toBe(200);
  });

  test("H1-04: a size with 64 KiB of zeros is refused or read as what it is", async () => {
    const path = `/zeros-${through}`;
    const bytes = `${line(path)}Transfer-Encoding: chunked\r\n\r\n${"0".repeat(70_000)}1\r\na\r\n0\r\n\r\n`;
    const { status } = await said(bytes, through);
    if (status === 200) expect(origin.requestFor(path).text).toBe("a");
    else expect(origin.requestsFor(path)).toEqual([]);
  });

  test("a body that ends early never becomes a whole request", async () => {
    for (const rest of [
      "Content-Length: 100\r\n\r\nshort",
      "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ]) {
      const path = `/early-end-${rest.length}`;
      await exchangeBytes(proxy[through], line(path) + rest, { thenEnd: true });
      expect(origin.requestsFor(path)).toEqual([]);
    }
    await eventually(async () => (await get(proxy.forward, `${target()}/alive`)).status === 200);
  });

  test("what follows a refused head is not read as a request", async () => {
    const hidden = `GET ${through === "forward" ? target() : ""}/hidden-${through} HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`;
    const bytes = `${line()}Content-Length: ${hidden.length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`;
    await expectRefused(bytes, [400], through);
    expect(origin.requestsFor(`/hidden-${through}`)).toEqual([]);
  });

  test("an answer that is pending is not overtaken by the refusal of the next request", async () => {
    const path = `/pending-${through}`;
    let answerNow: (() => void) | undefined;
    origin.on(path, async () => {
      await new Promise<void>((resolve) => (answerNow = resolve));
      return reply(200, "first");
    });
    const client = await own(RawClient.connect(proxy[through]));
    client.send(
      `GET ${through === "forward" ? target() : ""}${path} HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`,
    );
    await eventually(() => answerNow !== undefined);
    client.send("NOT A REQUEST\r\n\r\n");
    // The bad bytes are with the proxy once it has answered somebody else after them.
    await get(proxy.forward, `${target()}/alive`);
    answerNow?.();
    const all = (await client.reader.toEnd()).toString();
    expect(all === "" || all.startsWith("HTTP/1.1 200 "), all.slice(0, 200)).toBe(true);
  });
});

describe("request lines", () => {
  test.each([
    ["another version", () => `GET ${target()}/ HTTP/3.0\r\nHost: ${authority()}\r\n\r\n`],
    ["HTTP/0.9", () => "GET /\r\n\r\n"],
    [
      "a method that is no token",
      () => `G@T ${target()}/ HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`,
    ],
    ["an empty method", () => ` ${target()}/ HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`],
    ["TLS to a plain port", () => "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"],
    ["bytes of noise", () => "\x00\xff\xfe\x01\x02\r\n\r\n"],
  ])("%s is refused", async (_name, make) => {
    await expectRefused(make(), [400, 405, 501, 505]);
  });

  test("no version is refused", async () => {
    await expectRefused(`GET ${target()}/\r\n\r\n`, [400, 505]);
  });

  test("a head in single bytes is read as any other", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    await client.dribble(`GET ${target()}/dribble HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`);
    expect((await client.response()).status).toBe(200);
  });
});

describe("limits", () => {
  test("a head that is too large is 431", async () => {
    const answer: RawResponse = await request(proxy.forward, {
      target: `${target()}/large-head`,
      headers: { "X-Large": "x".repeat(70_000) },
    });
    expect(answer.status).toBe(431);
    expect(answer.json()).toMatchObject({ error: "request.headers-too-large" });
  });

  test("too many fields are 431", async () => {
    const fields = Array.from({ length: 60 }, (_x, count) => [`X-${count}`, "1"] as const);
    const answer = await request(proxy.forward, {
      target: `${target()}/many-fields`,
      headers: [["Host", authority()], ...fields],
    });
    expect(answer.status).toBe(431);
    expect(origin.requestsFor("/many-fields")).toEqual([]);
  });

  test("a target that is too large is 414 or 431", async () => {
    await expectRefused(
      `GET ${target()}/${"a".repeat(70_000)} HTTP/1.1\r\nHost: ${authority()}\r\n\r\n`,
      [414, 431],
    );
  });

  test("H1-10: a head that does not end is closed at its limit, others are served meanwhile", async () => {
    const slow = await own(RawClient.connect(proxy.forward));
    slow.send(`GET ${target()}/slow HTTP/1.1\r\nHost: `);
    expect((await get(proxy.forward, `${target()}/alive`)).status).toBe(200);
    const answer = await slow.response().catch(() => undefined);
    if (answer !== undefined) expect(answer.status).toBe(408);
    await slow.untilClosed(4000);
  });

  test("H1-10: a body that stops is closed at its limit", async () => {
    const slow = await own(RawClient.connect(proxy.forward));
    slow.send(
      `POST ${target()}/slow-body HTTP/1.1\r\nHost: ${authority()}\r\nContent-Length: 100\r\n\r\nsome`,
    );
    const answer = await slow.response().catch(() => undefined);
    if (answer !== undefined) expect(answer.status).toBe(408);
    await slow.untilClosed(4000);
    expect(origin.requestsFor("/slow-body")).toEqual([]);
  });

  test("a connection over the limit is refused, and a closed one makes room", async () => {
    const small = await own(ProxyProcess.start(settings({ limits: { max_connections: 3 } })));
    const held: RawClient[] = [];
    for (let count = 0; count < 3; count += 1) {
      const client = await own(RawClient.connect(small.forward));
      expect((await client.ask({ target: `${target()}/held` })).status).toBe(200);
      held.push(client);
    }
    const over = await get(small.forward, `${target()}/over`).then(
      ({ status }) => status,
      () => 0,
    );
    expect([0, 503]).toContain(over);
    held[0]?.close();
    await eventually(async () =>
      get(small.forward, `${target()}/room`).then(
        ({ status }) => status === 200,
        () => false,
      ),
    );
  });
});

describe("credentials of the proxy hop", () => {
  test("H1-13: Proxy-Authorization never reaches the origin, nor the log", async () => {
    const secret = "cHJveHk6c2VjcmV0";
    await get(proxy.forward, `${target()}/proxy-auth`, {
      "Proxy-Authorization": `Basic ${secret}`,
    });
    expect(origin.requestFor("/proxy-auth").header("proxy-authorization")).toBeUndefined();
    const { client } = await openTunnel(proxy.forward, authority(), {
      "Proxy-Authorization": `Basic ${secret}`,
    });
    client.close();
    expect(proxy.stderr).not.toContain(secret);
  });
});

describe("after all that", () => {
  test("the process is the one that was started, and reported no fault", async () => {
    expect((await proxy.health("/healthz")).status).toBe(200);
    const faults = proxy.logs.filter(
      (line) => line["level"] === "error" || line["level"] === "fatal",
    );
    expect(faults).toEqual([]);
    expect(proxy.stderr).not.toMatch(/unhandled|uncaught/i);
  });
});
