/** Whom the bridge opens connections of, whom it believes, who believes it, and what it says when somebody does not. */
import { owner } from "../support/owner.ts";
import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BridgeOptions, BridgeProxy, handshake } from "../support/bridge-proxy.ts";
import { expired, temporaryDirectory, TestAuthority } from "../support/certs.ts";
import { clientHello, records } from "../support/client-hello.ts";
import { oneThread } from "../support/program.ts";
import { TlsOrigin } from "../support/tls-origin.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually, within } from "../support/eventually.ts";

const allowed = "api.allowed.test";
const witness = { name: "bridge-witness", config: { file: "seen.jsonl" } };

let authority: TestAuthority;
let origin: TlsOrigin;
let proxy: BridgeProxy;
let at: string;
const own = owner();

function start(options: Partial<BridgeOptions> = {}): Promise<BridgeProxy> {
  return own(BridgeProxy.start({ ports: [origin.port], originCa: authority.caPem, ...options }));
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  const names = [allowed, "www.allowed.test", "pinned.test", "a.pinned.test"];
  origin = await TlsOrigin.start(await authority.server(names));
  at = origin.at(allowed);
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    bridge: { passthrough_hosts: ["*.pinned.test", "Pinned.Test"] },
    names: ["a.pinned.test", "a.b.pinned.test", "notpinned.test", "pinned.test.evil.test"],
    plugins: [witness],
  });
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
});

describe("what is not bridged", () => {
  test("is a port that the list does not name (I7, I8)", async () => {
    const fresh = await start({ ports: [9443] });
    const socket = await fresh.tls(at, { ca: authority.caPem });
    const answer = await new RawClient(socket).exchange(
      `GET /direct HTTP/1.1\r\nHost: ${at}\r\n\r\n`,
    );
    expect(answer.text).toBe("OK-SECRET");
    expect(socket.getPeerX509Certificate()?.issuer).toContain("test root");
    socket.destroy();
  });

  test.each(["pinned.test", "PINNED.test"])(
    "is a passthrough host, in any case: %s",
    async (host) => {
      const socket = await proxy.tls(origin.at(host), { ca: authority.caPem });
      const answer = await new RawClient(socket).exchange(
        `GET /pinned HTTP/1.1\r\nHost: ${origin.at("pinned.test")}\r\n\r\n`,
      );
      expect(answer.text).toBe("OK-SECRET");
      const notes = await proxy.records("seen.jsonl");
      expect(notes.some((note) => note["path"] === "/pinned")).toBe(false);
      socket.destroy();
    },
  );

  test.each([
    ["a.pinned.test", true],
    ["a.b.pinned.test", false],
    ["notpinned.test", false],
    ["pinned.test.evil.test", false],
  ])("is a name that a pattern covers label by label: %s: %s", async (host, passes) => {
    const socket = await proxy.tls(origin.at(host), { rejectUnauthorized: false });
    const issuer = socket.getPeerX509Certificate()?.issuer ?? "";
    expect(issuer.includes("test root")).toBe(passes);
    socket.destroy();
  });

  test("is a host in skip_hosts, which nobody is asked about (I7)", async () => {
    const listener = {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
      skip_hosts: [allowed],
    };
    const fresh = await start({ plugins: [witness], file: { listener } });
    const socket = await fresh.tls(at, { ca: authority.caPem });
    expect(socket.authorized).toBe(true);
    expect(await fresh.records("seen.jsonl")).toEqual([]);
    socket.destroy();
  });

  describe("like a server that speaks first", () => {
    let smtp: Server;
    beforeAll(async () => {
      smtp = createServer((socket) => {
        socket.on("error", () => undefined);
        socket.write("220 mail.test ESMTP\r\n");
        socket.on("data", (chunk: Buffer) => socket.write(`250 ${chunk.toString()}`));
      });
      smtp.listen(0, "127.0.0.1");
      await once(smtp, "listening");
    });
    afterAll(() => {
      smtp.close();
    });

    test("on another port, is heard at once (Z16)", async () => {
      const { port } = smtp.address() as AddressInfo;
      const wire = new RawClient(await proxy.tunnel(`127.0.0.1:${port}`));
      expect(await wire.reader.until("\r\n")).toBe("220 mail.test ESMTP\r\n");
      wire.send("EHLO agent\r\n");
      expect(await wire.reader.until("\r\n")).toBe("250 EHLO agent\r\n");
      wire.close();
    });
  });

  test.each([
    ["SSH", "SSH-2.0-OpenSSH_9.0\r\n"],
    ["two bytes", "\u0000\u0001"],
  ])(
    "nor TLS nor HTTP is refused on a bridged port: %s (I7, I13, FRONT-15)",
    async (_what, bytes) => {
      const connections = origin.accepted;
      const wire = new RawClient(await proxy.tunnel(at));
      wire.send(bytes);
      wire.socket.end();
      const said = (await wire.reader.toEnd()).toString("latin1");
      expect(said === "" || / 400 /.test(said)).toBe(true);
      expect(origin.accepted).toBe(connections);
    },
  );

  test("is plain HTTP on a bridged port: each request is judged, for the tunnel's host alone (FRONT-15)", async () => {
    const connections = origin.accepted;
    const wire = new RawClient(await proxy.tunnel(at));
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.socket.end();
    expect((await wire.reader.toEnd()).toString("latin1")).toMatch(/^HTTP\/1\.1 421 /);
    expect(origin.accepted).toBe(connections);
  });

  test("nor TLS nor HTTP is named in the log (I13)", async () => {
    const fresh = await start();
    const wire = new RawClient(await fresh.tunnel(at));
    wire.send("SSH-2.0-OpenSSH_9.0\r\n");
    await wire.reader.toEnd();
    const line = await fresh.log((log) => JSON.stringify(log).includes("tls.not-tls"));
    expect(JSON.stringify(line)).toContain(allowed);
  });
});

describe("an origin that cannot be verified", () => {
  let unknown: TlsOrigin;
  let misnamed: TlsOrigin;
  let outdated: TlsOrigin;

  beforeAll(async () => {
    const stranger = await TestAuthority.create("stranger");
    unknown = await TlsOrigin.start(await stranger.server([allowed, "www.allowed.test"]));
    misnamed = await TlsOrigin.start(await authority.server(["other.test"]));
    outdated = await TlsOrigin.start(await authority.server([allowed], expired()));
  });
  afterAll(async () => {
    for (const one of [unknown, misnamed, outdated]) await one.close();
  });

  test.each([
    ["an unknown authority", () => unknown],
    ["another name", () => misnamed],
    ["an expired certificate", () => outdated],
  ])("for %s is answered for with 502, the reason and the key (I11, CRED-04)", async (_why, of) => {
    const target = of();
    const fresh = await start({ ports: [target.port] });
    const answer = await fresh.get(target.at(allowed), "/x", "Authorization: Bearer secret\r\n");
    expect(answer.status).toBe(502);
    const body = JSON.parse(answer.text) as { error: string; message: string };
    expect(body.error).toBe("upstream.tls");
    expect(body.message).toMatch(/tls_bridge\.upstream_ca_bundle/);
    expect(target.seen).toHaveLength(0);
    expect(fresh.stderr).not.toContain("Bearer secret");
  });

  test("stays refused, however often it is tried (I11)", async () => {
    const fresh = await start({ ports: [unknown.port] });
    for (let count = 0; count < 5; count += 1) {
      expect((await fresh.get(unknown.at(allowed), "/again")).status).toBe(502);
    }
    expect(unknown.seen).toHaveLength(0);
  });

  test("is tunnelled only where the file says on_failure: tunnel (I11)", async () => {
    const fresh = await start({
      ports: [unknown.port],
      bridge: { on_failure: "tunnel" },
      file: oneThread("each remembers what failed", {}),
    });
    const target = unknown.at(allowed);
    // The origin is dialled by the first request: that one is refused, and the host is remembered.
    const issuers: string[] = [];
    for (let count = 0; count < 2; count += 1) {
      const socket = await fresh.tls(target, { rejectUnauthorized: false });
      issuers.push(socket.getPeerX509Certificate()?.issuer ?? "");
      if (issuers.at(-1)?.includes("stranger") === true) {
        socket.destroy();
        break;
      }
      const answer = await new RawClient(socket).exchange(
        `GET /probe HTTP/1.1\r\nHost: ${target}\r\n\r\n`,
      );
      expect(answer.status).toBe(502);
      socket.destroy();
    }
    expect(issuers.at(-1)).toContain("stranger");
    expect(unknown.requestsFor("/probe")).toHaveLength(0);
  });

  test("is served where the file names it as insecure, with a warning", async () => {
    const fresh = await start({
      ports: [unknown.port],
      bridge: { upstream_insecure_hosts: [allowed] },
    });
    expect((await fresh.get(unknown.at(allowed), "/insecure")).text).toBe("OK-SECRET");
    await fresh.log((line) => JSON.stringify(line).includes("upstream_insecure_hosts"));
    const other = await fresh.get(unknown.at("www.allowed.test"), "/other");
    expect(other.status).toBe(502);
  });
});

describe("a client that rejects the leaf", () => {
  /** A handshake that ends in unknown_ca, as a pinning client sends it. */
  async function reject(through: BridgeProxy): Promise<void> {
    const wire = new RawClient(await through.tunnel(at));
    wire.send(records(clientHello({ sni: allowed })));
    await wire.reader.exactly(5);
    wire.send(Buffer.of(21, 3, 3, 0, 2, 2, 48));
    await wire.reader.toEnd();
  }

  test("is told about in the log and in a metric, with the two ways out (I12)", async () => {
    const fresh = await start();
    await reject(fresh);
    const line = JSON.stringify(
      await fresh.log((log) => JSON.stringify(log).includes("unknown_ca")),
    );
    expect(line).toContain(allowed);
    expect(line).toContain("ca.crt");
    expect(line).toContain("passthrough_hosts");
    expect(await fresh.metric(/^authbridge_.*reject/)).toBeGreaterThanOrEqual(1);
  });

  test("gets the leaf again, and never a tunnel (I12)", async () => {
    const fresh = await start();
    const connections = origin.accepted;
    await reject(fresh);
    const socket = await fresh.tls(at);
    const ca = new X509Certificate(fresh.ca);
    expect(socket.getPeerX509Certificate()?.verify(ca.publicKey)).toBe(true);
    expect(origin.accepted).toBe(connections);
    socket.destroy();
  });

  test("is tunnelled at its retry where the file says on_failure: tunnel (I12)", async () => {
    const fresh = await start({
      bridge: { on_failure: "tunnel" },
      plugins: [witness],
      file: oneThread("each remembers who refused", {}),
    });
    await reject(fresh);
    const socket = await fresh.tls(at, { ca: authority.caPem });
    const answer = await new RawClient(socket).exchange(`GET /pin HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    expect(answer.text).toBe("OK-SECRET");
    const notes = await fresh.records("seen.jsonl");
    expect(notes.filter((note) => note["stage"] === "request")).toEqual([]);
    socket.destroy();
    // Other hosts are not affected.
    const other = await fresh.tls(origin.at("www.allowed.test"));
    expect(other.authorized).toBe(true);
    other.destroy();
  });
});

describe("the leaf", () => {
  const alone = { file: oneThread("each thread mints its own leaves, with a key of its own", {}) };

  test("chains to the CA, names the host, and is served again from the cache (I15, I16)", async () => {
    const fresh = await start(alone);
    const [first, second] = [await fresh.tls(at), await fresh.tls(at)];
    const leaf = first.getPeerX509Certificate();
    const ca = new X509Certificate(fresh.ca);
    expect(leaf?.subjectAltName).toBe(`DNS:${allowed}`);
    expect(leaf?.checkIssued(ca) === true && leaf.verify(ca.publicKey)).toBe(true);
    expect(leaf?.keyUsage).toContain("1.3.6.1.5.5.7.3.1");
    expect(second.getPeerX509Certificate()?.fingerprint256).toBe(leaf?.fingerprint256);
    first.destroy();
    second.destroy();
  });

  test("differs from name to name, with one key", async () => {
    const fresh = await start(alone);
    const [one, two] = [await fresh.tls(at), await fresh.tls(origin.at("www.allowed.test"))];
    const [first, second] = [one.getPeerX509Certificate(), two.getPeerX509Certificate()];
    if (first === undefined || second === undefined) throw new Error("no certificates");
    expect(first.serialNumber).not.toBe(second.serialNumber);
    expect(first.publicKey.equals(second.publicKey)).toBe(true);
    one.destroy();
    two.destroy();
  });

  test("has the lifetime and the key of the file", async () => {
    const fresh = await start({ bridge: { leaf_lifetime: "2h", key_type: "rsa-2048" } });
    const socket = await fresh.tls(at);
    const leaf = socket.getPeerX509Certificate();
    expect(leaf?.publicKey.asymmetricKeyType).toBe("rsa");
    const hours = (Date.parse(leaf?.validTo ?? "") - Date.now()) / 3_600_000;
    expect(hours).toBeGreaterThan(1.9);
    expect(hours).toBeLessThan(3.1);
    socket.destroy();
  });

  test("is not shown below the least version", async () => {
    const fresh = await start({ bridge: { min_version: "1.3" } });
    await expect(fresh.tls(at, { maxVersion: "TLSv1.2" })).rejects.toThrow();
    const socket = await fresh.tls(at);
    expect(socket.getProtocol()).toBe("TLSv1.3");
    socket.destroy();
  });

  test.each([
    ["1.2", 200],
    ["1.3", 502],
  ])("min_version %s is asked of origins as well", async (min_version, status) => {
    const certificate = { ...(await authority.server([allowed])), maxVersion: "TLSv1.2" };
    const old = await own(TlsOrigin.start(certificate));
    const fresh = await start({ ports: [old.port], bridge: { min_version } });
    expect((await fresh.get(old.at(allowed), "/old")).status).toBe(status);
  });

  test("is not needed twice: the second handshake resumes", async () => {
    const first = await proxy.tls(at);
    const session = once(first, "session") as Promise<[Buffer]>;
    await new RawClient(first).exchange(`GET /resume HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
    const [ticket] = await within("a ticket", session);
    const second = await proxy.tls(at, { session: ticket });
    expect(second.isSessionReused()).toBe(true);
    first.destroy();
    second.destroy();
  });
});

describe("the authority", () => {
  test("is generated whole, with a private key that only its owner reads (I17)", async () => {
    const directory = proxy.path("ca");
    expect((await readdir(directory)).sort()).toEqual(["ca.crt", "tls.crt", "tls.key"]);
    expect((await stat(join(directory, "tls.key"))).mode & 0o077).toBe(0);
    expect(await readFile(join(directory, "ca.crt"), "utf8")).toBe(
      await readFile(join(directory, "tls.crt"), "utf8"),
    );
  });

  test("is used as it is at the next start (I19)", async () => {
    const caDir = await (await TestAuthority.create("kept")).write();
    const before = await readFile(join(caDir, "tls.key"), "utf8");
    const fresh = await start({ caDir, bridge: { generate_ca: true } });
    const ca = await readFile(join(caDir, "ca.crt"), "utf8");
    const socket = await fresh.tls(at, { ca });
    expect(socket.authorized).toBe(true);
    expect(await readFile(join(caDir, "tls.key"), "utf8")).toBe(before);
    socket.destroy();
  });

  test("is made anew when a file of the set is missing (I21)", async () => {
    const caDir = await temporaryDirectory();
    await writeFile(join(caDir, "ca.crt"), "left over\n");
    const fresh = await start({ caDir, bridge: { generate_ca: true } });
    const socket = await fresh.tls(at, { ca: await readFile(join(caDir, "ca.crt"), "utf8") });
    expect(socket.authorized).toBe(true);
    socket.destroy();
  });

  test.each(["ecdsa-p256", "rsa-2048"] as const)(
    "may be below an intermediate, with %s keys (I22)",
    // Several RSA keys are made, by luck.
    { timeout: 60_000 },
    async (keyType) => {
      const root = await TestAuthority.create("root", keyType);
      const caDir = await (await root.intermediate("between", keyType)).write();
      const fresh = await start({ caDir });
      const socket = await fresh.tls(at, { ca: root.caPem });
      expect(socket.authorized).toBe(true);
      socket.destroy();
    },
  );

  test("is nowhere on disk when it is ephemeral, and the log says what that means", async () => {
    const bridge = { ca: "ephemeral", ca_dir: undefined, generate_ca: undefined };
    const fresh = await start({ bridge });
    // The compiled code of the program is kept below the home of its user.
    const kept = (await readdir(fresh.directory)).filter((name) => name !== ".cache");
    expect(kept.sort()).toEqual(["origins.pem", "proxy.yaml"]);
    await fresh.log((line) => JSON.stringify(line).includes("another pod"));
    const socket = await handshake(await fresh.tunnel(at), at, { rejectUnauthorized: false });
    expect(socket.getPeerX509Certificate()?.subjectAltName).toBe(`DNS:${allowed}`);
    socket.destroy();
  });

  test("has its expiry in /metrics", async () => {
    const expiry = await proxy.metric(/^authbridge_.*(?:ca|authority).*(?:expir|not_after)/i);
    const notAfter = Date.parse(new X509Certificate(proxy.ca).validTo) / 1000;
    expect(Math.abs(expiry - notAfter)).toBeLessThanOrEqual(1);
  });

  describe("refuses the start", () => {
    const refused = async (caDir: string, bridge = {}): Promise<string> => {
      const { code, stderr } = await BridgeProxy.run("run", { ports: [443], caDir, bridge });
      expect(code).toBe(2);
      return stderr;
    };

    test("when there is none and none may be made (I18)", async () => {
      expect(await refused(await temporaryDirectory())).toMatch(/generate_ca|tls\.crt/);
    });

    test("when its files are garbage, which stays as it is (I20)", async () => {
      const caDir = await temporaryDirectory();
      for (const name of ["tls.crt", "tls.key", "ca.crt"]) {
        await writeFile(join(caDir, name), "garbage\n", { mode: 0o600 });
      }
      expect(await refused(caDir, { generate_ca: true })).toMatch(/tls\.(?:crt|key)/);
      expect(await readFile(join(caDir, "tls.key"), "utf8")).toBe("garbage\n");
    });

    test("when its certificate is no authority's (I22)", async () => {
      const caDir = await authority.write();
      const { cert, key } = await authority.server([allowed]);
      await writeFile(join(caDir, "tls.crt"), cert);
      await writeFile(join(caDir, "tls.key"), key, { mode: 0o600 });
      expect(await refused(caDir)).toMatch(/CA/);
    });

    test("when its key belongs to another certificate (I22)", async () => {
      const caDir = await authority.write();
      const other = await TestAuthority.create("other");
      await writeFile(join(caDir, "tls.key"), other.keyPem, { mode: 0o600 });
      expect(await refused(caDir)).toMatch(/key/);
    });

    test("when it has expired", async () => {
      const caDir = await (await TestAuthority.create("old", "ecdsa-p256", expired())).write();
      expect(await refused(caDir)).toMatch(/expired/);
    });

    test("when the bundle of origins' authorities cannot be used", async () => {
      const bridge = { upstream_ca_bundle: "/does/not/exist.pem" };
      const { code, stderr } = await BridgeProxy.run("run", { ports: [443], bridge });
      expect(code).toBe(2);
      expect(stderr).toMatch(/upstream_ca_bundle/);
    });
  });
});

test("what a client of the bridge aborts is never a reason to stop", async () => {
  const fresh = await start();
  for (let count = 0; count < 20; count += 1) (await fresh.tunnel(at)).destroy();
  await eventually(async () => {
    const text = (await fresh.stats("/metrics")).text;
    return /^authbridge_active_tunnels 0$/m.test(text);
  });
  expect((await fresh.get(at, "/alive")).status).toBe(200);
});
