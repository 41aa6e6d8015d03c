/** One tunnel from its CONNECT to its record, over real sockets and with everything around it made up. */
import { once } from "node:events";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import { HeaderList } from "../../../../src/http/headers.ts";
import { Backlogs } from "../../../../src/net/backlogs.ts";
import { parseAuthority } from "../../../../src/net/destination.ts";
import { StallWatch } from "../../../../src/net/stall-watch.ts";
import { allow, deny } from "../../../../src/pipeline/decision.ts";
import { makeFlow } from "../../../../src/pipeline/flow.ts";
import { KillSwitch } from "../../../../src/pipeline/kill-switch.ts";
import type { Plugin } from "../../../../src/pipeline/plugin.ts";
import type { BridgeServer } from "../../../../src/proxy/tunnel/bridge-server.ts";
import { type Ending, FlowRecorder } from "../../../../src/proxy/flow/finish.ts";
import type { Runtime } from "../../../../src/proxy/flow/runtime.ts";
import { TunnelRegistry } from "../../../../src/proxy/flow/tunnel-registry.ts";
import { connectReplies } from "../../../../src/proxy/tunnel/request.ts";
import { tunnel } from "../../../../src/proxy/tunnel/tunnel.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { Metrics } from "../../../../src/telemetry/metrics.ts";
import type { ConnectOptions } from "../../../../src/upstream/upstream.ts";
import { clientHello, records } from "../../../support/client-hello.ts";
import { pipelineOf } from "../../../support/pipeline-of.ts";
import { socketPair } from "../../../support/socket-pair.ts";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

const established = "HTTP/1.1 200 Connection Established\r\n\r\n";
const allowing: Plugin = { onRequest: () => allow("x") };
/** Rules under which nothing is allowed. */
const refusing = {
  inbound: pipelineOf([]),
  outbound: pipelineOf([]),
  skipHosts: { matches: () => false },
  callers: undefined,
};

interface Setting {
  readonly plugin?: Plugin;
  readonly maxTunnels?: number;
  readonly idleTimeoutMs?: number;
  readonly head?: string;
  /** The bridge would open the port, and is told not to. */
  readonly passesThrough?: boolean;
  readonly connect?: (options: ConnectOptions, origin: Socket) => Promise<Socket>;
}

async function opened(setting: Setting = {}) {
  const [agent, origin] = [await socketPair(), await socketPair()];
  // As after a CONNECT was read from it.
  agent.server.read(0);
  for (const end of [agent.client, origin.client]) end.allowHalfOpen = true;
  const log = createLogger("silent");
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const stalls = new StallWatch(5);
  cleanups.push(
    () => agent.close(),
    () => origin.close(),
    () => metrics.close(),
    () => stalls.close(),
  );
  const recorder = new FlowRecorder({ log, metrics, sessions: undefined });
  const endings = vi.spyOn(recorder, "finished");
  const kills = new KillSwitch();
  const tunnels = new TunnelRegistry(undefined, kills);
  const over = Promise.withResolvers<void>();
  const done = vi.fn(() => over.resolve());
  const { connect: dial = () => Promise.resolve(origin.server) } = setting;
  const connect = vi.fn(dial);
  const step = { plugin: setting.plugin ?? allowing, stages: ["connect"] } as const;
  const runtime: Partial<Runtime> = {
    outbound: pipelineOf([step]),
    skipHosts: { matches: () => false },
    upstream: {
      connect: (_permit, options) => connect(options, origin.server),
      confirm: () => Promise.resolve(),
      absoluteForm: () => undefined,
    },
    limits: {
      bodyTimeoutMs: 0,
      streamIdleTimeoutMs: 0,
      tunnelIdleTimeoutMs: setting.idleTimeoutMs ?? 0,
      firstBytesTimeoutMs: 0,
      maxBodyBytes: 0,
      maxTunnels: setting.maxTunnels ?? 1,
    },
    ...(setting.passesThrough === true && {
      bridge: { decide: () => ({ action: "tunnel", reason: "passthrough" }) } as never,
    }),
  };
  const backlogs = new Backlogs(new BodyBudget(Number.MAX_SAFE_INTEGER), () => undefined);
  const flow = makeFlow({
    direction: "outbound",
    transport: "connect",
    client: { address: "127.0.0.1", port: 1 },
    destination: parseAuthority("api.example.com:443", "tcp"),
  });
  tunnel(
    { recorder, tunnels, stalls, backlogs },
    undefined as unknown as BridgeServer,
    {
      runtime: runtime as Runtime,
      flow,
      client: agent.server,
      head: Buffer.from(setting.head ?? ""),
      headers: new HeaderList([]),
      replies: connectReplies,
    },
    done,
  );
  const isDialledAtOnce = connect.mock.calls.length === 1;
  return {
    agent: agent.client,
    origin: origin.client,
    tunnels,
    kills,
    done,
    over: over.promise,
    isDialledAtOnce,
    get ending(): Ending | undefined {
      return endings.mock.calls[0]?.[2];
    },
    /** How many have the end, by its word. */
    closed: async (end: string): Promise<boolean> =>
      new RegExp(`tunnels_closed_total\\{[^}]*"${end}"[^}]*\\} 1$`, "m").test(
        await metrics.render(),
      ),
  };
}

test.each([
  ["in the same turn where nobody has to be waited for", allowing, true],
  ["after a plugin that waits", { onRequest: () => Promise.resolve(allow("x")) }, false],
])("dials %s", async (_when, plugin: Plugin, expected) => {
  const { agent, origin, over, isDialledAtOnce, closed } = await opened({ plugin });
  agent.end();
  origin.end();
  agent.resume();
  origin.resume();
  await over;
  expect(isDialledAtOnce).toBe(expected);
  expect(await closed("closed")).toBe(true);
});

test("holds a place until both connections are closed, then is recorded with its bytes", async () => {
  const { agent, origin, tunnels, over, done, closed } = await opened({ head: "early " });
  const asked = buffer(origin);
  const answered = buffer(agent);
  agent.end("question");
  expect((await asked).toString()).toBe("early question");
  expect([tunnels.size, tunnels.take(1), done.mock.calls.length]).toEqual([1, false, 0]);
  origin.end("answer");
  expect((await answered).toString()).toBe(`${established}answer`);
  await over;
  expect([tunnels.size, tunnels.take(1), done.mock.calls.length]).toEqual([0, true, 1]);
  expect(await closed("closed")).toBe(true);
});

test.each([
  [{}, { status: 200, bytesReceived: 8, bytesSent: 6, note: { closed: "closed" } }],
  [{ head: "early " }, { status: 200, bytesReceived: 14, bytesSent: 6 }],
])("counts bytes both ways, with what came behind the CONNECT: %j", async (setting, expected) => {
  const made = await opened(setting);
  made.origin.resume();
  made.agent.resume();
  made.agent.end("question");
  await once(made.origin, "end");
  made.origin.end("answer");
  await made.over;
  expect(made.ending).toMatchObject(expected);
});

test.each(["revoked", "draining"] as const)(
  "is cut with a reset where it is %s",
  async (reason) => {
    const made = await opened();
    await once(made.agent, "data");
    const failed = [once(made.agent, "error"), once(made.origin, "error")];
    cutAll(made.tunnels, reason);
    for (const failure of failed) expect(await failure).toMatchObject([{ code: "ECONNRESET" }]);
    await made.over;
    expect(made.ending).toMatchObject({ status: 200, note: { closed: reason } });
    expect(await made.closed(reason === "revoked" ? "revoked" : "aborted")).toBe(true);
    expect([made.tunnels.size, made.tunnels.take(1)]).toEqual([0, true]);
  },
);

test("is cut by new rules that come while it is dialled", async () => {
  const dial = Promise.withResolvers<Socket>();
  let origin: Socket | undefined;
  const made = await opened({
    connect: (_options, socket) => {
      origin = socket;
      return dial.promise;
    },
  });
  await made.tunnels.recheck(refusing);
  if (origin !== undefined) dial.resolve(origin);
  await made.over;
  expect(made.ending).toMatchObject({ note: { closed: "revoked" } });
});

test("ends when nothing moves for the limit", async () => {
  const made = await opened({ idleTimeoutMs: 20 });
  made.agent.resume();
  await made.over;
  expect(made.ending).toMatchObject({ note: { closed: "idle" } });
  expect(await made.closed("idle")).toBe(true);
});

test("a client that leaves ends the dial, and frees the place", async () => {
  let given: ConnectOptions | undefined;
  const made = await opened({
    connect: (options) => {
      given = options;
      return new Promise((_resolve, reject) => {
        options.signal.addEventListener("abort", () => reject(new Error("left")));
      });
    },
  });
  made.agent.resetAndDestroy();
  await made.over;
  expect(given?.signal.aborted).toBe(true);
  expect(made.ending).toMatchObject({ cancelled: true, bytesReceived: 0 });
  expect([made.tunnels.size, made.tunnels.take(1)]).toEqual([0, true]);
});

test("closes what a dial brings once its tunnel was killed", async () => {
  const dialling = Promise.withResolvers<Socket>();
  let arrive = (): void => undefined;
  const made = await opened({
    connect: (_options, origin) => {
      arrive = () => dialling.resolve(origin);
      return dialling.promise;
    },
  });
  made.kills.set([{ scope: "all", value: "", at: 0 }]);
  expect(made.tunnels.cutKilled()).toBe(1);
  await made.over;
  arrive();
  await once(made.origin.resume(), "end");
  expect([made.tunnels.size, made.tunnels.take(1)]).toEqual([0, true]);
});

describe("refusals", () => {
  test.each([
    ["no place is left", { maxTunnels: 0 }, 503, "limits.max_tunnels"],
    [
      "a plugin denies it",
      {
        plugin: {
          onRequest: () => deny("x", { code: "policy.forbidden", message: "not there" }),
        },
      },
      403,
      "not there",
    ],
    ["the dial fails", { connect: () => Promise.reject(new Error("x")) }, 500, "internal.fault"],
    [
      "a plugin throws",
      {
        plugin: {
          onRequest: () => {
            throw new Error("x");
          },
        },
      },
      500,
      "plugin.fault",
    ],
  ])("when %s", async (_what, setting, status, text) => {
    const made = await opened(setting);
    const reply = (await buffer(made.agent)).toString();
    await made.over;
    expect(reply).toContain(`HTTP/1.1 ${status} `);
    expect(reply).toContain(text);
    expect(made.ending?.status).toBe(status);
    expect(made.done).toHaveBeenCalledTimes(1);
    // No place is taken, or it is given back.
    expect([made.tunnels.size, made.tunnels.take(1), made.tunnels.take(1)]).toEqual([
      0,
      true,
      false,
    ]);
  });
});

describe("a client that is passed through", () => {
  test("goes on with its first bytes when it asks for the permitted server", async () => {
    const made = await opened({ passesThrough: true });
    const hello = records(clientHello({ sni: "api.example.com" }));
    const heard = buffer(made.origin);
    made.agent.end(hello);
    expect(await heard).toEqual(hello);
    made.origin.end();
    made.agent.resume();
    await made.over;
    expect(made.ending).toMatchObject({ bytesReceived: hello.length, note: { closed: "closed" } });
  });

  test("reaches nothing when it asks for another one", async () => {
    const made = await opened({ passesThrough: true });
    const heard = buffer(made.origin);
    made.agent.resume();
    made.agent.write(records(clientHello({ sni: "other.example.com" })));
    expect((await heard).length).toBe(0);
    await made.over;
    expect(made.ending?.denial?.code).toBe("request.misdirected");
    expect(await made.closed("error")).toBe(true);
  });

  test("is cut at once while nothing has come of it", async () => {
    const made = await opened({ passesThrough: true });
    await once(made.agent, "data");
    made.origin.resume();
    cutAll(made.tunnels, "revoked");
    await made.over;
    expect(made.ending).toMatchObject({ note: { closed: "revoked" } });
  });
});

/** As a reload, or the end of the process, does it. */
function cutAll(tunnels: TunnelRegistry, reason: "revoked" | "draining"): void {
  if (reason === "draining") tunnels.cutAll();
  else void tunnels.recheck(refusing);
}
