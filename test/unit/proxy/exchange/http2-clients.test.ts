/** Clients of HTTP/2 that do not read, or are gone before anybody knows who they are. */
import { once } from "node:events";
import http2 from "node:http2";
import { afterEach, expect, test } from "vitest";
import { createProxy, type EmbeddedProxy, type ProxyOptions } from "../../../../src/embed/proxy.ts";
import { allow, definePlugin } from "../../../../src/pipeline/plugin.ts";
import { within } from "../../../support/eventually.ts";

const open: EmbeddedProxy[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((proxy) => proxy.close({ timeout: 0 })));
});

async function listening(options: ProxyOptions): Promise<[EmbeddedProxy, string]> {
  const proxy = createProxy(options);
  open.push(proxy);
  const { forward } = await proxy.listen();
  return [proxy, `http://${forward?.host}:${forward?.port}`];
}

test("a refusal that is not read holds no connection for ever", async () => {
  const [, url] = await listening({
    limits: { keep_alive_timeout: "200ms", stream_idle_timeout: "200ms" },
    pipeline: { outbound: { plugins: [], default: "deny" } },
  });
  const refused = [
    { ":method": "TRACE", ":path": "/", ":authority": "one.test" },
    { ":method": "CONNECT", ":authority": "one.test" },
    { ":method": "CONNECT", ":authority": "one.test:81" },
  ].map(async (asked) => {
    // No byte of a body may come.
    const client = http2.connect(url, { settings: { initialWindowSize: 0 } });
    client.on("error", () => undefined);
    const stream = client.request(asked).on("error", () => undefined);
    const closed = once(client, "close");
    const [fields] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    await within("the end", closed);
    return fields[":status"];
  });
  expect(await Promise.all(refused)).toEqual([405, 400, 403]);
});

test("a stream that is reset while its caller is looked up is over", async () => {
  const looking = definePlugin({
    name: "looking",
    description: "Judges callers",
    create: () => ({ callerLinks: () => [], onRequest: () => allow("all") }),
  });
  const [proxy, url] = await listening({ pipeline: { outbound: { plugins: [looking] } } });
  const events = proxy.events[Symbol.asyncIterator]();
  const client = http2.connect(url).on("error", () => undefined);
  await once(client, "remoteSettings");
  client
    .request({ ":path": "/", ":authority": "127.0.0.1:9" })
    .on("error", () => undefined)
    .close(http2.constants.NGHTTP2_CANCEL);
  for (;;) {
    const { value } = await within("the event", events.next());
    if (value?.phase === "request") continue;
    expect(value?.statusCode).toBe(499);
    break;
  }
  client.destroy();
});
