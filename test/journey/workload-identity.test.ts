/** Who the workload is, as the SPIFFE Workload API says: SVIDs, tokens, files, reloads, and agents that are not well. */
import { X509Certificate, createPrivateKey } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { beforeEach, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { oneThread, runWith, type Settings, testThreads } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { WorkloadApi } from "../support/workload-api.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const first = authority.svid("/agent");
const second = authority.svid("/agent");
const bundle = authority.caDer;
const identity = { type: "spiffe", jwt_audience: "https://idp.test/realms/agents" };
const identified = { name: "identified", config: { identity } };

let agent: WorkloadApi;
let directory: string;

beforeEach(async () => {
  agent = await own(WorkloadApi.start());
  agent.update({ svid: first, bundle });
  directory = await mkdtemp(join(tmpdir(), "mirror-"));
  await own({ close: () => rm(directory, { recursive: true, force: true }) });
});

function config(over: Settings = {}, socket = agent.address): Settings {
  const base = settings(outbound(identified));
  return merge(merge(base, { spiffe: { socket, mirror_dir: directory } }), over);
}

function start(over: Settings = {}): Promise<ProxyProcess> {
  return own(ProxyProcess.start(config(over)));
}

async function ready(proxy: ProxyProcess): Promise<string> {
  const { status, text } = await proxy.health("/readyz");
  return `${status} ${text}`;
}

const mirrored = (name: string): Promise<string> => readFile(join(directory, name), "utf8");

describe("a workload with an agent", () => {
  test("is ready, and its files are whole, private and of one set", async () => {
    const proxy = await start();
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    await eventually(async () => (await readdir(directory)).length === 4);
    expect((await readdir(directory)).sort()).toEqual([
      "jwt_svid.token",
      "svid.pem",
      "svid_bundle.pem",
      "svid_key.pem",
    ]);
    for (const name of await readdir(directory))
      expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
    const certificate = new X509Certificate(await mirrored("svid.pem"));
    expect(certificate.subjectAltName).toBe("URI:spiffe://example.org/agent");
    expect(certificate.checkPrivateKey(createPrivateKey(await mirrored("svid_key.pem")))).toBe(
      true,
    );
    expect(new X509Certificate(await mirrored("svid_bundle.pem")).raw).toEqual(bundle);
    expect(await mirrored("jwt_svid.token")).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
  });

  test("takes a new SVID without a restart, and says so", async () => {
    const proxy = await start();
    await eventually(
      async () =>
        (await proxy.metric("authbridge_spiffe_rotations_total", { item: "x509_svid" })) === 1,
    );
    agent.update({ svid: second, bundle });
    await eventually(async () => (await mirrored("svid_key.pem")) === second.key);
    await eventually(async () => (await mirrored("svid.pem")) === second.cert.replaceAll("\r", ""));
    expect(await proxy.metric("authbridge_spiffe_rotations_total", { item: "x509_svid" })).toBe(2);
    const expiry = await proxy.metric("authbridge_spiffe_svid_expiry_timestamp_seconds");
    expect(expiry * 1_000).toBe(Date.parse(new X509Certificate(second.cert).validTo));
    expect(agent.calls.filter((call) => call === "FetchX509SVID")).toHaveLength(1);
  });

  test("shows no key and no token in its log", async () => {
    const proxy = await start();
    await eventually(async () => (await readdir(directory)).length === 4);
    await proxy.log((line) => line.msg === "workload identity renewed");
    const { stderr } = proxy;
    expect(stderr).not.toContain("PRIVATE KEY");
    expect(stderr).not.toContain(await mirrored("jwt_svid.token"));
  });

  test("sends one JWT-SVID with all requests of its half-life", async () => {
    const origin = await own(HttpOrigin.launch());
    const file = { egress: { hosts: { "api.test": ["127.0.0.1"] } } };
    const proxy = await start(oneThread("each thread has JWT-SVIDs of its own", file));
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => get(proxy.forward, `http://api.test:${origin.port}/`)),
    );
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    const tokens = new Set(origin.requests.map((request) => request.header("authorization")));
    await eventually(async () => (await readdir(directory)).includes("jwt_svid.token"));
    expect([...tokens]).toEqual([`Bearer ${await mirrored("jwt_svid.token")}`]);
    expect(agent.audiences).toEqual([identity.jwt_audience]);
  });

  test("writes no files where the file says so, and serves where they cannot be written", async () => {
    const silent = await start({ spiffe: { mirror_files: false } });
    await eventually(async () => (await ready(silent)).startsWith("200"));
    expect(agent.calls).not.toContain("FetchX509SVID");
    const proxy = await start({ spiffe: { mirror_dir: join(directory, "nowhere") } });
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    await eventually(
      async () => (await proxy.metric("authbridge_spiffe_errors_total", { item: "mirror" })) > 0,
    );
    await proxy.log((line) => line["key"] === "spiffe.mirror_dir");
    expect(await readdir(directory)).toEqual([]);
  });

  test("A25: dials nothing that nothing needs", async () => {
    const unused = [
      outbound("plain"),
      outbound({ ...identified, on_error: "off" }),
      outbound({ name: "plain" }, { ...identified, on_error: "off" }),
    ];
    for (const pipeline of unused) {
      const proxy = await own(
        ProxyProcess.start(merge(settings(pipeline), { spiffe: { socket: agent.address } })),
      );
      expect(await ready(proxy)).toMatch(/^200/);
    }
    expect(agent.connections).toBe(0);
  });
});

describe("a caller with a JWT-SVID", () => {
  const audience = "spiffe://example.org/agent";

  async function signer(kid: string) {
    const { publicKey, privateKey } = await generateKeyPair("ES256", { extractable: true });
    return {
      jwk: { ...(await exportJWK(publicKey)), kid, use: "jwt-svid" },
      sign: (claims: JWTPayload = {}, typ?: string) =>
        new SignJWT({ sub: "spiffe://example.org/caller", aud: audience, ...claims })
          .setProtectedHeader({ alg: "ES256", kid, ...(typ === undefined ? {} : { typ }) })
          .setExpirationTime(claims.exp ?? "5m")
          .sign(privateKey),
    };
  }

  const keySet = (...keys: object[]): string => JSON.stringify({ keys });

  async function guarded(): Promise<ProxyProcess> {
    const origin = await own(HttpOrigin.launch());
    const over = {
      listener: { reverse_proxy_backend: `http://127.0.0.1:${origin.port}` },
      spiffe: { socket: agent.address },
    };
    const config = { issuer: "spiffe://example.org", audience };
    const file = merge(inbound({ name: "jwt-validation", config }), over);
    return own(ProxyProcess.start(settings(file)));
  }

  async function call(proxy: ProxyProcess, token: string): Promise<number> {
    return (await get(proxy.reverse, "/", { Authorization: `Bearer ${token}` })).status;
  }

  test("is let in by the keys of its trust domain, which are followed", async () => {
    const [one, two, elsewhere] = await Promise.all(["k1", "k2", "k3"].map(signer));
    if (one === undefined || two === undefined || elsewhere === undefined) throw new Error();
    const proxy = await guarded();
    await eventually(async () => (await ready(proxy)).startsWith("503"));
    agent.updateKeys({ "example.org": keySet(one.jwk), "other.test": keySet(elsewhere.jwk) });
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    const good = await one.sign({}, "JWT");
    expect(await call(proxy, good)).toBe(200);
    expect(await call(proxy, await one.sign())).toBe(200);
    expect(await call(proxy, await elsewhere.sign())).toBe(401);
    const wrong: readonly [JWTPayload, string?][] = [
      [{ sub: "spiffe://other.test/caller" }],
      [{ sub: "caller" }],
      [{ aud: "spiffe://example.org/somebody-else" }],
      [{ exp: 1 }],
      [{}, "at+jwt"],
    ];
    for (const [claims, typ] of wrong)
      expect(await call(proxy, await one.sign(claims, typ)), JSON.stringify(claims)).toBe(401);
    agent.updateKeys({ "example.org": keySet(two.jwk) });
    await eventually(async () => (await call(proxy, await two.sign())) === 200);
    await eventually(async () => (await call(proxy, good)) === 401);
    // Each thread that was asked has a stream of its own.
    expect(new Set(agent.calls)).toEqual(new Set(["FetchJWTBundles"]));
    expect(agent.calls.length).toBeLessThanOrEqual(testThreads);
  });

  test.each([
    ["needs the block", {}, /issuer: needs the block spiffe/],
    [
      "is no path",
      { issuer: "spiffe://example.org/agent" },
      /issuer: must be a SPIFFE trust domain/,
    ],
    ["has no discovery", { discovery: true }, /discovery: cannot be combined with a SPIFFE/],
  ])("a trust domain as issuer %s", async (_name, over, why) => {
    const config = { issuer: "spiffe://example.org", audience, ...over };
    const listener = { reverse_proxy_backend: "http://127.0.0.1:9" };
    const file = merge(inbound({ name: "jwt-validation", config }), { listener });
    const { code, stderr } = await runWith("check", settings(file));
    expect(stderr).toMatch(why);
    expect(code).toBe(2);
  });
});

describe("a reload", () => {
  test("keeps the stream of a socket that stays, and leaves one that does not", async () => {
    const other = await own(WorkloadApi.start());
    const elsewhere = SpiffeAuthority.create("other.test").svid("/agent");
    const alone = oneThread("each thread has a stream of its own", {});
    const proxy = await start(alone);
    await eventually(async () => (await readdir(directory)).length === 4);
    const { connections } = agent;
    await proxy.reload(config(merge(alone, { log: { level: "debug" } })));
    await proxy.reload(config(merge(alone, { spiffe: { mirror_files: false } })));
    await proxy.reload(config(alone));
    expect(agent.streams).toBe(1);
    expect(agent.connections).toBe(connections);
    other.update({ svid: elsewhere, bundle: SpiffeAuthority.create("other.test").caDer });
    await proxy.reload(config(alone, other.address));
    // Its SVID is refused, so that its stream ends and begins again.
    await eventually(() => agent.streams === 0 && other.calls.includes("FetchX509SVID"));
    await eventually(async () => (await ready(proxy)).startsWith("503 spiffe: "));
  });

  test("that needs no identity any more lets go of it", async () => {
    const proxy = await start();
    await eventually(() => agent.streams === 1);
    await proxy.reload(merge(settings(outbound("plain")), { spiffe: { socket: agent.address } }));
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    // The block is still there, and with it the stream that is of use to the next reload.
    await proxy.reload(settings(outbound("plain")));
    await eventually(() => agent.streams === 0);
    expect(await proxy.metric("authbridge_spiffe_svid_expiry_timestamp_seconds")).toBe(0);
  });

  test("that is refused leaves the agent alone", async () => {
    const proxy = await start();
    await eventually(() => agent.streams === 1);
    const other = await own(WorkloadApi.start());
    await proxy.refusedReload(
      merge(config({}, other.address), outbound({ name: "identified", config: { identity: {} } })),
    );
    expect(other.connections).toBe(0);
    expect(agent.streams).toBe(1);
  });
});

describe("an agent that is not well", () => {
  const manners = [
    ["is not there", undefined, /spiffe: unix:\/\/.*agent\.sock could not be reached: ENOENT/],
    ["speaks something else", "garbage", /spiffe: unix:\/\/.*agent\.sock does not speak HTTP\/2/],
    ["says nothing", "silence", /spiffe: the agent .*/],
  ] as const;

  test.each(manners)("that %s keeps the process up and not ready", async (_name, manner, why) => {
    await agent.stop();
    if (manner !== undefined) await agent.listen(manner);
    const proxy = await start();
    await eventually(async () => why.test(await ready(proxy)));
    expect((await proxy.health("/healthz")).status).toBe(200);
    expect((await proxy.stats("/metrics")).text).toContain("authbridge_ready 0");
    await agent.stop();
    await agent.listen();
    await eventually(async () => (await ready(proxy)).startsWith("200"));
  });

  test.each([
    [
      "10 MB",
      { raw: Buffer.concat([Buffer.from([0, 0, 0xa0, 0, 0]), Buffer.alloc(1_000_000)]) },
      "10485760 bytes",
    ],
    [
      "a refusal",
      { status: 7, words: "no identity issued" },
      "PermissionDenied, no identity issued",
    ],
  ])("that sends %s keeps the process up and not ready", async (_name, answer, why) => {
    agent.answerX509(answer);
    const proxy = await start();
    await eventually(async () => (await ready(proxy)).includes(why));
    agent.update({ svid: first, bundle });
    await eventually(async () => (await ready(proxy)).startsWith("200"));
  });

  test("that dies takes nothing with it, and is found again", async () => {
    const proxy = await start();
    await eventually(async () => (await ready(proxy)).startsWith("200"));
    await eventually(async () => (await readdir(directory)).length === 4);
    await agent.stop();
    await eventually(
      async () => (await proxy.metric("authbridge_spiffe_errors_total", { item: "x509_svid" })) > 0,
    );
    expect(await ready(proxy)).toMatch(/^200/);
    await agent.listen();
    agent.update({ svid: second, bundle });
    await eventually(async () => (await mirrored("svid_key.pem")) === second.key);
  });
});

describe("doctor", () => {
  test("says who this workload is, and leaves the files to the proxy", async () => {
    const { stdout } = await runWith("doctor", config());
    expect(stdout).toMatch(
      /spiffe +.*spiffe:\/\/example\.org\/agent, expires .*JWT-SVID for https:\/\/idp\.test/,
    );
    expect(await readdir(directory)).toEqual([]);
  });

  test("says why it is nobody", async () => {
    await agent.stop();
    const { stdout, code } = await runWith("doctor", config());
    expect(stdout).toMatch(/spiffe +.*ENOENT/);
    expect(stdout).toContain("its socket is mounted here");
    expect(code).toBe(1);
  });
});
