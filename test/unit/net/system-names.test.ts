/** What the system's files say of names: hosts(5), resolv.conf(5), nsswitch.conf(5). */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { SystemNames } from "../../../src/net/system-names.ts";

function systemOf(texts: { hosts?: string; resolv?: string; nsswitch?: string }): SystemNames {
  const directory = mkdtempSync(join(tmpdir(), "authbridge-names-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const fileOf = (name: keyof typeof texts): string => {
    const file = join(directory, name);
    const text = texts[name];
    if (text !== undefined) writeFileSync(file, text);
    return file;
  };
  return new SystemNames({
    hosts: fileOf("hosts"),
    resolv: fileOf("resolv"),
    nsswitch: fileOf("nsswitch"),
  });
}

test("/etc/hosts gives a name all of its addresses, whatever its case; comments and bad lines give nothing", () => {
  const system = systemOf({
    hosts: "127.0.0.1 localhost\n10.0.0.1\tDb.test db # db2\n# 10.0.0.9 db\n::1 db\nnonsense db\n",
  });
  expect(system.addressesOf("db")).toEqual(["10.0.0.1", "::1"]);
  expect(system.addressesOf("db.test")).toEqual(["10.0.0.1"]);
  expect(system.addressesOf("db2")).toBeUndefined();
});

test.each([
  ["", "api", ["api"]],
  ["search a.test b.test\n", "api", ["api.a.test", "api.b.test", "api"]],
  ["search a.test\n", "api.b", ["api.b", "api.b.a.test"]],
  [
    "nameserver 10.0.0.10\nsearch ns.svc.cluster.local svc.cluster.local.\noptions ndots:5 timeout:1\n",
    "api.ns",
    ["api.ns.ns.svc.cluster.local", "api.ns.svc.cluster.local", "api.ns"],
  ],
  ["domain a.test\n; search c.test\nsearch b.test\n", "api", ["api.b.test", "api"]],
])("resolv.conf %j: %s", (resolv, name, candidates) => {
  expect(systemOf({ resolv }).candidatesOf(name)).toEqual(candidates);
});

test.runIf(process.platform === "linux").each([
  [undefined, true],
  ["passwd: files\n", true],
  ["hosts: files dns # usual\n", true],
  ["hosts:  files mdns4_minimal [NOTFOUND=return] dns\n", false],
  ["hosts: files resolve dns\n", false],
])("nsswitch.conf %j: nothing but files and DNS is asked: %s", (nsswitch, isPlain) => {
  expect(systemOf(nsswitch === undefined ? {} : { nsswitch }).isPlain).toBe(isPlain);
});
