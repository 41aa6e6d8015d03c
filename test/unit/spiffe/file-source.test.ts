import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { FileX509Source } from "../../../src/spiffe/file-source.ts";
import { eventually } from "../../support/eventually.ts";
import { owner } from "../../support/owner.ts";
import { SpiffeAuthority } from "../../support/spiffe-authority.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const foreign = SpiffeAuthority.create("other.test");
const first = authority.svid("/first");
const second = authority.svid("/second");

let directory: string;
let now: number;
let renewed: string[];
let problems: string[];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-svid-"));
  now = Date.now();
  renewed = [];
  problems = [];
  await write({ "svid.pem": first.cert, "svid_key.pem": first.key, "bundle.pem": authority.caPem });
});

async function write(files: Readonly<Record<string, string>>, into = directory): Promise<void> {
  for (const [name, text] of Object.entries(files)) await writeFile(join(into, name), text);
}

function source(federated: Readonly<Record<string, string>> = {}, from = directory) {
  const path = (name: string): string => join(from, name);
  return own(
    new FileX509Source({
      files: {
        cert: path("svid.pem"),
        key: path("svid_key.pem"),
        bundle: path("bundle.pem"),
        federated: new Map(Object.entries(federated).map(([domain, name]) => [domain, path(name)])),
      },
      clock: { now: () => now },
      debounceMs: 5,
      onRenewed: (item) => renewed.push(item),
      onProblem: (problem) => problems.push(problem),
    }),
  );
}

test("gives the SVID, its bundle and those of federated domains", async () => {
  await write({ "other.pem": foreign.caPem });
  const files = await source({ "other.test": "other.pem" });
  expect(files.notReady()).toBeUndefined();
  expect(files.current()).toMatchObject({ spiffeId: first.spiffeId, trustDomain: "example.org" });
  expect(files.trustDomains()).toEqual(["example.org", "other.test"]);
  expect(files.bundle("other.test")).toHaveLength(1);
  expect(files.bundle("third.test")).toBeUndefined();
  expect(renewed).toEqual(["x509_svid", "x509_bundle", "x509_bundle"]);
});

describe("a rotation", () => {
  test("is told of, and an unchanged bundle stays the same object", async () => {
    const files = await source();
    const bundle = files.bundle("example.org");
    let changes = 0;
    files.onChange(() => (changes += 1));
    await write({ "svid.pem": second.cert, "svid_key.pem": second.key });
    await eventually(() => files.current()?.spiffeId === second.spiffeId);
    expect(files.bundle("example.org")).toBe(bundle);
    expect(changes).toBeGreaterThan(0);
  });

  test("that is half written leaves what was good in use", async () => {
    const files = await source();
    const before = files.current();
    await write({ "svid.pem": second.cert });
    await eventually(() => problems.length > 0);
    expect(problems[0]).toMatch(/svid\.pem: its private key does not belong to its certificate/);
    expect(files.current()).toBe(before);
    expect(files.notReady()).toBeUndefined();
    await write({ "svid_key.pem": second.key });
    await eventually(() => files.current()?.spiffeId === second.spiffeId);
  });

  test("by the link that Kubernetes replaces is seen", async () => {
    const volume = await mkdtemp(join(tmpdir(), "authbridge-volume-"));
    const fill = async (name: string, svid: typeof first): Promise<void> => {
      await mkdir(join(volume, name));
      const bundle = authority.caPem;
      const texts = { "svid.pem": svid.cert, "svid_key.pem": svid.key, "bundle.pem": bundle };
      await write(texts, join(volume, name));
    };
    await fill("..one", first);
    await symlink("..one", join(volume, "..data"));
    for (const name of ["svid.pem", "svid_key.pem", "bundle.pem"])
      await symlink(join("..data", name), join(volume, name));
    const files = await source({}, volume);
    expect(files.current()?.spiffeId).toBe(first.spiffeId);
    await fill("..two", second);
    await symlink("..two", join(volume, "..next"));
    await rename(join(volume, "..next"), join(volume, "..data"));
    await eventually(() => files.current()?.spiffeId === second.spiffeId);
  });

  test("that takes out the authority in use leaves nothing to show", async () => {
    const files = await source();
    expect(files.current()).toBeDefined();
    await write({ "bundle.pem": SpiffeAuthority.create().caPem });
    await eventually(() => files.current() === undefined);
    expect(files.notReady()).toMatch(/bundle\.pem: no authority in it has signed/);
    expect(files.bundle("example.org")).toHaveLength(1);
  });
});

test.each([
  ["no file", "svid.pem", undefined, "the file does not exist"],
  ["no certificate", "svid.pem", "nothing", "it has no certificate in PEM"],
  [
    "a certificate with two URIs",
    "svid.pem",
    authority.svid("/x", { uris: ["spiffe://a/b", "spiffe://a/c"] }).cert,
    "has 2 URIs",
  ],
  [
    "a certificate without a URI",
    "svid.pem",
    authority.svid("/x", { uris: [] }).cert,
    "has no URI",
  ],
  ["no key", "svid_key.pem", "secret text", "it is not an unencrypted private key in PEM"],
  [
    "a broken bundle",
    "bundle.pem",
    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    "cannot be read",
  ],
  ["another's bundle", "bundle.pem", foreign.caPem, "no authority in it has signed"],
])("%s: not ready, with the reason, until it is mended", async (_what, name, text, reason) => {
  const good = { "svid.pem": first.cert, "svid_key.pem": first.key, "bundle.pem": authority.caPem };
  if (text === undefined) await rm(join(directory, name));
  else await write({ [name]: text });
  const files = await source();
  expect(files.current()).toBeUndefined();
  expect(files.notReady()).toMatch(new RegExp(reason));
  expect(files.notReady()).toContain(name);
  expect(problems.join("")).not.toContain("secret text");
  await write({ [name]: good[name as keyof typeof good] });
  await eventually(() => files.notReady() === undefined);
});

test("an SVID that expires is not shown any more", async () => {
  const files = await source();
  expect(files.current()).toBeDefined();
  now += 7_200_000;
  expect(files.current()).toBeUndefined();
  expect(files.notReady()).toMatch(/has expired at/);
});

test("a directory that comes later is followed once it is there", async () => {
  const late = join(directory, "late");
  const files = await source({}, late);
  expect(files.notReady()).toMatch(/does not exist/);
  await mkdir(late);
  await write(
    { "svid.pem": first.cert, "svid_key.pem": first.key, "bundle.pem": authority.caPem },
    late,
  );
  await eventually(() => {
    now += 1_000;
    return files.current() !== undefined;
  });
  await write({ "svid.pem": second.cert, "svid_key.pem": second.key }, late);
  await eventually(() => files.current()?.spiffeId === second.spiffeId);
});
