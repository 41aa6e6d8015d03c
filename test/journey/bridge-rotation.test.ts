/** What changes under a running bridge: its authority on disk, and its configuration. */
import { X509Certificate } from "node:crypto";
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type BridgeOptions, BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";
import { oneThread } from "../support/program.ts";

const allowed = "api.allowed.test";

let authority: TestAuthority;
let origin: TlsOrigin;
let at: string;
const own: { close(): Promise<void> | void }[] = [];

beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed, "www.allowed.test"]));
  at = origin.at(allowed);
});
afterEach(async () => {
  for (const one of own.splice(0).reverse()) await one.close();
});
afterAll(() => origin.close());

async function start(options: Partial<BridgeOptions> = {}): Promise<BridgeProxy> {
  const proxy = await BridgeProxy.start({ ...base(), ...options });
  own.push(proxy);
  return proxy;
}

const base = (): BridgeOptions => ({ ports: [origin.port], originCa: authority.caPem });

/** A directory as the kubelet mounts a Secret: files behind a link that is swapped in one step. */
class MountedSecret {
  readonly directory: string;
  #version = 0;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async mount(first: TestAuthority): Promise<MountedSecret> {
    const secret = new MountedSecret(await mkdtemp(join(tmpdir(), "authbridge-secret-")));
    own.push(secret);
    await secret.swap(first);
    for (const name of ["tls.crt", "tls.key", "ca.crt"]) {
      await symlink(join("..data", name), join(secret.directory, name));
    }
    return secret;
  }

  /** Puts another set in place. */
  async swap(next: TestAuthority, over: Readonly<Record<string, string>> = {}): Promise<void> {
    this.#version += 1;
    const version = `..version_${this.#version}`;
    const directory = join(this.directory, version);
    await mkdir(directory);
    await next.write(directory);
    for (const [name, text] of Object.entries(over)) await writeFile(join(directory, name), text);
    await symlink(version, join(this.directory, "..data_tmp"));
    await rename(join(this.directory, "..data_tmp"), join(this.directory, "..data"));
  }

  async close(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** The common name of whoever signed the leaf for this destination now. */
async function issuer(proxy: BridgeProxy, destination = at): Promise<string> {
  const socket = await proxy.tls(destination, { rejectUnauthorized: false });
  const name = socket.getPeerX509Certificate()?.issuer ?? "";
  socket.destroy();
  return name;
}

describe("an authority that is renewed on disk", () => {
  test("signs the next leaves, without a restart and without dropping a connection", async () => {
    const [first, second] = [
      await TestAuthority.create("first"),
      await TestAuthority.create("second"),
    ];
    const secret = await MountedSecret.mount(first);
    const proxy = await start({ caDir: secret.directory });
    expect(await issuer(proxy)).toContain("first");
    const open = await proxy.http1(at, { ca: first.caPem });
    const http2 = await proxy.http2(at, { ca: first.caPem });
    await secret.swap(second);
    await eventually(async () => (await issuer(proxy)).includes("second"));
    // A client that trusts the new one alone accepts it, also for names that are served from the cache.
    const trusting = await proxy.tls(at, { ca: second.caPem });
    expect(trusting.authorized).toBe(true);
    trusting.destroy();
    expect((await open.exchange(`GET /open HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
    const stream = http2.request({ ":path": "/open-h2" });
    const status = await new Promise((resolve) => {
      stream.on("response", (headers) => resolve(headers[":status"]));
    });
    expect(status).toBe(200);
    open.close();
    http2.destroy();
    const expiry = await proxy.metric(/^authbridge_.*(?:ca|authority).*(?:expir|not_after)/i);
    const notAfter = Date.parse(new X509Certificate(second.certificatePem).validTo) / 1000;
    expect(Math.abs(expiry - notAfter)).toBeLessThanOrEqual(1);
  });

  test("and cannot be used leaves the last good one in force, and is named in the log", async () => {
    const [first, second] = [
      await TestAuthority.create("first"),
      await TestAuthority.create("second"),
    ];
    const secret = await MountedSecret.mount(first);
    const proxy = await start({ caDir: secret.directory });
    await secret.swap(second, { "tls.key": first.keyPem });
    const line = await proxy.log((log) => JSON.stringify(log).includes("the last good one stays"));
    expect(JSON.stringify(line)).toMatch(/key/);
    expect(await issuer(proxy)).toContain("first");
    // It mends itself with the next good set.
    await secret.swap(second);
    await eventually(async () => (await issuer(proxy)).includes("second"));
  });

  test("is followed when files are replaced one by one, too", async () => {
    const [first, second] = [
      await TestAuthority.create("first"),
      await TestAuthority.create("second"),
    ];
    const directory = await first.write();
    own.push({ close: () => rm(directory, { recursive: true, force: true }) });
    const proxy = await start({ caDir: directory });
    await second.write(directory);
    await eventually(async () => (await issuer(proxy)).includes("second"));
    const socket = await proxy.tls(at, { ca: second.caPem });
    expect(socket.authorized).toBe(true);
    socket.destroy();
  });
});

interface Status {
  readonly reloads_ok: number;
  readonly reloads_failed: number;
  readonly last_error: string;
}

async function status(proxy: BridgeProxy): Promise<Status> {
  return JSON.parse((await proxy.stats("/reload/status")).text) as Status;
}

/** Replaces the file and waits until it was applied or refused. */
async function reload(proxy: BridgeProxy, options: Partial<BridgeOptions>): Promise<Status> {
  const before = await status(proxy);
  await proxy.rewrite({ ...base(), ...options });
  return eventually(async () => {
    const now = await status(proxy);
    const isOver = now.reloads_ok > before.reloads_ok || now.reloads_failed > before.reloads_failed;
    return isOver && now;
  });
}

describe("a reload (Z21)", () => {
  test("of passthrough_hosts, ports and mode is applied to the next connections", async () => {
    const proxy = await start();
    const ours = await issuer(proxy);
    expect(ours).not.toContain("test root");
    const open = await proxy.http1(at);
    const changes: Partial<BridgeOptions>[] = [
      { bridge: { passthrough_hosts: [allowed] } },
      { ports: [9443] },
      { bridge: { mode: "disabled" } },
    ];
    for (const change of changes) {
      expect((await reload(proxy, change)).last_error).toBe("");
      expect(await issuer(proxy)).toContain("test root");
      // What was opened stays opened: nobody hands its decrypted half to a tunnel.
      expect((await open.exchange(`GET /open HTTP/1.1\r\nHost: ${at}\r\n\r\n`)).status).toBe(200);
      expect((await reload(proxy, {})).last_error).toBe("");
      expect(await issuer(proxy)).toBe(ours);
    }
    open.close();
  });

  test("keeps the authority: clients need not trust another one", async () => {
    const ephemeral = { ca: "ephemeral", ca_dir: undefined, generate_ca: undefined };
    const alone = oneThread("each thread mints leaves of its own", {});
    const proxy = await start({ bridge: ephemeral, file: alone });
    const leaf = async (): Promise<string> => {
      const socket = await proxy.tls(at, { rejectUnauthorized: false });
      const fingerprint = socket.getPeerX509Certificate()?.fingerprint256 ?? "";
      socket.destroy();
      return fingerprint;
    };
    const before = await leaf();
    const change = { ...ephemeral, passthrough_hosts: ["pinned.test"] };
    expect((await reload(proxy, { bridge: change, file: alone })).last_error).toBe("");
    expect(await leaf()).toBe(before);
  });

  test("that cannot be applied changes nothing", async () => {
    const proxy = await start();
    const ours = await issuer(proxy);
    const refused = await reload(proxy, { bridge: { passthrough_hosts: ["[invalid"] } });
    expect(refused.last_error).toMatch(/passthrough_hosts/);
    expect(await issuer(proxy)).toBe(ours);
  });

  test("that revokes a host ends what is open to it, and only that", async () => {
    const only = (...hosts: string[]): unknown[] => [{ name: "only-hosts", config: { hosts } }];
    const proxy = await start({ plugins: only(allowed, "www.allowed.test") });
    const revoked = new RawClient(await proxy.tls(at));
    const kept = new RawClient(await proxy.tls(origin.at("www.allowed.test")));
    const seen = origin.seen.length;
    expect((await reload(proxy, { plugins: only("www.allowed.test") })).last_error).toBe("");
    // Cut, or refused by the rules that are in force now.
    const answer = await revoked
      .exchange(`GET /revoked HTTP/1.1\r\nHost: ${at}\r\n\r\n`)
      .catch(() => ({ status: 403 }));
    expect(answer.status).toBe(403);
    expect(origin.seen.length).toBe(seen);
    const other = await kept.exchange(
      `GET /kept HTTP/1.1\r\nHost: ${origin.at("www.allowed.test")}\r\n\r\n`,
    );
    expect(other.status).toBe(200);
    revoked.close();
    kept.close();
  });
});
