/** The shared vectors about message heads, at the forward port: each is 400, and the origin hears nothing. */
import { afterAll, beforeAll, expect, test } from "vitest";
import vectors from "../golden/policy/vectors.json" with { type: "json" };
import { exchangeBytes } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

interface HeadCase {
  readonly id: string;
  readonly ask: string;
  readonly facts: { readonly fields?: string; readonly line?: string };
}

const cases = (vectors.cases as unknown as readonly HeadCase[]).filter(({ ask }) => ask === "head");

let origin: HttpOrigin;
let proxy: ProxyProcess;

beforeAll(async () => {
  origin = await HttpOrigin.launch();
  proxy = await ProxyProcess.start(settings());
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
});

test.each(cases)("$id is refused", async ({ facts }) => {
  const { fields, line = "POST /v1/items HTTP/1.1" } = facts;
  const target = line.replace("/v1/items", `${origin.url}/v1/items`);
  const more = fields === undefined ? "" : `${fields}\r\n`;
  const answer = await exchangeBytes(
    proxy.forward,
    `${target}\r\nHost: ${origin.authority}\r\n${more}\r\n`,
    { silenceMs: 5_000 },
  );
  expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  expect(origin.requests).toEqual([]);
});
