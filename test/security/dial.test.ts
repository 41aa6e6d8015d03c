/** Invariants 1, 2 and 9: no dial without a permit, only vetted addresses, never the proxy itself. */
import net, { type AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AddressSet, parseAddress } from "../../src/net/address.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import { deny } from "../../src/pipeline/decision.ts";
import { makeFlow } from "../../src/pipeline/flow.ts";
import { Permit, Pipeline } from "../../src/pipeline/pipeline.ts";
import type { Step } from "../../src/pipeline/step-runner.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { AddressGuard } from "../../src/upstream/address-guard.ts";
import { OwnListeners } from "../../src/upstream/own-listeners.ts";
import { DirectUpstream } from "../../src/upstream/upstream.ts";
import { message } from "../support/plugin-bench.ts";

let origin: net.Server;
let port: number;
let accepted = 0;

beforeAll(async () => {
  origin = net.createServer((socket) => {
    accepted += 1;
    socket.on("error", () => undefined);
    socket.end();
  });
  await new Promise<void>((resolve) => {
    origin.listen(0, "127.0.0.1", resolve);
  });
  port = (origin.address() as AddressInfo).port;
});
beforeEach(() => {
  accepted = 0;
});
afterAll(() => origin.close());

const log = createLogger("silent");

function pipelineOf(steps: readonly Step[], otherwise: "allow" | "deny" = "allow"): Pipeline {
  return new Pipeline(steps, { direction: "outbound", otherwise, log });
}

/** A dialler whose resolver gives one answer after another, and counts how often it is asked. */
function dialler(
  answers: readonly (readonly string[])[],
  allowed: readonly string[],
  own?: number,
) {
  const ownListeners = new OwnListeners();
  if (own !== undefined) ownListeners.add("0.0.0.0", own);
  const asked = { times: 0 };
  const guard = new AddressGuard({
    resolver: {
      resolve: () => {
        const answer = answers[Math.min(asked.times, answers.length - 1)] ?? [];
        asked.times += 1;
        return Promise.resolve(answer);
      },
    },
    ownListeners,
    allowIps: AddressSet.parse([...allowed]),
    privateNetworks: "deny",
  });
  return { asked, upstream: new DirectUpstream({ guard, connectTimeoutMs: 2_000 }) };
}

function permitFor(authority: string): Permit {
  const flow = makeFlow({
    direction: "outbound",
    transport: "connect",
    client: { address: "127.0.0.1", port: 1 },
    destination: parseAuthority(authority, "tcp"),
  });
  return pipelineOf([]).permitSkipped(flow);
}

const connect = (upstream: DirectUpstream, authority: string): Promise<net.Socket> =>
  upstream.connect(permitFor(authority), { signal: new Cancellation() });

describe("invariant 1: a permit", () => {
  test("cannot be made by anybody but a pipeline", () => {
    const { flow } = message({});
    const forge = (key: unknown): Permit => new Permit(key as never, flow);
    for (const key of [undefined, Symbol("issuing"), Symbol.for("issuing"), {}]) {
      expect(() => forge(key)).toThrow(TypeError);
    }
    const looksLike = Object.create(Permit.prototype) as Permit;
    expect(() => looksLike.destination).toThrow(TypeError);
  });

  test("is not issued by a chain that denies, faults, or leaves a default of deny undecided", async () => {
    const step = (onRequest: NonNullable<Step["plugin"]["onRequest"]>): Step => ({
      name: "p",
      plugin: { onRequest },
      onError: "enforce",
      stages: ["request"],
      body: {},
    });
    const chains = [
      pipelineOf([step(() => deny("r", { code: "policy.forbidden", message: "no" }))]),
      pipelineOf([
        step(() => {
          throw new Error("fault");
        }),
      ]),
      pipelineOf([step(() => Promise.reject(new Error("fault")))]),
      pipelineOf([], "deny"),
    ];
    for (const chain of chains) {
      expect(await chain.runRequest(message({}))).toHaveProperty("denial");
    }
  });
});

describe("invariant 2: the vetted address is the dialled one", () => {
  test("a name that changes its answer between look and dial is resolved once", async () => {
    const { asked, upstream } = dialler([["127.0.0.1"], ["169.254.169.254"]], ["127.0.0.0/8"]);
    const socket = await connect(upstream, `rebinding.test:${port}`);
    expect(socket.remoteAddress).toBe("127.0.0.1");
    expect(asked.times).toBe(1);
    socket.destroy();
  });

  test("of a mixed answer only what may be dialled is dialled", async () => {
    const { upstream } = dialler([["169.254.169.254", "10.0.0.1", "127.0.0.1"]], ["127.0.0.1"]);
    const socket = await connect(upstream, `mixed.test:${port}`);
    expect(socket.remoteAddress).toBe("127.0.0.1");
    socket.destroy();
  });

  test.each([
    ["a loopback answer", ["127.0.0.1"]],
    ["a mapped loopback answer", ["::ffff:127.0.0.1"]],
    ["a metadata answer", ["169.254.169.254"]],
    ["a private answer", ["10.1.2.3"]],
    ["an unspecified answer", ["0.0.0.0"]],
    ["an answer that is no address", ["not-an-address"]],
  ])("%s is refused and nothing is dialled", async (_name, answer) => {
    const { upstream } = dialler([answer], []);
    await expect(connect(upstream, `name.test:${port}`)).rejects.toMatchObject({
      code: "upstream.address-forbidden",
    });
    expect(accepted).toBe(0);
  });
});

describe("invariant 9: the proxy's own listeners", () => {
  test.each(["127.0.0.1", "127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0", "[::1]", "self.test"])(
    "are not dialled as %s, whatever the file opens",
    async (host) => {
      const { upstream } = dialler([["::ffff:127.0.0.1"]], ["0.0.0.0/0", "::/0"], port);
      await expect(connect(upstream, `${host}:${port}`)).rejects.toThrow(/own listeners/);
      expect(accepted).toBe(0);
    },
  );

  test("leave other ports of the machine alone", () => {
    const own = new OwnListeners();
    own.add("127.0.0.1", 8_081);
    const address = parseAddress("127.0.0.1");
    expect(address !== undefined && own.owns(address, 8_081)).toBe(true);
    expect(address !== undefined && own.owns(address, 8_082)).toBe(false);
  });
});

describe("the limits of a permit", () => {
  function guard(privateNetworks: "allow" | "deny", allowed: readonly string[] = []): AddressGuard {
    const answers: Readonly<Record<string, readonly string[]>> = {
      "mixed.test": ["10.1.2.3", "93.184.216.34", "127.0.0.1"],
      "db.test": ["10.1.2.3"],
    };
    return new AddressGuard({
      resolver: { resolve: (host) => Promise.resolve(answers[host] ?? []) },
      ownListeners: new OwnListeners(),
      allowIps: AddressSet.parse([...allowed]),
      privateNetworks,
    });
  }
  const vet = async (
    guarding: AddressGuard,
    authority: string,
    limits: readonly string[][],
  ): Promise<string> =>
    guarding
      .vet(
        parseAuthority(authority, "tcp"),
        new Cancellation(),
        limits.map((ranges) => AddressSet.parse(ranges)),
      )
      .then(
        (addresses) => addresses.map(String).join(" "),
        (error: unknown) => String(error),
      );

  test.each<[string, string, readonly string[][], string]>([
    [
      "open a private range although private networks are closed",
      "db.test:443",
      [["10.1.0.0/16"]],
      "10.1.2.3",
    ],
    [
      "keep what is outside them from being dialled",
      "mixed.test:443",
      [["10.1.0.0/16"]],
      "10.1.2.3",
    ],
    [
      "keep public addresses out as well",
      "mixed.test:443",
      [["10.9.0.0/16"]],
      "outside-allowed-ips",
    ],
    ["hold together", "db.test:443", [["10.0.0.0/8"], ["10.2.0.0/16"]], "outside-allowed-ips"],
    ["open no loopback address", "127.0.0.1:443", [["127.0.0.0/8"]], "class loopback"],
    ["open no metadata service", "169.254.169.254:80", [["169.254.0.0/16"]], "class metadata"],
    ["open no port of the control plane", "db.test:6443", [["10.0.0.0/8"]], "control-plane-port"],
    ["are needed for a private address", "db.test:443", [], "class private"],
  ])("%s", async (_what, authority, limits, expected) => {
    expect(await vet(guard("deny"), authority, limits)).toContain(expected);
  });

  test("a range in egress.allow_ips opens no IPv4 address that its members embed", async () => {
    const opened = guard("deny", ["64:ff9b::/96", "2002::/16"]);
    expect(await vet(opened, "[64:ff9b::a9fe:a9fe]:80", [])).toContain("class metadata");
    expect(await vet(opened, "[2002:7f00:1::1]:80", [])).toContain("class loopback");
    expect(await vet(opened, "[2002:0808:0808::1]:80", [])).toBe("2002:808:808::1");
  });
});
