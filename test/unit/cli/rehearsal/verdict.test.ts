/** What is said of a connection, beyond what its pipeline says. */
import { expect, test } from "vitest";
import { explanationText } from "../../../../src/cli/rehearsal/report.ts";
import { readProbe } from "../../../../src/cli/rehearsal/probe.ts";
import { judgeProbe, type ProbeVerdict } from "../../../../src/cli/rehearsal/verdict.ts";
import { allow, type BodyAccess, type Plugin, skip } from "../../../../src/pipeline/plugin.ts";
import type { ProbeSource } from "../../../../src/cli/rehearsal/probe.ts";
import { pipelineOf } from "../../../support/pipeline-of.ts";

const both = ["connect", "request"] as const;

async function judged(
  plugin: Plugin,
  source: ProbeSource,
  body: BodyAccess = {},
): Promise<ProbeVerdict> {
  const probe = readProbe(source);
  if (typeof probe === "string") throw new Error(probe);
  return judgeProbe(probe, {
    pipeline: pipelineOf([{ plugin, stages: both, body }]),
    skipHosts: { matches: (host) => host === "skipped.test" },
    bridge: { decide: () => ({ action: "bridge" }) },
    maxBodyBytes: 100,
  });
}

const connect = "svc.test:443";

test("a connection of which nobody decides is refused where its TLS must stay closed", async () => {
  const keeping: Plugin = {
    onRequest: ({ tunnelTerms }) => {
      tunnelTerms.keepTls = true;
      return skip("closed");
    },
  };
  expect(await judged(keeping, { connect })).toMatchObject({
    verdict: "deny",
    code: "policy.forbidden",
    status: 403,
    tunnel: "passthrough",
  });
});

test("a connection of which nobody decides is open to requests that are judged", async () => {
  const asking: Plugin = {
    onRequest: ({ stage, path }) =>
      stage === "request" && path === "/open" ? allow("open") : skip("closed"),
  };
  expect(await judged(asking, { connect })).toMatchObject({
    verdict: "allow",
    reason: "each request in the connection is judged",
  });
  expect(await judged(asking, { connect, path: "/open" })).toMatchObject({ verdict: "allow" });
  expect(await judged(asking, { connect, path: "/shut" })).toMatchObject({ verdict: "deny" });
});

test("a rule about requests refuses a connection that stays closed", async () => {
  const inspecting: Plugin = {
    onRequest: ({ tunnelTerms }) => {
      tunnelTerms.keepTls = true;
      tunnelTerms.mustInspect = "a rule";
      return allow("host");
    },
  };
  const { verdict, reason } = await judged(inspecting, { connect });
  expect({ verdict, reason }).toEqual({
    verdict: "deny",
    reason: expect.stringContaining("requests that can be judged (a rule)"),
  });
});

test("a host that skips the pipeline is allowed without asking it", async () => {
  const refusing: Plugin = {
    onRequest: () => {
      throw new Error("asked");
    },
  };
  const said = await judged(refusing, { connect: "skipped.test:443" });
  expect(said).toMatchObject({ verdict: "allow", stages: [] });
});

test("the request is what the proxy would hand to the pipeline", async () => {
  const seen: Record<string, unknown>[] = [];
  const reading: Plugin = {
    onRequest: ({ headers, body, hasBody }) => {
      seen.push({ ...headers.toRecord(), body: body?.toString(), hasBody });
      return allow("read");
    },
  };
  await judged(reading, {
    url: "http://svc.test:8080/",
    body: "{}",
    headers: [
      ["connection", "close, x-hop"],
      ["X-Hop", "1"],
      ["accept", "a"],
      ["Accept", "b"],
      ["host", "svc.test:8080"],
    ],
  });
  expect(seen).toEqual([
    {
      accept: ["a", "b"],
      "content-type": "application/json",
      host: "svc.test:8080",
      body: undefined,
      hasBody: true,
    },
  ]);
});

test.each<[what: string, source: ProbeSource]>([
  ["a Host field of somebody else", { url: "http://svc.test/", headers: [["host", "other.test"]] }],
  ["a Host field with another port", { connect, headers: [["Host", "svc.test:1"]] }],
  ["a field that cannot be sent", { url: "http://svc.test/", headers: [["X", "a\nb"]] }],
])("%s is a mistake in the question", (_what, source) => {
  expect(readProbe(source)).toBeTypeOf("string");
});

test.each<[what: string, source: ProbeSource, upgrade: string | undefined]>([
  [
    "an upgrade",
    {
      url: "http://svc.test/",
      headers: [
        ["connection", "keep-alive, Upgrade"],
        ["upgrade", "websocket"],
      ],
    },
    "websocket",
  ],
  ["no upgrade", { url: "http://svc.test/", headers: [["Upgrade", "websocket"]] }, undefined],
  [
    "a protocol that nobody carries",
    {
      url: "http://svc.test/",
      headers: [
        ["Connection", "upgrade"],
        ["Upgrade", "h2c"],
      ],
    },
    undefined,
  ],
])("%s is judged as the proxy would", async (_what, source, upgrade) => {
  const seen: unknown[] = [];
  const reading: Plugin = {
    onRequest: (context) => {
      seen.push([context.upgrade, context.headers.has("upgrade")]);
      return allow("read");
    },
  };
  await judged(reading, source);
  expect(seen).toEqual([[upgrade, false]]);
});

test.each<[what: string, source: ProbeSource, refusal: object]>([
  [
    "a method that repeats credentials",
    { url: "http://svc.test/", method: "TRACE" },
    { code: "request.method-not-allowed", status: 405 },
  ],
  [
    "a body that is too large for a guard",
    { url: "http://svc.test/", method: "POST", body: "x".repeat(101) },
    { code: "request.body-too-large", status: 413 },
  ],
])("%s is refused by the proxy itself", async (_what, source, refusal) => {
  const said = await judged({ onRequest: () => allow("x") }, source, { request: "read" });
  expect(said).toMatchObject({ verdict: "deny", ...refusal });
  expect(said).not.toHaveProperty("plugin");
  expect(explanationText({ ...said, addresses: [] })).toContain("refused by the proxy: ");
});
