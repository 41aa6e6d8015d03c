/** Bundles that are signed, that are source, and that come by way of redirects, through the whole program. */
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { allowingModule, bundleOf, type Files, signatureOf } from "../support/bundles.ts";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { fixture } from "../support/opa-cases.ts";
import { BundleServer } from "../support/opa-server.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith, type Settings } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let folder: string;
let origin: HttpOrigin;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "authbridge-bundles-test-"));
  origin = await own(HttpOrigin.launch());
});
afterAll(() => rm(folder, { recursive: true }));

const fileOf = (config: Settings): Settings => settings(outbound({ name: "opa", config }));
const start = (config: Settings): Promise<ProxyProcess> => own(ProxyProcess.start(fileOf(config)));
const ask = async (proxy: ProxyProcess): Promise<number> =>
  (await get(proxy.forward, `${origin.url}/false`, { Connection: "close" })).status;

async function problemOf(config: Settings): Promise<string> {
  const { code, stderr } = await runWith("check", fileOf(config));
  expect(code).toBe(2);
  return stderr;
}

async function put(name: string, bytes: Buffer | string, mode = 0o644): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  await chmod(path, mode);
  return path;
}

const files = (): Files => ({
  "policy.wasm": allowingModule(),
  "data.json": "{}",
  ".manifest": '{"revision":"1","roots":[""]}',
});
const secret = "a secret of the signer";
const signing = { alg: "HS256", key: secret, kid: "site", scope: "read" };
const verification = { keys: { site: { algorithm: "HS256", key: secret, scope: "read" } } };

describe("signatures", () => {
  test("a signed bundle is used; one that is not, or was changed, is refused with its place", async () => {
    const signed = await put("signed.tar.gz", bundleOf(files(), signing));
    const proxy = await start({ bundle_path: signed, verification });
    expect(await ask(proxy)).toBe(200);
    const plain = await put("plain.tar.gz", bundleOf(files()));
    expect(await problemOf({ bundle_path: plain, verification })).toMatch(
      /bundle_path.*the bundle is not signed, and verification asks for a signature/,
    );
    expect(await problemOf({ bundle_path: signed })).toMatch(/set verification/);
    const stale = { ".signatures.json": signatureOf(files(), signing) };
    const changed = bundleOf({ ...files(), "data.json": '{"a":1}', ...stale });
    expect(
      await problemOf({ bundle_path: await put("changed.tar.gz", changed), verification }),
    ).toMatch(/"data\.json" is not the file that was signed/);
  });

  test("a folder is verified whole, and a key file is read when it is needed", async () => {
    const bundle = join(folder, "signed");
    await mkdir(bundle);
    const all = { ...files(), "notes.txt": "hello" };
    for (const [name, content] of Object.entries(all)) await put(`signed/${name}`, content);
    await put("signed/.signatures.json", signatureOf(all, signing));
    const key = await put("site.key", `${secret}\n`);
    const keys = { site: { algorithm: "HS256", key_file: key, scope: "read" } };
    const proxy = await start({ bundle_path: bundle, verification: { keys, keyid: "site" } });
    expect(await ask(proxy)).toBe(200);
    await put("signed/more.txt", "not signed");
    await eventually(async () => {
      expect(await ask(proxy)).toBe(200);
      return proxy.logs.some(({ problem }) => String(problem).includes('"more.txt" is not in'));
    });
  });

  test("a bundle of a server that lost its signature does not take the place of the last good one", async () => {
    const server = await own(new BundleServer(bundleOf(files(), signing), '"1"').listen());
    const proxy = await start({
      bundle_url: server.url,
      bundle_resource: "b.tar.gz",
      polling_min_delay: 0.1,
      polling_max_delay: 0.2,
      verification,
    });
    await eventually(async () => (await proxy.health("/readyz")).status === 200);
    server.put(fixture("cases").bytes, '"2"');
    await eventually(() =>
      proxy.logs.some(({ problem }) => String(problem).includes("is not signed")),
    );
    expect(await ask(proxy)).toBe(200);
  });

  test.each([
    [{ keys: {} }, /verification\.keys.*names no key/],
    [{ keys: { a: {} } }, /needs one of key and key_file/],
    [{ keys: { a: { key: "x" } } }, /verification\.keys\.a\.key.*no public key in PEM/],
    [{ keys: verification.keys, keyid: "b" }, /keyid.*is not an id of keys/],
    [{ keys: verification.keys, exclude_files: ["["] }, /exclude_files.*is not a glob/],
  ])("a bad key is found when the file is read: %j", async (bad, problem) => {
    const path = fixture("allow").path;
    expect(await problemOf({ bundle_path: path, verification: bad })).toMatch(problem);
  });
});

describe("Rego source", () => {
  const rego = fixture("rego");

  test("is compiled by the program that the file names", async () => {
    const program = await put(
      "opa",
      `#!/bin/sh\nexec /bin/cp ${fixture("allow").path} bundle.tar.gz\n`,
      0o755,
    );
    const proxy = await start({ bundle_path: rego.path, compiler: program });
    expect(await ask(proxy)).toBe(200);
    const server = await own(new BundleServer(rego.bytes, '"1"').listen());
    const served = await start({ bundle_url: server.url, bundle_resource: "b", compiler: program });
    await eventually(async () => (await served.health("/readyz")).status === 200);
    expect(await ask(served)).toBe(200);
  });

  test("that cannot be compiled refuses the start and a reload, and without a program it is told how", async () => {
    const program = await put("bad", "#!/bin/sh\necho 'rego_type_error' >&2; exit 1\n", 0o755);
    const proxy = await start({ bundle_path: fixture("allow").path });
    expect(
      await proxy.refusedReload(fileOf({ bundle_path: rego.path, compiler: program })),
    ).toMatch(/the policy cannot be compiled: rego_type_error/);
    expect(await ask(proxy)).toBe(200);
    expect(await problemOf({ bundle_path: rego.path })).toMatch(
      /set compiler to an opa program, or build it with `opa build -t wasm/,
    );
    expect(await problemOf({ bundle_path: rego.path, compiler: "/no/opa" })).toMatch(
      /config\.compiler.*cannot be run/,
    );
    expect(await problemOf({ server_url: "http://127.0.0.1:1", compiler: program })).toMatch(
      /compiler.*has no effect with server_url/,
    );
  });
});

describe("redirects", () => {
  /** A server that sends everybody somewhere else. */
  async function redirecting(to: (url: string) => string) {
    const asked: IncomingMessage["headers"][] = [];
    const server = createServer((request, response) => {
      asked.push(request.headers);
      response.writeHead(307, { Location: to(request.url ?? "") });
      response.end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const close = (): Promise<void> =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    return own(Promise.resolve({ url, asked, close }));
  }

  test.each([
    ["a file", (path: string) => ({ bearer_token_file: path })],
    ["a source", (path: string) => ({ bearer_token: { type: "file", path } })],
  ])(
    "lead to origins that the file names, without the token of %s; others are not asked",
    async (_from, tokenOf) => {
      const store = await own(new BundleServer(fixture("allow").bytes, '"1"').listen());
      const front = await redirecting(() => `${store.url}/object`);
      const token = await put("token", "for-the-front");
      const config = {
        bundle_url: front.url,
        bundle_resource: "b",
        ...tokenOf(token),
        polling_min_delay: 0.1,
        polling_max_delay: 0.2,
      };
      const proxy = await start({ ...config, redirect_origins: [store.url] });
      await eventually(async () => (await proxy.health("/readyz")).status === 200);
      expect(front.asked[0]?.["authorization"]).toBe("Bearer for-the-front");
      expect(store.asked[0]?.url).toBe("/object");
      expect(store.asked[0]?.headers["authorization"]).toBeUndefined();
      const before = store.asked.length;
      const strict = await start({ ...config, polling_min_delay: 30, polling_max_delay: 60 });
      await strict.log(({ problem }) => String(problem).includes("is not an origin"));
      expect(await ask(strict)).toBe(503);
      expect(
        store.asked.slice(before).filter(({ headers }) => headers["if-none-match"] === undefined),
      ).toEqual([]);
    },
  );

  test("that lead in a circle end", async () => {
    const circle = await redirecting((url) => url);
    const proxy = await start({ bundle_url: circle.url, bundle_resource: "b" });
    await proxy.log(({ problem }) => String(problem).includes("redirects more than 5 times"));
    expect(await ask(proxy)).toBe(503);
  });
});
