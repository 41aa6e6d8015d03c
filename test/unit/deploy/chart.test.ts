/** The chart's documents agree with its values, and its scripts do what they say. */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { restartOnlyPaths } from "../../../src/config/restart-only.ts";
import { owner } from "../../support/owner.ts";

const chart = "deploy/helm/authbridge-proxy";
const read = (path: string): string => readFileSync(join(chart, path), "utf8");
const own = owner();

interface Schema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: unknown;
}

const values = parse(read("values.yaml")) as Record<string, unknown>;
const schema = JSON.parse(read("values.schema.json")) as Schema;

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Whether a map is the user's own, with any keys. */
function isOpen(node: Schema | undefined): boolean {
  return node?.properties === undefined || node.additionalProperties !== false;
}

/** Every value with its default, by path; what is in an open map is the user's. */
function leaves(
  value: unknown,
  node: Schema | undefined,
  path: string[] = [],
): [string, unknown][] {
  if (!isMap(value) || (path.length > 0 && isOpen(node))) return [[path.join("."), value]];
  return Object.entries(value).flatMap(([key, child]) =>
    leaves(child, node?.properties?.[key], [...path, key]),
  );
}

const all = leaves(values, schema);

test("README.md has a row for every value, in order, with its default", () => {
  const rows = [...read("README.md").matchAll(/^\| `([\w.]+)` +\| `(.*?)` +\| (.+?) +\|$/gm)];
  expect(rows.map(([, path]) => path)).toEqual(all.map(([path]) => path));
  const documented = rows.map(([, path, text = "", meaning = ""]) => {
    expect(meaning.length, path).toBeGreaterThan(3);
    return parse(text) as unknown;
  });
  expect(documented).toEqual(all.map(([, value]) => value));
});

test("values.schema.json knows every value and refuses others", () => {
  expect(schema.additionalProperties).toBe(false);
  const known = (path: string): Schema | undefined =>
    path.split(".").reduce<Schema | undefined>((node, key) => node?.properties?.[key], schema);
  expect(all.filter(([path]) => known(path) === undefined).map(([path]) => path)).toEqual([]);
});

test("the chart and the package have one version", () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
  const { appVersion, annotations } = parse(read("Chart.yaml")) as {
    appVersion: string;
    annotations: Record<string, string>;
  };
  expect(appVersion).toBe(version);
  const contract = /^Version (\d+)\b/m.exec(
    readFileSync("docs/deployment-contract.md", "utf8"),
  )?.[1];
  expect(annotations["authbridge-proxy/deployment-contract"]).toBe(contract);
});

test("an upgrade rolls the pods for every key that the proxy cannot reload", () => {
  const paths = /^{{- range \$path := list (.*) }}$/m.exec(read("templates/_config.tpl"))?.[1];
  expect(paths).toBe(restartOnlyPaths.map((path) => `"${path}"`).join(" "));
});

test("the chart's dashboards are those of deploy/grafana", () => {
  const names = readdirSync("deploy/grafana").filter((name) => name.endsWith(".json"));
  expect(readdirSync(join(chart, "dashboards"))).toEqual(names);
  for (const name of names)
    expect(read(`dashboards/${name}`)).toBe(readFileSync(`deploy/grafana/${name}`, "utf8"));
});

test("the chart's alerts are those of deploy/prometheus", () => {
  const names = readdirSync("deploy/prometheus").filter((name) => name.endsWith(".yaml"));
  expect(readdirSync(join(chart, "rules"))).toEqual(names);
  for (const name of names)
    expect(read(`rules/${name}`)).toBe(readFileSync(`deploy/prometheus/${name}`, "utf8"));
});

describe("leave-directly", () => {
  const script = read("files/leave-directly.cjs");

  function leave(env: Record<string, string>): Promise<{ code: number | null; out: string }> {
    const child = spawn(process.execPath, ["-e", script], { env: { LIMIT_MS: "300", ...env } });
    let out = "";
    child.stdout.on("data", (chunk) => (out += String(chunk)));
    child.stderr.on("data", (chunk) => (out += String(chunk)));
    return new Promise((resolve) => child.once("close", (code) => resolve({ code, out })));
  }

  async function answering(text: string): Promise<string> {
    const server: Server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end(text));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await own({ close: () => void server.close() });
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async function closedPort(): Promise<string> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    return `127.0.0.1:${port}`;
  }

  test("fails when somebody answers", async () => {
    const { code, out } = await leave({ DIRECT: await answering("HTTP/1.1 200 OK\r\n\r\n") });
    expect(code).toBe(1);
    expect(out).toMatch(/FAILED: TCP .* leaves: it was answered: HTTP\/1\.1 200 OK/);
  });

  test("fails when a datagram is answered", async () => {
    const socket = createSocket("udp4");
    socket.on("message", (_bytes, peer) => socket.send("pong", peer.port, peer.address));
    await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
    await own({ close: () => void socket.close() });
    const { code, out } = await leave({ DIRECT_UDP: `127.0.0.1:${socket.address().port}` });
    expect(code).toBe(1);
    expect(out).toContain("FAILED: UDP");
  });

  test("passes when nothing answers, or the proxy that caught it refuses", async () => {
    const refusal = await answering("HTTP/1.1 403 Forbidden\r\n\r\n");
    const { code, out } = await leave({
      DIRECT: `${await closedPort()},${refusal}`,
      DIRECT_UDP: await closedPort(),
      PROXY: await answering(""),
    });
    expect(code, out).toBe(0);
    expect(out.match(/^ok: /gm)).toHaveLength(4);
  });

  test("fails when the proxy itself is not there: an empty network proves nothing", async () => {
    const { code, out } = await leave({ PROXY: await closedPort() });
    expect(code).toBe(1);
    expect(out).toContain("FAILED: the proxy cannot be reached");
  });
});

test("the example agent answers with what became of its request", async () => {
  const child = spawn(
    process.execPath,
    [
      "-e",
      `${read("files/agent.cjs")}
server.on("listening", () => console.log(server.address().port));`,
    ],
    {
      env: { PORT: "0", HOST: "127.0.0.1" },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  await own({ close: () => void child.kill("SIGKILL") });
  const port = await new Promise<string>((resolve) =>
    child.stdout.once("data", (chunk) => resolve(String(chunk).trim())),
  );
  const answer = await fetch(`http://127.0.0.1:${port}/?url=http://127.0.0.1:1/`);
  expect(answer.status).toBe(502);
  expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toContain("an agent");
});
