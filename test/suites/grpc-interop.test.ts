/**
 * The interoperability tests of gRPC through every listener. `GRPC_INTEROP_CLIENT` and `GRPC_INTEROP_SERVER` name their
 * programs; skipped where there are none. `.ci/suites/grpc-interop` builds them and runs this file.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { owner } from "../support/owner.ts";
import { peerSocket } from "../support/peer-client.ts";
import { PeerFiles } from "../support/peer-files.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { TunnelRelay } from "../support/tunnel-relay.ts";

const clientProgram = process.env["GRPC_INTEROP_CLIENT"] ?? "";
const serverProgram = process.env["GRPC_INTEROP_SERVER"] ?? "";
const own = owner();

/** Those that want no account with a provider, and not `pick_first_unary`: the server has no id to tell. */
const cases = [
  "empty_unary",
  "large_unary",
  "client_streaming",
  "server_streaming",
  "ping_pong",
  "empty_stream",
  "timeout_on_sleeping_server",
  "cancel_after_begin",
  "cancel_after_first_response",
  "status_code_and_message",
  "special_status_message",
  "custom_metadata",
  "unimplemented_method",
  "unimplemented_service",
  "orca_per_rpc",
  "orca_oob",
  "rpc_soak",
  "channel_soak",
];

let authority: TestAuthority;

/** The port of a server of the interoperability tests that takes connections. */
async function server(...args: readonly string[]): Promise<number> {
  const port = await freePort();
  const child = spawn(serverProgram, [`--port=${port}`, ...args], { stdio: "ignore" });
  const ended = once(child, "exit");
  await own({
    close: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  });
  await eventually(async () => {
    const socket = connect({ host: "127.0.0.1", port });
    const isOpen = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    return isOpen;
  });
  return port;
}

/** The same, with TLS for `grpc.test`. */
async function secureServer(): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "grpc-interop-"));
  await own({ close: () => rm(directory, { recursive: true }) });
  const { cert, key } = await authority.server(["grpc.test"]);
  const [certFile, keyFile] = [join(directory, "tls.crt"), join(directory, "tls.key")];
  await writeFile(certFile, cert);
  await writeFile(keyFile, key);
  return server("--use_tls", `--tls_cert_file=${certFile}`, `--tls_key_file=${keyFile}`);
}

/** Where a client is pointed to. */
interface Place {
  readonly host?: string;
  readonly port: number;
  readonly env?: Readonly<Record<string, string>>;
  /** File of the authority, where it is to speak TLS. */
  readonly caFile?: string;
}

/** The client reads the reports of load in trailers, and a busy machine fails no case by its slowness. */
const common = [
  `--service_config_json={"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`,
  "--soak_per_iteration_max_acceptable_latency_ms=60000",
  "--soak_overall_timeout_seconds=60",
];

/** What the client said where a case did not pass; undefined where it did. */
function run({ host = "localhost", port, env = {}, caFile }: Place, name: string) {
  const args = [`--server_host=${host}`, `--server_port=${port}`, `--test_case=${name}`, ...common];
  if (caFile !== undefined) args.push("--use_tls", "--use_test_ca", `--ca_file=${caFile}`);
  return new Promise<string | undefined>((resolve) => {
    execFile(clientProgram, args, { env, timeout: 60_000 }, (error, stdout, stderr) => {
      resolve(error === null ? undefined : `${error.message}\n${stdout}${stderr}`);
    });
  });
}

/** What only the proxy can look up, and what the client calls the forward port. */
const elsewhere = "127.0.0.9";
const egress = { egress: { hosts: { "grpc.test": ["127.0.0.1"], localhost: [elsewhere] } } };
const looked = { name: "denier", config: { path: "/denied" } };
const forward = () => own(ProxyProcess.start(settings(merge(outbound(looked), egress))));

async function reverse(over: Settings): Promise<ProxyProcess> {
  return own(ProxyProcess.start(settings(merge(inbound(looked), over))));
}

/** By the scheme of the backend. */
async function reversePlace(scheme: string): Promise<Place> {
  const backend = `${scheme}://127.0.0.1:${await server()}`;
  const proxy = await reverse({ listener: { reverse_proxy_backend: backend } });
  return { port: proxy.reverse.port };
}

const places: Readonly<Record<string, () => Promise<Place>>> = {
  "to the server itself": async () => ({ port: await server() }),
  "by HTTP/2 to the forward port": async () => {
    const behind = { host: "127.0.0.1", port: await server() };
    const proxy = await forward();
    const { port } = proxy.forward;
    // The port in the authority is the one that the client connects to.
    const at = { host: elsewhere, port };
    await own(TunnelRelay.start(() => Promise.resolve(connect(behind)), createServer(), at));
    return { port };
  },
  "inside a CONNECT, without TLS": async () => {
    const proxy = await forward();
    const env = { HTTPS_PROXY: `http://127.0.0.1:${proxy.forward.port}` };
    return { host: "grpc.test", port: await server(), env };
  },
  "through the bridge": async () => {
    const port = await secureServer();
    const proxy = await own(
      BridgeProxy.start({
        ports: [port],
        originCa: authority.caPem,
        names: ["grpc.test"],
        plugins: [{ name: "bridge-witness", config: { file: "seen.jsonl" } }],
      }),
    );
    return { host: "grpc.test", port, env: { HTTPS_PROXY: proxy.url }, caFile: proxy.caFile };
  },
  "through the reverse port to h2c://": () => reversePlace("h2c"),
  "through the reverse port to http://": () => reversePlace("http"),
  "through the reverse port inside mutual TLS": async () => {
    const trust = SpiffeAuthority.create();
    const files = await PeerFiles.write(trust.svid("/ns/team/sa/agent"), [trust]);
    const peer = trust.svid("/ns/team/sa/peer");
    const proxy = await reverse({
      listener: { roles: ["reverse"], reverse_proxy_backend: `h2c://127.0.0.1:${await server()}` },
      mtls: { mode: "strict" },
      spiffe: files.spiffe,
    });
    // The client has no certificate of its own to show.
    const front = tls.createServer({
      ...(await authority.server(["localhost"])),
      ALPNProtocols: ["h2"],
    });
    const toProxy = () => peerSocket(proxy.reverse, peer, { ALPNProtocols: ["h2"] });
    const { port } = await own(TunnelRelay.start(toProxy, front));
    return { port, caFile: join(await authority.write(), "ca.crt") };
  },
};

describe.skipIf(clientProgram === "")("gRPC interop", () => {
  const results = new Map<string, Record<string, string>>();

  async function all(place: Place): Promise<Record<string, string>> {
    const failed: Record<string, string> = {};
    for (const name of cases) {
      const why = await run(place, name);
      if (why !== undefined) failed[name] = why;
    }
    return failed;
  }

  beforeAll(async () => {
    authority = await TestAuthority.create();
    // One after the other: a busy machine starts many programs at once too slowly.
    const opened: [string, Place][] = [];
    for (const [name, open] of Object.entries(places)) opened.push([name, await open()]);
    await Promise.all(
      opened.map(async ([name, place]) => {
        results.set(name, await all(place));
      }),
    );
  }, 300_000);

  test.each(Object.keys(places))("every case %s", (name) => {
    expect(results.get(name)).toEqual({});
  });
});
