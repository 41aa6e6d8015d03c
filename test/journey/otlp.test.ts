/** Traces and metrics over OTLP: one trace from the request to the agent to what the agent asks for. */
import { beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { get, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { type CollectedSpan, OtlpCollector } from "../support/otlp.ts";
import { owner } from "../support/owner.ts";
import { type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const server = 2;
const client = 3;
let collector: OtlpCollector;
let idp: StubIdp;
let target: HttpOrigin;
let agent: HttpOrigin;
let proxy: ProxyProcess;

const telemetry = (over: Settings = {}): Settings => ({
  telemetry: {
    otlp: {
      endpoint: collector.url,
      headers: { Authorization: "Bearer collector-secret" },
      resource_attributes: { "k8s.pod.name": "pod-1" },
      metrics_interval: "200ms",
      ...over,
    },
  },
});

const hosts = { "target.test": ["127.0.0.1"], "refused.test": ["127.0.0.1"] };

beforeAll(async () => {
  collector = await own(OtlpCollector.start());
  idp = await own(StubIdp.start());
  target = await own(HttpOrigin.launch());
  // The agent asks for something else while it answers, and passes the trace on.
  agent = await own(
    HttpOrigin.launch(async ({ head }) => {
      const authority = `target.test:${target.port}`;
      const answer = await get(proxy.forward, `http://${authority}/data?secret=in-query`, {
        Host: authority,
        Authorization: "Bearer the-users-token",
        traceparent: head.header("traceparent") ?? "",
        tracestate: head.header("tracestate") ?? "",
      });
      return reply(answer.status, "done");
    }),
  );
  proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { reverse_proxy_backend: agent.url },
          egress: { hosts },
          pipeline: {
            outbound: {
              plugins: [
                { name: "egress-policy", config: { allow: ["target.test"] } },
                {
                  name: "token-exchange",
                  config: {
                    token_url: idp.tokenUrl,
                    identity: { type: "client-secret", client_id: "a", client_secret: "b" },
                    routes: { rules: [{ host: "target.test", target_audience: "target" }] },
                  },
                },
              ],
            },
          },
        }),
        telemetry(),
      ),
    ),
  );
});

/** The spans of a trace, once there are some of these names. Threads send each for itself. */
function traceOf(traceId: string, ...names: readonly string[]): Promise<CollectedSpan[]> {
  return eventually(() => {
    const spans = collector.spans.filter((span) => span.traceId === traceId);
    return names.every((name) => spans.some((span) => span.name === name)) && spans;
  });
}

function named(spans: readonly CollectedSpan[], name: string): CollectedSpan {
  const found = spans.find((span) => span.name === name);
  if (found === undefined)
    throw new Error(`no ${name} among ${spans.map((one) => one.name).join(", ")}`);
  return found;
}

describe("a trace", () => {
  test("links the user's request, the agent's and the exchange", async () => {
    const traceId = "0af7651916cd43dd8448eb211c80319c";
    const caller = "b7ad6b7169203331";
    await get(proxy.reverse, "/ask", {
      Host: "agent",
      traceparent: `00-${traceId}-${caller}-01`,
      tracestate: "vendor=1",
    });
    const spans = await traceOf(traceId, "GET inbound", "GET outbound");
    const inbound = named(spans, "GET inbound");
    expect(inbound).toMatchObject({
      kind: server,
      parentSpanId: caller,
      attributes: { "http.response.status_code": 200, "url.path": "/ask" },
    });
    const outbound = named(spans, "GET outbound");
    const onward = spans.filter((span) => span.name === "upstream");
    const toAgent = onward.find((span) => span.parentSpanId === inbound.spanId);
    const toTarget = onward.find((span) => span.parentSpanId === outbound.spanId);
    expect(toAgent?.kind).toBe(client);
    // The agent passed the field on as it was: what it asked for follows from what it was asked.
    expect(outbound.parentSpanId).toBe(toAgent?.spanId);
    expect(outbound.attributes).toMatchObject({
      "server.address": "target.test",
      "url.path": "/data",
      "authbridge.decision": "allowed",
    });
    expect(target.requestFor("/data").head.header("traceparent")).toBe(
      `00-${traceId}-${toTarget?.spanId}-01`,
    );
    expect(target.requestFor("/data").head.header("tracestate")).toBe("vendor=1");
    for (const part of ["decision egress-policy", "credential token-exchange", "pipeline"]) {
      expect(
        spans.some((span) => span.name === part && span.parentSpanId === outbound.spanId),
        part,
      ).toBe(true);
    }
    for (const part of ["connect", "first_byte"]) {
      expect(
        spans.some((span) => span.name === part && span.parentSpanId === toTarget?.spanId),
        part,
      ).toBe(true);
    }
    for (const span of spans) expect(span.endNs).toBeGreaterThanOrEqual(span.startNs);
    expect(collector.resources[0]).toMatchObject({
      "service.name": "authbridge-proxy",
      "k8s.pod.name": "pod-1",
    });
    expect([...collector.authorizations]).toEqual(["Bearer collector-secret"]);
    const told = JSON.stringify(spans.map(({ name, attributes }) => ({ name, attributes })));
    expect(told).not.toMatch(/the-users-token|in-query|exchanged-/);
  });

  test("of a refused request says who refused it, and has nothing that went on", async () => {
    const traceId = "1".repeat(32);
    await get(proxy.forward, `http://refused.test:${target.port}/`, {
      Host: `refused.test:${target.port}`,
      traceparent: `00-${traceId}-${"2".repeat(16)}-01`,
    });
    const spans = await traceOf(traceId, "GET outbound");
    expect(named(spans, "GET outbound")).toMatchObject({
      // A refusal is the client's affair: the conventions want no error on a server span below 500.
      status: 0,
      attributes: {
        "error.type": "policy.forbidden",
        "authbridge.decision": "denied",
        "authbridge.plugin": "egress-policy",
      },
    });
    expect(spans.map((span) => span.name)).not.toContain("upstream");
  });

  test("obeys a sender that does not want to be recorded, and passes its wish on", async () => {
    const traceId = "3".repeat(32);
    const authority = `target.test:${target.port}`;
    await get(proxy.forward, `http://${authority}/quiet`, {
      Host: authority,
      Authorization: "Bearer t",
      traceparent: `00-${traceId}-${"4".repeat(16)}-00`,
    });
    expect(target.requestFor("/quiet").head.header("traceparent")).toMatch(
      new RegExp(`^00-${traceId}-[0-9a-f]{16}-00$`),
    );
    const reports = collector.reports;
    await eventually(() => collector.reports > reports + 2);
    expect(collector.spans.filter((span) => span.traceId === traceId)).toEqual([]);
  });

  test("begins here where the field is missing or broken, without the state of another", async () => {
    const authority = `target.test:${target.port}`;
    await get(proxy.forward, `http://${authority}/fresh`, {
      Host: authority,
      Authorization: "Bearer t",
      traceparent: "00-not-a-trace-01",
      tracestate: "vendor=1",
    });
    const { head } = target.requestFor("/fresh");
    expect(head.header("tracestate")).toBeUndefined();
    const [, traceId = ""] = head.header("traceparent")?.split("-") ?? [];
    expect(traceId).toMatch(/^[0-9a-f]{32}$/);
    expect(named(await traceOf(traceId, "GET outbound"), "GET outbound").parentSpanId).toBe("");
  });
});

describe("the file says what is sent", () => {
  /** A proxy of its own with a collector of its own. */
  async function started(over: Settings): Promise<[ProxyProcess, OtlpCollector]> {
    const its = await own(OtlpCollector.start());
    const file = merge(settings({ egress: { hosts } }), telemetry({ endpoint: its.url, ...over }));
    return [await own(ProxyProcess.start(file)), its];
  }
  const ask = (by: ProxyProcess, path: string, traceparent?: string): Promise<unknown> => {
    const authority = `target.test:${target.port}`;
    const fields = traceparent === undefined ? {} : { traceparent };
    return get(by.forward, `http://${authority}${path}`, { Host: authority, ...fields });
  };

  test("sample_ratio: 0 records no trace that begins here, and says so to the origin", async () => {
    const [by, its] = await started({ sample_ratio: 0 });
    await ask(by, "/begins-here");
    expect(target.requestFor("/begins-here").head.header("traceparent")).toMatch(/-00$/);
    const traceId = "7".repeat(32);
    await ask(by, "/of-another", `00-${traceId}-${"8".repeat(16)}-01`);
    await by.stop();
    expect(its.spans.length).toBeGreaterThan(0);
    expect(new Set(its.spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
  });

  test("traces: false, metrics: false", async () => {
    const [untraced, metered] = await started({ traces: false });
    await ask(untraced, "/untraced");
    expect(target.requestFor("/untraced").head.header("traceparent")).toBeUndefined();
    await untraced.stop();
    expect([metered.spans.length, metered.metrics.size > 0]).toEqual([0, true]);
    const [traced, its] = await started({ metrics: false });
    await ask(traced, "/unmetered");
    await traced.stop();
    expect([its.spans.length > 0, its.metrics.size]).toEqual([true, 0]);
  });

  test("timeout: a collector that says nothing is given up", async () => {
    const silent = await own(TcpOrigin.start(() => new Promise(() => undefined)));
    const endpoint = `http://127.0.0.1:${silent.port}`;
    const [by] = await started({ endpoint, timeout: "200ms" });
    const told = await by.log(({ msg }) => msg === "telemetry.otlp: report not sent");
    expect(told).toMatchObject({ signal: "metrics", endpoint });
  });
});

test("the metrics of /metrics are reported under their names", async () => {
  await eventually(() => collector.metrics.has("authbridge_flows_total"));
  const text = (await proxy.stats("/metrics")).text;
  const names = [...text.matchAll(/^# TYPE (authbridge_\S+) /gm)].map(([, name]) => name);
  expect(names.length).toBeGreaterThan(20);
  expect(names.filter((name) => !collector.metrics.has(name ?? ""))).toEqual([]);
});

test("the handshake with an origin is a span", async () => {
  const authority = await TestAuthority.create();
  const secured = await own(TlsOrigin.start(await authority.server()));
  const directory = await authority.write();
  const other = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { reverse_proxy_backend: `https://127.0.0.1:${secured.port}` },
          tls_bridge: { upstream_ca_bundle: `${directory}/ca.crt` },
        }),
        telemetry(),
      ),
    ),
  );
  const traceId = "5".repeat(32);
  await get(other.reverse, "/", {
    Host: "agent",
    traceparent: `00-${traceId}-${"6".repeat(16)}-01`,
  });
  const spans = await traceOf(traceId, "GET inbound");
  expect(spans.map((span) => span.name)).toEqual(expect.arrayContaining(["connect", "tls"]));
});

test("a collector that is away stops nothing, is told once, and loses little at the end", async () => {
  const away = await own(OtlpCollector.start());
  away.status = 503;
  const other = await own(
    ProxyProcess.start(
      merge(settings({ egress: { hosts } }), telemetry({ endpoint: away.url, metrics: false })),
    ),
  );
  const authority = `target.test:${target.port}`;
  const ask = (): Promise<unknown> =>
    request(other.forward, { target: `http://${authority}/away`, headers: { Host: authority } });
  await ask();
  await eventually(() => away.reports > 0);
  await other.log((line) => String(line["problem"]).includes("answered 503"));
  away.status = 200;
  await ask();
  // What is left is sent on the way out.
  await other.stop();
  expect(away.spans.some((span) => span.name === "GET outbound")).toBe(true);
  expect(other.logs.filter((line) => String(line["problem"]).includes("503"))).toHaveLength(1);
  expect(other.stderr).not.toContain("collector-secret");
});

test("without the block no field is added", async () => {
  const plain = await own(ProxyProcess.start(settings({ egress: { hosts } })));
  const authority = `target.test:${target.port}`;
  await get(plain.forward, `http://${authority}/untouched`, { Host: authority });
  expect(target.requestFor("/untouched").head.header("traceparent")).toBeUndefined();
});
