/** The stable HTTP semantic conventions of OpenTelemetry: what spans, metrics and the resource must say. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { type CollectedMetric, type CollectedSpan, OtlpCollector } from "../support/otlp.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const [server, client] = [2, 3];
const isError = 2;
let collector: OtlpCollector;
let origin: HttpOrigin;
let proxy: ProxyProcess;
let instance: string;

/** What is there for every request, by the kind of its span, and the type that each has. */
const required = {
  server: {
    "http.request.method": "string",
    "url.scheme": "string",
    "url.path": "string",
    "server.address": "string",
    "server.port": "number",
    "client.address": "string",
    "http.response.status_code": "number",
    "network.protocol.version": "string",
  },
  client: {
    "http.request.method": "string",
    "server.address": "string",
    "server.port": "number",
    "url.full": "string",
    "http.response.status_code": "number",
  },
} as const;
const requiredOfMetrics = {
  "http.server.request.duration": {
    "http.request.method": "string",
    "url.scheme": "string",
    "http.response.status_code": "number",
  },
  "http.client.request.duration": {
    "http.request.method": "string",
    "server.address": "string",
    "server.port": "number",
    "http.response.status_code": "number",
  },
} as const;

const typesOf = (attributes: CollectedSpan["attributes"], names: object): Record<string, string> =>
  Object.fromEntries(Object.keys(names).map((name) => [name, typeof attributes[name]]));

beforeAll(async () => {
  collector = await own(OtlpCollector.start());
  origin = await own(HttpOrigin.launch());
  origin.answer = ({ head }) => {
    const status = Number(/\/status-(\d+)/.exec(head.startLine)?.[1] ?? 200);
    return reply(status, "answer");
  };
  proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { reverse_proxy_backend: `${origin.url}/base` },
          egress: { hosts: { "svc.test": ["127.0.0.1"], "closed.test": ["127.0.0.1"] } },
          telemetry: {
            otlp: { endpoint: collector.url, service_name: "my-proxy", metrics_interval: "200ms" },
          },
        }),
        outbound({ name: "egress-policy", config: { allow: ["svc.test", "closed.test"] } }),
      ),
    ),
  );
});

let counter = 0;

interface Told {
  readonly status: number;
  readonly server: CollectedSpan;
  readonly client: CollectedSpan | undefined;
}

/** Sends a request in a trace of its own and gives its spans. */
async function told(
  ask: (headers: Record<string, string>) => Promise<{ status: number }>,
): Promise<Told> {
  const traceId = (counter += 1).toString(16).padStart(32, "0");
  const { status } = await ask({
    traceparent: `00-${traceId}-${"7".repeat(16)}-01`,
    "User-Agent": "agent/1.0",
  });
  const spans = await eventually(() => {
    const all = collector.spans.filter((span) => span.traceId === traceId);
    return all.some(({ kind }) => kind === server) ? all : false;
  });
  const [own] = spans.filter(({ kind }) => kind === server);
  if (own === undefined) throw new Error("no server span");
  return { status, server: own, client: spans.find(({ kind }) => kind === client) };
}

const through = (path: string, name = "svc.test"): Promise<Told> =>
  told((headers) => get(proxy.forward, `http://${name}:${origin.port}${path}`, headers));

describe("spans", () => {
  test("of a request that went on have what the conventions require", async () => {
    const { server: served, client: asked } = await through("/data?token=hush&x=1");
    expect(typesOf(served.attributes, required.server)).toEqual(required.server);
    expect(typesOf(asked?.attributes ?? {}, required.client)).toEqual(required.client);
    expect(served.attributes).toMatchObject({
      "http.request.method": "GET",
      "url.scheme": "http",
      "url.path": "/data",
      "server.address": "svc.test",
      "server.port": origin.port,
      "network.protocol.version": "1.1",
      "user_agent.original": "agent/1.0",
    });
    expect(asked?.attributes).toMatchObject({
      "url.full": `http://svc.test:${origin.port}/data`,
      "http.response.status_code": 200,
    });
    for (const span of [served, asked]) {
      expect(span?.status).not.toBe(isError);
      expect(span?.attributes).not.toHaveProperty("error.type");
      expect(JSON.stringify(span?.attributes)).not.toContain("hush");
    }
  });

  test("inbound name the server that the client named, and the backend with its path", async () => {
    const { server: served, client: asked } = await told((headers) =>
      get(proxy.reverse, "/in", { ...headers, Host: "agent.example:8443" }),
    );
    expect(served.attributes).toMatchObject({
      "server.address": "agent.example",
      "server.port": 8443,
      "url.scheme": "http",
      "url.path": "/in",
    });
    expect(asked?.attributes).toMatchObject({
      "server.address": "127.0.0.1",
      "server.port": origin.port,
      "url.full": `${origin.url}/base/in`,
    });
  });

  test.each([
    [404, { server: false, client: true }],
    [503, { server: true, client: true }],
  ])("of an answer of %i are errors for the server %j", async (status, isFailed) => {
    const { server: served, client: asked } = await through(`/status-${status}`);
    for (const [kind, span] of Object.entries({ server: served, client: asked })) {
      const failed = isFailed[kind as "server" | "client"];
      expect(span?.status === isError, kind).toBe(failed);
      expect(span?.attributes["error.type"], kind).toBe(failed ? String(status) : undefined);
      expect(span?.attributes["http.response.status_code"], kind).toBe(status);
    }
  });

  test("of a refusal are no error of the server, and say who refused", async () => {
    const refused = await through("/", "refused.test");
    expect(refused).toMatchObject({ status: 403, client: undefined });
    expect(refused.server.status).not.toBe(isError);
    expect(refused.server.attributes).toMatchObject({
      "error.type": "policy.forbidden",
      "authbridge.plugin": "egress-policy",
    });
  });

  test("of an origin that is away are errors of both", async () => {
    const { server: served, client: asked } = await told((headers) =>
      get(proxy.forward, "http://closed.test:1/", headers),
    );
    for (const span of [served, asked]) {
      expect(span?.status).toBe(isError);
      expect(span?.attributes["error.type"]).toMatch(/^upstream\./);
    }
    expect(asked?.attributes).not.toHaveProperty("http.response.status_code");
  });

  test("have no method that a stranger made up", async () => {
    const { server: served } = await told((headers) =>
      request(proxy.forward, {
        method: "PROPFIND",
        target: `http://svc.test:${origin.port}/pot`,
        headers: { ...headers, Host: `svc.test:${origin.port}` },
      }),
    );
    expect(served).toMatchObject({
      name: "HTTP outbound",
      attributes: { "http.request.method": "_OTHER", "http.request.method_original": "PROPFIND" },
    });
  });
});

test("the resource names service, version, instance and SDK, in every report the same", async () => {
  await eventually(() => collector.resources.length > 2);
  for (const resource of collector.resources) {
    expect(resource).toMatchObject({
      "service.name": "my-proxy",
      "service.version": expect.stringMatching(/^\d+\./),
      "service.instance.id": expect.stringMatching(/^[0-9a-f-]{36}$/),
      "telemetry.sdk.language": "nodejs",
    });
    instance = String(resource["service.instance.id"]);
  }
  expect(new Set(collector.resources.map((one) => one["service.instance.id"])).size).toBe(1);
  expect(instance).not.toBe("");
});

describe("metrics", () => {
  const collected = (name: string): Promise<CollectedMetric> =>
    eventually(() => collector.metrics.get(name) ?? false);

  test.each(Object.entries(requiredOfMetrics))(
    "%s is in seconds, with its attributes",
    async (name, names) => {
      await through("/status-200");
      await through("/status-503");
      await eventually(
        () =>
          collector.metrics
            .get(name)
            ?.points.some((point) => point["http.response.status_code"] === 503) === true,
      );
      const { unit, kind, points } = await collected(name);
      expect({ unit, kind }).toEqual({ unit: "s", kind: "histogram" });
      const whole = points.filter((point) => point["http.response.status_code"] !== undefined);
      for (const point of whole) expect(typesOf(point, names)).toEqual(names);
      const failed = points.find((point) => point["http.response.status_code"] === 503);
      expect(failed?.["error.type"]).toBe("503");
      const good = points.find((point) => point["http.response.status_code"] === 200);
      expect(good).not.toHaveProperty(["error.type"]);
    },
  );

  test("have the names of /metrics when they come to Prometheus by way of OTLP", async () => {
    await collected("authbridge_ready");
    const { text } = await proxy.stats("/metrics");
    const scraped = new Set([...text.matchAll(/^# TYPE (\S+) /gm)].map(([, name]) => name));
    const pushed = [...collector.metrics].filter(([name]) => !name.startsWith("http."));
    expect(pushed.length).toBeGreaterThan(30);
    for (const [name, metric] of pushed) expect(scraped).toContain(prometheusName(name, metric));
  });

  test("no host is a label of /metrics", async () => {
    const { text } = await proxy.stats("/metrics");
    expect(text).not.toMatch(/svc\.test|http_client_request_duration/);
  });
});

/** How exporters and receivers for Prometheus name a metric of OTLP (OpenTelemetry: Prometheus compatibility). */
function prometheusName(name: string, { unit, kind }: CollectedMetric): string {
  const words = name.split("_").filter((word) => word !== "total");
  const unitWord = { s: "seconds", By: "bytes", "1": kind === "gauge" ? "ratio" : "", "": "" }[
    unit
  ];
  if (unitWord === undefined) throw new Error(`unit ${unit} of ${name}`);
  if (unitWord !== "" && !words.includes(unitWord)) words.push(unitWord);
  if (kind === "sum") words.push("total");
  return words.join("_");
}
