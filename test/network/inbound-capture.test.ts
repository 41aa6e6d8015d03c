/**
 * A pod whose inbound connections are captured on the real kernel: what another pod sends to the agent's own ports is
 * validated by the proxy, whichever way it takes. Done for both backends of iptables.
 */
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import {
  type Host,
  Network,
  networkObstacle,
  type Output,
  sayWhenSkipped,
} from "../support/network.ts";
import { agentUid, proxyIn, serveIn } from "../support/network-process.ts";
import type { Program, Settings } from "../support/program.ts";
import type { Seen } from "../support/network-server.ts";

const script = fileURLToPath(new URL("../../deploy/proxy-init/proxy-init.sh", import.meta.url));
const obstacle = networkObstacle("iptables-nft", "iptables-legacy", "nc", "ping", "curl");
sayWhenSkipped("captured inbound connections in network namespaces", obstacle);

const pod4 = "10.77.1.2";
const pod6 = "fd77:1::2";
/** Routed to the pod, and no address of any of its interfaces. */
const foreign = "203.0.113.9";

const settings: Settings = {
  listener: {
    roles: ["reverse"],
    inbound_interception: "transparent",
    inbound_passthrough_ports: [2526],
  },
  stats: { address: "127.0.0.1:9093" },
  session: { enabled: false },
  pipeline: {
    inbound: {
      default: "deny",
      plugins: [
        { name: "jwt-validation", config: { issuer: "http://idp.test", audience: "agent" } },
      ],
    },
  },
};

describe.skipIf(obstacle !== undefined).each(["nft", "legacy"])(
  "a pod whose inbound connections iptables-%s captures",
  (backend) => {
    let network: Network;
    let pod: Host;
    let other: Host;
    let proxy: Program;
    let seen: Seen[];

    const curl = async (url: string, from = other): Promise<string> => {
      const args = [
        "curl",
        "-sS",
        "-g",
        "--max-time",
        "8",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
      ];
      const { stdout } = await from.run([...args, url], { uid: agentUid });
      return stdout;
    };
    const says = (port: number, text: string): Promise<Output> =>
      other.run(["nc", "-n", "-w", "2", pod4, String(port)], { input: text, uid: agentUid });
    const logged = (text: string): Promise<boolean> =>
      eventually(() => JSON.stringify(proxy.logs).includes(text));
    const atAgent = (): Seen[] => seen.filter(({ kind }) => kind !== "ready");

    beforeAll(async () => {
      network = new Network();
      pod = network.host("pod", { ipv4: pod4, ipv6: pod6 }, ["10.77.9.9"]);
      other = network.host("other", { ipv4: "10.77.2.2", ipv6: "fd77:2::2" });
      network.router.runSync("ip", "route", "add", "203.0.113.0/24", "via", pod4);
      pod.runSync("ip", "route", "add", "local", "203.0.113.0/24", "dev", "lo");
      seen = await serveIn(pod, { http: [8000, 8001], banner: [2525, 2526] });
      const env = { IPTABLES_BACKEND: backend, INBOUND_PROXY_PORT: "8083" };
      const installed = await pod.run(["sh", script], { env });
      expect(installed).toMatchObject({ code: 0 });
      // Rules are replaced, not added to.
      expect(await pod.run(["sh", script], { env })).toMatchObject({ code: 0 });
      proxy = await proxyIn(pod, settings);
    }, 60_000);
    afterAll(async () => {
      await proxy?.close();
      await network?.close();
    });

    test.each([`http://${pod4}:8000/`, `http://[${pod6}]:8000/`, `http://${pod4}:8001/x`])(
      "another pod without a token gets 401 from %s",
      async (url) => {
        const before = atAgent().length;
        expect(await curl(url)).toBe("401");
        expect(atAgent()).toHaveLength(before);
      },
    );

    test.each([pod4, `[${pod6}]`])(
      "a probe of %s reaches the port that it asks for",
      async (host) => {
        expect(await curl(`http://${host}:8001/healthz`)).toBe("200");
        expect(atAgent().at(-1)).toMatchObject({
          port: 8001,
          url: "/healthz",
          host: `${host}:8001`,
        });
      },
    );

    test("the agent's own requests to itself are not captured", async () => {
      expect(await curl("http://127.0.0.1:8000/", pod)).toBe("200");
      expect(await curl(`http://${pod4}:8000/`, pod)).toBe("200");
    });

    test("what is no HTTP is refused, and the log names the key", async () => {
      const before = atAgent().length;
      expect((await says(2525, "HELO there\r\n")).stdout).toBe("");
      expect(atAgent()).toHaveLength(before);
      await logged("listener.inbound_passthrough_ports");
    });

    test("a port that the file names is passed on unread", async () => {
      expect((await says(2526, "HELO there\r\n")).stdout).toContain("HELO there");
    });

    test("whoever connects to the listener itself is refused", async () => {
      expect(await curl(`http://${pod4}:8083/healthz`)).toBe("000");
    });

    test("an address that is not the pod's is not forwarded to", async () => {
      expect(await curl(`http://${foreign}:8000/healthz`)).toBe("000");
      await logged(`${foreign}:8000 is no address of this machine`);
    });

    test("the proxy's own health is reached", async () => {
      expect(await curl(`http://${pod4}:9091/livez`)).toBe("200");
    });
  },
);
