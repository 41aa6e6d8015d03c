import { mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { AuthoritySourceOptions } from "../../../src/tlsbridge/authority-source.ts";
import { CertificateAuthoritySource } from "../../../src/tlsbridge/authority-source.ts";
import type { CertificateAuthority } from "../../../src/tlsbridge/certificate-authority.ts";
import { expired, TestAuthority, temporaryDirectory } from "../../support/certs.ts";

let directory: string;
let sources: CertificateAuthoritySource[];
let rotations: CertificateAuthority[];
let problems: string[];

beforeEach(async () => {
  directory = await temporaryDirectory();
  sources = [];
  rotations = [];
  problems = [];
  await (await TestAuthority.create()).write(directory);
});
afterEach(async () => {
  for (const source of sources) await source.close();
});

async function open(options: Partial<AuthoritySourceOptions> = {}) {
  const source = await CertificateAuthoritySource.open({
    directory,
    debounceMs: 5,
    pollMs: 3_600_000,
    onRotated: (authority) => rotations.push(authority),
    onProblem: (message) => problems.push(message),
    ...options,
  });
  sources.push(source);
  return source;
}

describe("a check", () => {
  test("takes a new set", async () => {
    const source = await open();
    const { fingerprint } = source.current;
    await (await TestAuthority.create()).write(directory);
    await source.check();
    expect(source.current.fingerprint).not.toBe(fingerprint);
    expect(rotations).toEqual([source.current]);
  });

  test("of unchanged files changes nothing", async () => {
    const source = await open();
    const { current } = source;
    await source.check();
    expect(source.current).toBe(current);
    expect(rotations).toEqual([]);
  });

  test.each([
    [
      "expired",
      async () => (await TestAuthority.create("x", "ecdsa-p256", expired())).write(directory),
    ],
    [
      "half replaced",
      async () => writeFile(join(directory, "tls.key"), (await TestAuthority.create()).keyPem),
    ],
    ["partial", async () => rm(join(directory, "ca.crt"))],
    [
      "unreadable",
      async () => {
        await rm(join(directory, "ca.crt"));
        await mkdir(join(directory, "ca.crt"));
      },
    ],
    ["gone", async () => rm(directory, { recursive: true })],
  ])("keeps the last good one when the new set is %s, and says so once", async (_case, spoil) => {
    const source = await open();
    const { current } = source;
    await spoil();
    await source.check();
    await source.check();
    expect(source.current).toBe(current);
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(directory);
  });

  test("recovers when the set is good again, and reports the next problem", async () => {
    const source = await open();
    await writeFile(join(directory, "tls.key"), "x");
    await source.check();
    await (await TestAuthority.create()).write(directory);
    await source.check();
    await writeFile(join(directory, "tls.key"), "x");
    await source.check();
    expect(rotations).toHaveLength(1);
    expect(problems).toHaveLength(2);
  });

  test("that is asked for twice at once looks again for the second", async () => {
    const source = await open();
    const first = source.check();
    await (await TestAuthority.create()).write(directory);
    await Promise.all([first, source.check()]);
    expect(rotations.length).toBeGreaterThan(0);
  });
});

describe("following", () => {
  const rotated = (source: Partial<AuthoritySourceOptions> = {}) => {
    const { promise, resolve } = Promise.withResolvers<CertificateAuthority>();
    return open({ onRotated: resolve, ...source }).then((opened) => {
      opened.start();
      return { opened, promise };
    });
  };

  test("sees files that are replaced", async () => {
    const { promise } = await rotated();
    const next = await TestAuthority.create("next");
    await next.write(directory);
    expect((await promise).subject).toBe("CN=next");
  });

  test("sees a mounted Secret being swapped by its link", async () => {
    const write = async (version: string, authority: TestAuthority): Promise<void> => {
      await mkdir(join(directory, version));
      await authority.write(join(directory, version));
      await symlink(version, join(directory, "..tmp"));
      await rename(join(directory, "..tmp"), join(directory, "..data"));
    };
    for (const name of ["tls.crt", "tls.key", "ca.crt"]) {
      await rm(join(directory, name));
      await symlink(join("..data", name), join(directory, name));
    }
    await write("..one", await TestAuthority.create("one"));
    const { opened, promise } = await rotated();
    expect(opened.current.subject).toBe("CN=one");
    await write("..two", await TestAuthority.create("two"));
    expect((await promise).subject).toBe("CN=two");
  });

  test("sees changes by polling where events do not come", async () => {
    const { promise } = await rotated({ debounceMs: 3_600_000, pollMs: 5 });
    await (await TestAuthority.create("polled")).write(directory);
    expect((await promise).subject).toBe("CN=polled");
  });

  test("stops when closed", async () => {
    const source = await open({ pollMs: 1, debounceMs: 0 });
    source.start();
    await source.close();
    await (await TestAuthority.create()).write(directory);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    expect(rotations).toEqual([]);
  });
});

test("a set that can be generated is, and is followed like any other", async () => {
  directory = join(directory, "new");
  const source = await open({ generate: true });
  expect(source.current.subject).toBe("CN=authbridge-tls-bridge-ca");
});
