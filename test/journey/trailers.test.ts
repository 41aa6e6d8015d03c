/** Trailers of HTTP/2 origins, whose responses may have a Content-Length as well (RFC 9113 section 8.1). */
import { type ClientHttp2Session, constants, type IncomingHttpHeaders } from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { within } from "../support/eventually.ts";

const allowed = "api.allowed.test";
const text = "twelve bytes";

let authority: TestAuthority;
let origin: TlsOrigin;
let at: string;

beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed]), "h2");
  at = origin.at(allowed);
  for (const path of ["/length", "/read/length", "/frames/length", "/no-length"]) {
    origin.on(path, (_request, response) => {
      if (path !== "/no-length") response.setHeader("content-length", text.length);
      if (path.startsWith("/frames")) response.setHeader("content-type", "text/event-stream");
      response.write(text);
      response.addTrailers({ "x-sum": "42" });
      response.end();
    });
  }
  origin.on("/plain", (_request, response) => {
    response.setHeader("content-length", text.length);
    response.end(text);
  });
});

afterAll(async () => {
  await origin.close();
});

describe.each([
  ["passed on as it comes", []],
  ["read by the chain first", [{ name: "bridge-frames", config: { file: "frames.jsonl" } }]],
])("a response that is %s", (_what, plugins) => {
  let proxy: BridgeProxy;
  let session: ClientHttp2Session;

  beforeAll(async () => {
    proxy = await BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      bridge: { upstream_http2: "on" },
      plugins,
      otherwise: "allow",
    });
    session = await proxy.http2(at);
  });

  afterAll(async () => {
    session.destroy();
    await proxy.close();
  });

  test.each(["/length", "/frames/length", "/no-length"])(
    "%s: has its trailers for a client on HTTP/2",
    async (path) => {
      const stream = session.request({ ":path": path });
      let body = "";
      let trailers: IncomingHttpHeaders = {};
      stream.on("trailers", (tail: IncomingHttpHeaders) => (trailers = tail));
      stream.on("data", (chunk: Buffer) => (body += chunk.toString()));
      await within("the end", new Promise((resolve) => stream.once("close", resolve)));
      expect(body).toBe(text);
      expect(Object.entries(trailers)).toEqual([["x-sum", "42"]]);
    },
  );

  test.each(["/length", "/frames/length", "/no-length"])(
    "%s: has its trailers for a client on HTTP/1.1 that says TE: trailers",
    async (path) => {
      const wire = await proxy.http1(at);
      for (let count = 0; count < 2; count += 1) {
        const fields = "TE: trailers\r\nConnection: TE";
        const answer = await wire.exchange(
          `GET ${path} HTTP/1.1\r\nHost: ${at}\r\n${fields}\r\n\r\n`,
        );
        expect(answer.text).toBe(text);
        expect(answer.trailers.map(([name, value]) => [name.toLowerCase(), value])).toEqual([
          ["x-sum", "42"],
        ]);
        expect(answer.header("content-length")).toBe(undefined);
      }
      wire.close();
    },
  );

  test("has its length, and the connection goes on, where nobody asked for trailers", async () => {
    const wire = await proxy.http1(at);
    for (const path of ["/length", "/plain", "/length"]) {
      const answer = await wire.exchange(`GET ${path} HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
      expect(answer.text).toBe(text);
      if (path === "/plain" || plugins.length === 0)
        expect(answer.header("content-length")).toBe(String(text.length));
    }
    const head = `HEAD /plain HTTP/1.1\r\nHost: ${at}\r\nTE: trailers\r\nConnection: TE\r\n\r\n`;
    const answer = await wire.exchange(head);
    expect(answer.header("content-length")).toBe(String(text.length));
    wire.close();
  });

  test.runIf(plugins.length === 0).each([
    ["whole", constants.NGHTTP2_CANCEL, "ok"],
    ["whole", constants.NGHTTP2_NO_ERROR, "ok"],
    ["half", constants.NGHTTP2_CANCEL, "cancelled"],
    ["unknown", constants.NGHTTP2_CANCEL, "cancelled"],
  ])("that is %s when its client resets the stream with %i is %s", async (what, code, outcome) => {
    const path = `/reset-${what}-${code}`;
    const gone = Promise.withResolvers<void>();
    origin.on(path, (_request, response) => {
      if (what !== "unknown")
        response.setHeader("content-length", text.length * (what === "half" ? 2 : 1));
      // The end does not come: it would be in one segment with the last byte.
      response.write(text);
      response.on("close", () => gone.resolve());
    });
    const stream = session.request({ ":path": path });
    stream.on("error", () => undefined);
    let body = "";
    stream.on("data", (chunk: Buffer) => {
      body += chunk.toString();
      if (body === text) stream.close(code);
    });
    const line = await proxy.log((log) => log["msg"] === "flow" && log["path"] === path);
    expect(line["outcome"]).toBe(outcome);
    await within("the origin's stream is let go", gone.promise);
  });

  test("has no trailers for a client on HTTP/1.0, and its whole body", async () => {
    const wire = await proxy.http1(at);
    const answer = await wire.exchange(
      `GET /length HTTP/1.0\r\nHost: ${at}\r\nTE: trailers\r\n\r\n`,
    );
    expect(answer.text).toBe(text);
    expect(answer.trailers).toEqual([]);
    wire.close();
  });
});
