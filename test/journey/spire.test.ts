/**
 * The story of docs/identity.md against SPIRE itself, whose programs `SPIRE_HOME` names; skipped where there is none.
 * `.ci/spire` builds them and runs this file.
 */
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from "jose";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { Spire, type Workload } from "../support/spire.ts";

const home = process.env["SPIRE_HOME"] ?? "";
const own = owner();
const audience = "https://idp.test/realms/agents";
const inMinutes = 300_000;
/** The shortest lives that still are some of an agent's rounds of five seconds. */
const shortTtl = 30;

let spire: Spire;
let origin: HttpOrigin;

/** A workload and its proxy, with a folder that the SVIDs are mirrored to. */
interface Sidecar {
  readonly proxy: ProxyProcess;
  read(name: string): Promise<string>;
  ready(): Promise<string>;
  rotations(item: string): Promise<number>;
}

async function sidecar({ node }: Workload, over?: Settings): Promise<Sidecar> {
  const directory = await mkdtemp(join(tmpdir(), "spire-mirror-"));
  await own({ close: () => rm(directory, { recursive: true, force: true }) });
  const identity = { type: "spiffe", jwt_audience: audience };
  const file = merge(over ?? outbound({ name: "identified", config: { identity } }), {
    spiffe: { socket: spire.address, mirror_dir: directory },
    egress: { hosts: { "api.test": ["127.0.0.1"] } },
  });
  const proxy = await own(ProxyProcess.start(settings(file), { node }));
  return {
    proxy,
    read: (name) => readFile(join(directory, name), "utf8"),
    ready: async () => {
      const { status, text } = await proxy.health("/readyz");
      return `${status} ${text}`;
    },
    rotations: (item) => proxy.metric("authbridge_spiffe_rotations_total", { item }),
  };
}

async function untilReady(side: Sidecar): Promise<void> {
  await eventually(async () => (await side.ready()).startsWith("200"), inMinutes);
}

beforeAll(async () => {
  if (home === "") return;
  spire = await own(Spire.start(home));
  origin = await own(HttpOrigin.launch());
}, inMinutes);

describe.skipIf(home === "")("SPIRE", () => {
  test(
    "a workload that nobody has registered is not ready, and is once somebody has",
    async () => {
      const late = spire.workload("late");
      const side = await sidecar(late);
      await eventually(async () => {
        expect(await side.ready()).toMatch(
          /^503 spiffe: the agent refused: PermissionDenied, no identity issued/,
        );
      });
      await spire.register(late, 3_600);
      await untilReady(side);
      expect(new X509Certificate(await side.read("svid.pem")).subjectAltName).toBe(
        `URI:${late.spiffeId}`,
      );
    },
    inMinutes,
  );

  test(
    "two workloads of one node are two, and others can verify both",
    async () => {
      const workloads = ["one", "two"].map((name) => spire.workload(name));
      for (const workload of workloads) await spire.register(workload, 3_600);
      for (const workload of workloads) {
        const side = await sidecar(workload);
        await untilReady(side);
        await eventually(() => side.read("svid.pem"));
        const certificate = new X509Certificate(await side.read("svid.pem"));
        expect(certificate.subjectAltName).toBe(`URI:${workload.spiffeId}`);
        const folder = await mkdtemp(join(tmpdir(), "spire-verify-"));
        await own({ close: () => rm(folder, { recursive: true, force: true }) });
        for (const name of ["svid.pem", "svid_bundle.pem"])
          await writeFile(join(folder, name), await side.read(name));
        const { stdout } = await promisify(execFile)(
          "openssl",
          ["verify", "-CAfile", "svid_bundle.pem", "-untrusted", "svid.pem", "svid.pem"],
          { cwd: folder },
        );
        expect(stdout).toContain("svid.pem: OK");
        const token = await eventually(() => side.read("jwt_svid.token"));
        const { stdout: bundle } = await spire.server("bundle", "show", "-format", "spiffe");
        const { keys } = JSON.parse(bundle) as JSONWebKeySet;
        // "jwt-svid" is SPIFFE's own word, which libraries for JWTs do not know.
        const signing = keys.filter(({ use }) => use === "jwt-svid");
        const keySet = createLocalJWKSet({ keys: signing.map(({ use: _use, ...key }) => key) });
        const { payload } = await jwtVerify(token, keySet, { audience });
        expect(payload.sub).toBe(workload.spiffeId);
      }
    },
    inMinutes,
  );

  test(
    "SVIDs of seconds are renewed under traffic, which notices nothing",
    async () => {
      const short = spire.workload("short");
      await spire.register(short, shortTtl);
      const side = await sidecar(short);
      await untilReady(side);
      const statuses = new Map<number, number>();
      const tokens = new Set<string | undefined>();
      await eventually(async () => {
        const { status } = await get(side.proxy.forward, `http://api.test:${origin.port}/`);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        tokens.add(origin.requests.at(-1)?.header("authorization"));
        return (await side.rotations("x509_svid")) >= 4 && (await side.rotations("jwt_svid")) >= 4;
      }, inMinutes);
      expect([...statuses.keys()]).toEqual([200]);
      expect(tokens.size).toBeGreaterThanOrEqual(4);
      expect(await side.ready()).toMatch(/^200/);
      process.stdout.write(`${statuses.get(200)} requests over 4 rotations, all 200\n`);
    },
    inMinutes,
  );

  test(
    "an agent that dies is lived without until the SVID expires, and found again",
    async () => {
      const orphan = spire.workload("orphan");
      await spire.register(orphan, shortTtl);
      const side = await sidecar(orphan);
      await untilReady(side);
      await spire.killAgent();
      await eventually(
        async () =>
          (await side.proxy.metric("authbridge_spiffe_errors_total", { item: "x509_svid" })) > 0,
      );
      await eventually(async () => {
        expect(await side.ready()).toMatch(
          /^503 spiffe: the X\.509-SVID has expired at .*could not be reached/,
        );
      }, inMinutes);
      expect((await side.proxy.health("/healthz")).status).toBe(200);
      const before = await side.rotations("x509_svid");
      await spire.startAgent();
      await untilReady(side);
      expect(await side.rotations("x509_svid")).toBeGreaterThan(before);
    },
    inMinutes,
  );

  test(
    "a workload that calls another one with its JWT-SVID is let in, and others are not",
    async () => {
      const [caller, called] = ["caller", "called"].map((name) => spire.workload(name));
      if (caller === undefined || called === undefined) throw new Error();
      for (const workload of [caller, called]) await spire.register(workload, 3_600);
      const side = await sidecar(caller);
      await untilReady(side);
      const token = await eventually(() => side.read("jwt_svid.token"));
      const config = { issuer: `spiffe://${spire.trustDomain}`, audience };
      const guarded = await sidecar(
        called,
        merge(inbound({ name: "jwt-validation", config }), {
          listener: { reverse_proxy_backend: `http://127.0.0.1:${origin.port}` },
        }),
      );
      await untilReady(guarded);
      const call = async (bearer: string): Promise<number> => {
        const headers = { Authorization: `Bearer ${bearer}` };
        return (await get(guarded.proxy.reverse, "/", headers)).status;
      };
      expect(await call(token)).toBe(200);
      expect(await call(`${token.slice(0, -8)}AAAAAAAA`)).toBe(401);
    },
    inMinutes,
  );

  test.each(["strict", "permissive"])(
    "two sidecars speak mutual TLS through renewals, %s",
    async (mode) => {
      const workloads = ["front", "back", "third"].map((name) => spire.workload(`${name}-${mode}`));
      for (const workload of workloads) await spire.register(workload, shortTtl);
      const [front, back, third] = workloads;
      if (front === undefined || back === undefined || third === undefined) throw new Error();
      const called = await sidecar(back, {
        listener: {
          roles: ["reverse"],
          reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
        },
        mtls: { mode, allowed_spiffe_ids: [front.spiffeId] },
      });
      const strict = { listener: { roles: ["forward"] }, mtls: { mode: "strict" } };
      const caller = await sidecar(front, strict);
      const stranger = await sidecar(third, strict);
      for (const side of [called, caller, stranger]) await untilReady(side);
      const url = `http://api.test:${called.proxy.reverse.port}/`;
      const through = async ({ proxy }: Sidecar): Promise<number> =>
        (await get(proxy.forward, url)).status;
      const statuses = new Map<number, number>();
      await eventually(async () => {
        const status = await through(caller);
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        const rotations = await Promise.all(
          [called, caller].map((side) => side.rotations("x509_svid")),
        );
        return rotations.every((count) => count >= 3);
      }, inMinutes);
      expect([...statuses.keys()]).toEqual([200]);
      process.stdout.write(`${mode}: ${statuses.get(200)} requests over mutual TLS, all 200\n`);
      expect(await through(stranger)).toBeGreaterThanOrEqual(500);
      const plain = get(called.proxy.reverse, "/").then(
        ({ status }) => status,
        () => "closed",
      );
      expect(await plain).toBe(mode === "strict" ? "closed" : 200);
    },
    inMinutes,
  );

  test(
    "a new authority of the server, and the end of the old one, arrive without a restart",
    async () => {
      const steady = spire.workload("steady");
      const foreign = SpiffeAuthority.create("other.test");
      const folder = await mkdtemp(join(tmpdir(), "spire-foreign-"));
      await own({ close: () => rm(folder, { recursive: true, force: true }) });
      await writeFile(join(folder, "bundle.pem"), foreign.caPem);
      const path = join(folder, "bundle.pem");
      await spire.server("bundle", "set", "-id", "spiffe://other.test", "-path", path);
      await spire.register(steady, 3_600, "-federatesWith", "spiffe://other.test");
      const side = await sidecar(steady);
      await untilReady(side);
      await side.proxy.log((line) => line["trustDomain"] === "other.test");
      const old = await side.read("svid.pem");
      const authority = async (...args: string[]): Promise<string> =>
        (await spire.server("localauthority", "x509", ...args)).stdout;
      const idOf = (text: string, name: string): string =>
        new RegExp(`${name} X\\.509 authority:\\s+Authority ID: (\\w+)`, "i").exec(text)?.[1] ??
        text;
      const active = idOf(await authority("show"), "active");
      await authority("prepare");
      const prepared = idOf(await authority("show"), "prepared");
      await authority("activate", "-authorityID", prepared);
      await authority("taint", "-authorityID", active);
      await eventually(async () => (await side.read("svid.pem")) !== old, inMinutes);
      await authority("revoke", "-authorityID", active);
      await eventually(async () => {
        const bundle = await side.read("svid_bundle.pem");
        return bundle.split("BEGIN CERTIFICATE").length === 2;
      }, inMinutes);
      expect(await side.ready()).toMatch(/^200/);
    },
    inMinutes,
  );
});
