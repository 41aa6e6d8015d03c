/** An upgrade is an exchange like every other: its answer is judged, its path is the judged one, its limits hold. */
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Address, RawClient } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let open: ProxyProcess;
let refusing: ProxyProcess;
let changing: ProxyProcess;

async function start(plugins: object[]): Promise<ProxyProcess> {
  const chains = merge(inbound(...plugins), outbound(...plugins));
  const over = {
    listener: { reverse_proxy_backend: `${origin.url}/base` },
    limits: { response_timeout: "1s" },
  };
  return own(ProxyProcess.start(settings(merge(over, chains))));
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  open = await start([{ name: "recorder", config: { file: "records" } }]);
  refusing = await start([{ name: "denier", config: { phase: "response" } }]);
  changing = await start([
    { name: "path-mutator", config: { path: "/judged" } },
    { name: "answer-header", config: { set: { "X-Answer": "seen" } } },
  ]);
});

beforeEach(() => {
  origin.answerHead = undefined;
});

const switching = (protocol: string): string =>
  `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: ${protocol}\r\n\r\n`;

let counter = 0;

const surfaces = [
  ["forward", (proxy: ProxyProcess): Address => proxy.forward, ""],
  ["reverse", (proxy: ProxyProcess): Address => proxy.reverse, "/base"],
] as const;
const cases = surfaces.flatMap(([name, address, base]) =>
  ["websocket", "custom/1"].map((protocol) => ({ name, address, base, protocol })),
);

describe.each(cases)("an upgrade to $protocol, $name", ({ name, address, base, protocol }) => {
  const ask = async (
    proxy: ProxyProcess,
    answer: string | undefined,
  ): Promise<{ client: RawClient; path: string; seen: string }> => {
    const path = `/upgrade-${(counter += 1)}`;
    const arrived = new Promise<string>((resolve) => {
      origin.answerHead = (head, connection) => {
        resolve(head.startLine);
        if (answer !== undefined) void connection.send(answer);
        return true;
      };
    });
    const client = await own(RawClient.connect(address(proxy)));
    const target = name === "forward" ? `${origin.url}${path}` : path;
    client.send(
      `GET ${target} HTTP/1.1\r\nHost: ${origin.authority}\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`,
    );
    return { client, path, seen: await arrived };
  };
  const lineOf = (proxy: ProxyProcess, path: string): Promise<object> =>
    proxy.log((line) => line["msg"] === "flow" && line["path"] === path);

  test.each([
    ["an ordinary answer", () => reply(200, "secret")],
    ["the new protocol", () => switching(protocol)],
  ])("%s that the response phase refuses does not arrive", async (_what, answer) => {
    const { client, path } = await ask(refusing, answer());
    const got = await client.response();
    expect(got.status).toBe(403);
    expect(got.text).not.toContain("secret");
    expect(await lineOf(refusing, path)).toMatchObject({ status: 403, code: "policy.forbidden" });
  });

  test("a refusal of the origin is its status, without the fields of that hop", async () => {
    const answer = reply(403, "not you", { "Keep-Alive": "timeout=5", Connection: "keep-alive" });
    const { client, path } = await ask(open, answer);
    const got = await client.response();
    expect(got.status).toBe(403);
    expect(got.text).toBe("not you");
    expect(got.header("keep-alive")).toBeUndefined();
    expect(got.header("via")).toMatch(/^1\.1 authbridge/);
    expect(await lineOf(open, path)).toMatchObject({ status: 403 });
    const records = await open.records("records");
    const statuses = records.filter((one) => one["path"] === path).map((one) => one["status"]);
    expect(statuses.at(-1)).toBe(403);
  });

  test("the new protocol is told without the fields of that hop", async () => {
    const { client } = await ask(open, switching(protocol));
    const { head } = await client.head();
    expect(head.startLine).toMatch(/ 101 /);
    expect(head.header("x-hop")).toBeUndefined();
    expect(head.header("upgrade")).toBe(protocol);
    expect(head.header("via")).toMatch(/^1\.1 authbridge/);
  });

  test("the judged path is the sent path, and what a plugin sets in the answer arrives", async () => {
    const { client, seen } = await ask(changing, switching(protocol));
    expect(seen).toBe(`GET ${base}/judged HTTP/1.1`);
    expect((await client.head()).head.header("x-answer")).toBe("seen");
  });

  test("an origin that says nothing is 504 after limits.response_timeout", async () => {
    const { client, path } = await ask(open, undefined);
    expect((await client.response()).status).toBe(504);
    expect(await lineOf(open, path)).toMatchObject({ status: 504 });
  });

  test("an answer in a coding that is not known is 502", async () => {
    const { client } = await ask(
      open,
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    );
    expect((await client.response()).status).toBe(502);
  });

  test("bytes of a field are what they were", async () => {
    const { client } = await ask(open, reply(200, "ok", { "X-Latin": "caf\u00e9" }));
    expect((await client.response()).header("x-latin")).toBe("caf\u00e9");
  });
});
