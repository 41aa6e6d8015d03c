/** Final responses that come while the body of the request is still being sent (RFC 9110 section 10.1.1). */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AttackedProxy, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

const size = 2_000_000;
const refusal =
  "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull";

describe("an origin that answers early and closes", () => {
  let origin: RawOrigin;
  let proxy: AttackedProxy;

  beforeEach(async () => {
    origin = await RawOrigin.listen((socket, head) => {
      if (!head.startsWith("POST ")) {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        return;
      }
      // What is unread when it closes makes its kernel reset the connection.
      socket.pause();
      socket.write(refusal, () => socket.destroy());
    });
    proxy = await AttackedProxy.start({
      listener: {
        roles: ["forward", "reverse"],
        reverse_proxy_addr: "127.0.0.1:0",
        reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
      },
    });
  });

  afterEach(async () => {
    expect(proxy.faults).toEqual([]);
    await proxy.close();
    origin.close();
  });

  test.each(["forward", "reverse"] as const)(
    "on the %s port: its response arrives",
    async (port) => {
      const host = `127.0.0.1:${origin.port}`;
      for (let count = 0; count < 10; count += 1) {
        const client = await RawClient.connect(proxy[port]);
        const target = port === "forward" ? `http://${host}/upload` : "/upload";
        client.send(`POST ${target} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${size}\r\n\r\n`);
        client.send("x".repeat(size));
        expect(await client.sees("full")).toMatch(/^HTTP\/1\.1 413 [^]*\r\n\r\nfull$/);
        // What is left of the body belongs to nobody, and the connection goes on behind it.
        client.send(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
        expect(await client.sees("ok")).toMatch(/fullHTTP\/1\.1 200 [^]*\r\n\r\nok$/);
        expect(client.failure).toBe(undefined);
        client.socket.destroy();
      }
      const lines = await eventually(() => {
        const flows = proxy.logs.filter(({ msg }) => msg === "flow");
        return flows.length === 20 && flows;
      });
      expect(new Set(lines.map(({ status }) => status))).toEqual(new Set([413, 200]));
    },
  );
});

describe("a refusal of an upload that nobody reads", () => {
  test("arrives whole, and the connection ends", async () => {
    const proxy = await AttackedProxy.start({ pipeline: { outbound: { default: "deny" } } });
    for (let count = 0; count < 20; count += 1) {
      const client = await RawClient.connect(proxy.forward);
      const head = "POST http://127.0.0.1:9/upload HTTP/1.1\r\nHost: 127.0.0.1:9\r\n";
      client.send(`${head}Content-Length: ${size}\r\n\r\n${"x".repeat(size)}`);
      expect(await client.ended()).toMatch(/^HTTP\/1\.1 403 [^]*\}$/);
      expect(client.failure).toBe(undefined);
      client.socket.destroy();
    }
    await proxy.close();
  });
});
