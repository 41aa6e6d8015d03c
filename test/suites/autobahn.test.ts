/**
 * WebSockets by the Autobahn test suite, whose program `AUTOBAHN` names; skipped where there is none.
 * `.ci/suites/autobahn` installs it and runs this file.
 *
 * Its fuzzing client attacks its own strict server, and its fuzzing server its own strict client: directly, and by every way
 * into the proxy, with nobody reading along and with plugins that judge each message. By no way may a case end worse than
 * directly.
 */
import { beforeAll, describe, expect, test } from "vitest";
import {
  type Agent,
  Autobahn,
  type Cases,
  type Outcome,
  type Report,
} from "../support/autobahn.ts";
import { type BridgeOptions, BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { freePort } from "../support/free-port.ts";
import { owner } from "../support/owner.ts";
import {
  absoluteForm,
  asItIs,
  door,
  overHttp2,
  type Port,
  tlsFront,
  type Way,
  within,
} from "../support/web-socket-doors.ts";

const program = process.env["AUTOBAHN"] ?? "";
const limitMs = 3_600_000;
const some = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];
const compressed = ["12.1.1", "13.1.1"];
const asked = process.env["AUTOBAHN_CASES"];
const chosen: Cases = {
  cases: asked === undefined ? [...some, ...compressed] : asked.split(/[\s,]+/),
};

/** From good to bad; what is only told is as good as any. */
const ranks = [
  "OK",
  "NON-STRICT",
  "UNIMPLEMENTED",
  "UNCLEAN",
  "WRONG CODE",
  "FAILED BY CLIENT",
  "FAILED",
];
const rank = (behavior: string): number => {
  if (behavior === "INFORMATIONAL") return 0;
  const found = ranks.indexOf(behavior);
  return found < 0 ? ranks.length : found;
};
const isWorse = (one: Outcome | undefined, than: Outcome): boolean =>
  one === undefined ||
  rank(one.behavior) > rank(than.behavior) ||
  rank(one.behaviorClose) > rank(than.behaviorClose);

/** What ends worse where messages are judged, and why. */
const atOnce =
  "a fault ends the connection at once, though the response to what came before is under way";
const whole = "a text is judged when it is whole, and so is its UTF-8";
const expected: readonly { readonly cases: RegExp; readonly ends: string; readonly why: string }[] =
  [
    { cases: /^(?:3\.[234]|4\.[12]\.[345]|5\.15)$/, ends: "NON-STRICT", why: atOnce },
    { cases: /^6\.4\.[1-4]$/, ends: "NON-STRICT", why: whole },
    {
      cases: /^1[23]\./,
      ends: "UNIMPLEMENTED",
      why: "no extension is offered: compression hides what is sent",
    },
  ];
const isExpected = (id: string, { behavior, behaviorClose }: Outcome): boolean =>
  expected.some(
    ({ cases, ends }) => cases.test(id) && behavior === ends && rank(behaviorClose) <= rank(ends),
  );

/** Plugins that read every message. */
const readers = [
  "inference-parser",
  "mcp-parser",
  { name: "dlp", config: { default: { action: "refuse" } } },
];
const own = owner();
const name = "api.allowed.test";
/** What each way adds: nothing, or plugins that read every message. */
const ways: string[] = ["forward", "CONNECT", "spliced", "bridge", "bridge-h2", "reverse"];
const names = [...ways, ...ways.filter((way) => way !== "spliced").map((way) => `${way}-judged`)];

describe.skipIf(program === "")("Autobahn", () => {
  let autobahn: Autobahn;
  let direct: Agent;
  const agents = new Map<string, Agent>();

  beforeAll(async () => {
    const port = await freePort();
    autobahn = await own(Autobahn.at(program, port));
    direct = { name: "direct", port };
    const authority = await TestAuthority.create();
    const certificate = await authority.server([name]);
    const bridged = await own(tlsFront(certificate, port));
    const spliced = await own(tlsFront(certificate, port));
    const plain = `127.0.0.1:${port}`;
    const secured = `${name}:${bridged.number}`;
    const opaque = `${name}:${spliced.number}`;
    for (const judging of ["", "-judged"]) {
      const proxy = await own(
        start(judging === "" ? [] : readers, port, {
          ports: [bridged.number],
          originCa: authority.caPem,
        }),
      );
      const add = async (way: string, opens: Way): Promise<void> => {
        const { number } = await own<Port>(door(opens));
        agents.set(way + judging, { name: way + judging, port: number });
      };
      const forward = proxy.forward.port;
      await add("forward", absoluteForm(forward, plain));
      await add(
        "CONNECT",
        within(plain, () => proxy.tunnel(plain)),
      );
      await add(
        "spliced",
        within(opaque, () => proxy.tls(opaque, { ca: authority.caPem })),
      );
      await add(
        "bridge",
        within(secured, () => proxy.tls(secured)),
      );
      await add("bridge-h2", overHttp2(proxy, secured));
      await add("reverse", asItIs(proxy.reverse.port, plain));
    }
  }, limitMs);

  describe.each([
    {
      peer: "servers",
      attack: async (some: readonly Agent[], cases: Cases) => {
        const server = await autobahn.echoServer();
        try {
          const reports = await Promise.all(
            some.map((agent) => autobahn.attackServer(agent, cases)),
          );
          return Object.fromEntries(some.map(({ name }, at) => [name, reports[at] ?? {}]));
        } finally {
          await server.close();
        }
      },
    },
    {
      peer: "clients",
      attack: (some: readonly Agent[], cases: Cases) => autobahn.attackClients(some, cases),
    },
  ])("attacks $peer", ({ attack }) => {
    let reports: Readonly<Record<string, Report>>;

    beforeAll(async () => {
      reports = await attack([direct, ...names.flatMap((name) => agents.get(name) ?? [])], chosen);
    }, limitMs);

    test("directly", () => {
      const outcomes = Object.values(reports["direct"] ?? {});
      expect(outcomes.length).toBeGreaterThan(asked === undefined ? 200 : 0);
      expect(
        outcomes.filter((outcome) => isWorse(outcome, { behavior: "OK", behaviorClose: "OK" })),
      ).toEqual([]);
      console.log(`${outcomes.length} cases`);
    });

    test.each(names)(
      "by %s no worse",
      async (name) => {
        const agent = agents.get(name);
        if (agent === undefined) throw new Error(`no way is called ${name}`);
        const worse = (report: Report = {}, ids: readonly string[]): string[] =>
          ids.filter((id) => {
            const [outcome, than] = [report[id], reports["direct"]?.[id]];
            if (than === undefined || !isWorse(outcome, than)) return false;
            return !name.endsWith("-judged") || outcome === undefined || !isExpected(id, outcome);
          });
        let report = reports[name] ?? {};
        let left = worse(report, Object.keys(reports["direct"] ?? {}));
        // Many cases wait for a second: a busy machine gets another try, with these alone.
        for (let tries = 0; tries < 3 && left.length > 0; tries += 1) {
          console.log(`FLAKY: ${name} ends worse, once more: ${said(report, left)}`);
          report = (await attack([agent], { cases: left }))[name] ?? {};
          left = worse(report, left);
        }
        expect(said(report, left)).toBe("");
      },
      limitMs,
    );
  });
});

const said = (report: Report, ids: readonly string[]): string =>
  ids.map((id) => `${id} ${report[id]?.behavior} ${report[id]?.behaviorClose}`).join(", ");

/** A proxy on all surfaces. */
function start(
  plugins: readonly unknown[],
  port: number,
  bridge: Pick<BridgeOptions, "ports" | "originCa">,
): Promise<BridgeProxy> {
  return BridgeProxy.start({
    ...bridge,
    file: {
      listener: {
        forward_proxy_addr: "127.0.0.1:0",
        reverse_proxy_addr: "127.0.0.1:0",
        session_api_addr: "127.0.0.1:0",
        health_addr: "127.0.0.1:0",
        transparent_proxy_addr: "off",
        reverse_proxy_backend: `http://127.0.0.1:${port}`,
      },
      pipeline: { inbound: { plugins }, outbound: { plugins } },
    },
  });
}
