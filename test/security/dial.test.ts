/** Invariants 1, 2 and 9: no dial without a permit, only vetted addresses, never the proxy itself. */
import net, { type AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { AddressSet, parseAddress } from "../../src/net/address.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import { deny } from "../../src/pipeline/decision.ts";
import { makeFlow } from "../../src/pipeline/flow.ts";
import { Permit, Pipeline, type Step } from "../../src/pipeline/pipeline.ts";
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
      expect(chain.immediate(message({})) ?? {}).not.toHaveProperty("permit");
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
