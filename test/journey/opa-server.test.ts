/**
 * The decisions against a real OPA server, of which `OPA_BIN` names the program; skipped where there is none.
 *
 * `.ci/run` builds OPA from its Go module where Go is installed.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { unpackBundle } from "../../src/opa/bundle.ts";
import { eventually } from "../support/eventually.ts";
import { freePort } from "../support/free-port.ts";
import { get } from "../support/http-client.ts";
import { decisionCases, fixture } from "../support/opa-cases.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const program = process.env["OPA_BIN"] ?? "";
const policy = new URL("../fixtures/opa/cases", import.meta.url).pathname;

/** A running OPA server. */
class OpaServer {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly url: string;
  readonly lines: string[] = [];

  private constructor(child: ChildProcess, folder: string, url: string) {
    this.#child = child;
    this.#folder = folder;
    this.url = url;
    for (const stream of [child.stdout, child.stderr]) {
      if (stream !== null)
        createInterface({ input: stream }).on("line", (line) => this.lines.push(line));
    }
  }

  /** Serves the policy of the cases on a port or a socket. */
  static async start(kind: "port" | "socket", ...more: string[]): Promise<OpaServer> {
    const folder = await mkdtemp(join(tmpdir(), "authbridge-real-opa-"));
    const url =
      kind === "socket" ? `unix://${folder}/opa.sock` : `http://127.0.0.1:${await freePort()}`;
    const address = kind === "socket" ? url : url.replace("http://", "");
    const child = spawn(program, ["run", "--server", "--addr", address, ...more, policy], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    const server = new OpaServer(child, folder, url);
    await eventually(
      () => server.lines.some((line) => line.includes("Initializing server")),
      20_000,
    );
    return server;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill("SIGKILL");
    await ended;
    await rm(this.#folder, { recursive: true });
  }
}

describe.skipIf(program === "")("a real OPA server", () => {
  const own = owner();

  decisionCases("a real OPA server", async () => {
    const server = await OpaServer.start("port");
    return { config: { server_url: server.url }, close: () => server.close() };
  });

  test.each(["port", "socket"] as const)("decides for the program (%s)", async (kind) => {
    const server = await own(OpaServer.start(kind));
    const origin = await own(HttpOrigin.launch());
    const config = { server_url: server.url, decision_timeout: "5s" };
    const proxy = await own(ProxyProcess.start(settings(outbound({ name: "opa", config }))));
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    const ask = (path: string) => get(proxy.forward, `${origin.url}${path}`);
    expect((await ask("/true")).status).toBe(200);
    expect((await ask("/reason")).json()).toMatchObject({ message: "access denied for tool" });
    expect((await ask("/at-answer/which")).json()).toMatchObject({
      message: "authbridge/outbound/response",
    });
    expect((await ask("/conflict")).json()).toMatchObject({ message: "OPA decision error" });
  });

  test("that decides too slowly is a refusal", async () => {
    const server = await own(OpaServer.start("port"));
    const origin = await own(HttpOrigin.launch());
    const config = { server_url: server.url, decision_timeout: "300ms" };
    const proxy = await own(ProxyProcess.start(settings(outbound({ name: "opa", config }))));
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    const answer = await get(proxy.forward, `${origin.url}/slow`);
    expect(answer.status).toBe(403);
    expect(answer.json()).toMatchObject({ message: "OPA decision timed out" });
  });
});

describe.skipIf(program === "")("bundles that a real OPA makes and compiles", () => {
  const own = owner();
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = (key: KeyObject): string =>
    key.export({ type: key.type === "public" ? "spki" : "pkcs8", format: "pem" }).toString();
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "authbridge-signed-"));
    await cp(policy, join(folder, "cases"), { recursive: true });
    // What signers spell in a way of their own.
    const odd = { "\u2028<&>é": [1.5, -0, { b: null, a: "\u0001" }], "😀": 1, "\uffff": 2 };
    await mkdir(join(folder, "cases", "odd"));
    const text = JSON.stringify(odd, undefined, 2).replace("1.5", "12345678901234567890.50");
    await writeFile(join(folder, "cases", "odd", "data.json"), text);
  });
  afterAll(() => rm(folder, { recursive: true }));

  async function build(...given: string[]): Promise<string> {
    const path = join(folder, `${given.join("").replaceAll(/\W/g, "").slice(-64)}.tar.gz`);
    const { status, stderr } = spawnSync(program, ["build", ...given, "-o", path, "-b", "cases"], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(status, stderr).toBe(0);
    return path;
  }

  async function decides(config: object): Promise<void> {
    const origin = await own(HttpOrigin.launch());
    const proxy = await own(ProxyProcess.start(settings(outbound({ name: "opa", config }))));
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    const ask = (path: string) => get(proxy.forward, `${origin.url}${path}`);
    expect((await ask("/true")).status).toBe(200);
    expect((await ask("/reason")).json()).toMatchObject({ message: "access denied for tool" });
    expect((await ask("/at-answer/which")).json()).toMatchObject({
      message: "authbridge/outbound/response",
    });
  }

  test("source is compiled by it, with the documents that the policy defines", async () => {
    await decides({ bundle_path: await build("-r", "7"), compiler: program });
    const { path } = fixture("rego");
    const proxy = await own(
      ProxyProcess.start(
        settings(outbound({ name: "opa", config: { bundle_path: path, compiler: program } })),
      ),
    );
    const { entrypoints } = await proxy.log(({ msg }) => msg === "opa policy loaded");
    expect(entrypoints).toEqual(["authbridge/inbound/request", "authbridge/outbound/request"]);
  });

  test.each([
    ["HS256", "a secret", "a secret"],
    ["RS256", pem(rsa.privateKey), pem(rsa.publicKey)],
    ["PS384", pem(rsa.privateKey), pem(rsa.publicKey)],
    ["ES256", pem(ec.privateKey), pem(ec.publicKey)],
  ])("what it signed with %s is verified, compiled or not", async (algorithm, signer, key) => {
    const file = join(folder, `${algorithm}.key`);
    await writeFile(file, signer);
    const signing = [
      "--signing-key",
      algorithm === "HS256" ? signer : file,
      "--signing-alg",
      algorithm,
    ];
    const verification = { keys: { default: { algorithm, key } } };
    await decides({ bundle_path: await build(...signing), compiler: program, verification });
    const entrypoints = ["inbound", "outbound"].flatMap((direction) =>
      ["request", "response"].flatMap((phase) => ["-e", `authbridge/${direction}/${phase}`]),
    );
    const compiled = await build(...signing, "-t", "wasm", ...entrypoints);
    await decides({ bundle_path: compiled, verification });
  });
});

describe.skipIf(program === "")("the committed bundles", () => {
  test.each([
    ["test/fixtures/opa", ["cases", "allow", "clock", "rego"]],
    ["examples/opa", ["bundle"]],
  ])("of %s are what their script makes of the Rego beside them", async (folder, names) => {
    const copy = await mkdtemp(join(tmpdir(), "authbridge-bundles-"));
    await cp(folder, copy, { recursive: true });
    for (const name of names) await rm(join(copy, `${name}.tar.gz`));
    const { status, stderr } = spawnSync(join(copy, "build.sh"), {
      env: { ...process.env, OPA: program },
      encoding: "utf8",
    });
    expect(status, stderr).toBe(0);
    for (const name of names) {
      const made = unpackBundle(await readFile(join(copy, `${name}.tar.gz`)));
      expect(made).toEqual(unpackBundle(await readFile(join(folder, `${name}.tar.gz`))));
    }
    await rm(copy, { recursive: true });
  });
});
