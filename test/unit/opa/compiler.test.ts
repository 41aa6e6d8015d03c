import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { type CompilerOptions, RegoCompiler } from "../../../src/opa/compiler.ts";
import { fixture } from "../../support/opa-cases.ts";

const files = new Map([
  ["p/policy.rego", Buffer.from("package authbridge")],
  ["data.json", Buffer.from("{}")],
  ["README.md", Buffer.from("x")],
]);
const never = new AbortController().signal;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "authbridge-compiler-test-"));
  // Others compile at the same time, in the folder that all share.
  vi.stubEnv("TMPDIR", folder);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true });
});

/** A program in the place of opa. */
async function compiler(script: string, options: Partial<CompilerOptions> = {}) {
  const program = join(folder, `program-${Math.random().toString(36).slice(2)}`);
  await writeFile(program, script);
  await chmod(program, 0o755);
  return new RegoCompiler({ program, ...options });
}

test("documents that the policy does not define are no entrypoints", async () => {
  const log = join(folder, "asked");
  const opa = await compiler(`#!/bin/sh
echo "$*" >>${log}.args
/usr/bin/env >${log}.env
/bin/ls -R . >${log}.files
case "$*" in *response*)
  last=$(echo "$*" | /bin/sed 's/.*entrypoint \\([^ ]*response\\).*/\\1/')
  echo "error: entrypoint \\"$last\\" does not refer to a rule or policy decision" >&2
  exit 1
esac
/bin/cp ${fixture("allow").path} bundle.tar.gz
`);
  process.env["AUTHBRIDGE_TEST_SECRET"] = "secret";
  const made = await opa.compile(files, "7", never);
  delete process.env["AUTHBRIDGE_TEST_SECRET"];
  expect(made.equals(fixture("allow").bytes)).toBe(true);
  const runs = (await readFile(`${log}.args`, "utf8")).trim().split("\n");
  expect(runs).toHaveLength(3);
  expect(runs.at(-1)).toBe(
    "build --target=wasm --output=bundle.tar.gz --bundle source --revision=7 --entrypoint authbridge/inbound/request --entrypoint authbridge/outbound/request",
  );
  expect(await readFile(`${log}.env`, "utf8")).not.toContain("secret");
  const listed = await readFile(`${log}.files`, "utf8");
  expect(listed).toContain("policy.rego");
  expect(listed).not.toContain("README");
});

const everything = `#!/bin/sh
for path in "$@"; do case "$path" in authbridge/*)
  echo "error: entrypoint \\"$path\\" does not refer to a rule" >&2; exit 1
esac; done
`;

test.each<[string, string, Partial<CompilerOptions>, RegExp]>([
  ["fails", "#!/bin/sh\necho 'p.rego:1: rego_parse_error' >&2; exit 1\n", {}, /rego_parse_error/],
  ["finds nothing to compile", everything, {}, /defines none of the documents/],
  [
    "does not end",
    "#!/bin/sh\nexec /bin/sleep 1000\n",
    { timeoutMs: 100 },
    /took longer than 100 ms/,
  ],
  [
    "takes too much memory",
    `#!${process.execPath}\nconst held = Buffer.alloc(1 << 27, 1); setInterval(() => held, 1000);\n`,
    { maxMemoryBytes: 1 << 24 },
    /took more than 16777216 bytes/,
  ],
  ["writes no bundle", "#!/bin/sh\nexit 0\n", {}, /bundle\.tar\.gz/],
])(
  "a program that %s is a problem in words, and leaves nothing behind",
  async (_what, script, options, problem) => {
    const opa = await compiler(script, options);
    await expect(opa.compile(files, "", never)).rejects.toThrow(problem);
    expect(await leftBehind()).toEqual([]);
  },
);

test("it ends with whoever asked", async () => {
  const opa = await compiler("#!/bin/sh\nexec /bin/sleep 1000\n");
  const closing = new AbortController();
  const compiled = opa.compile(files, "", closing.signal);
  closing.abort();
  await expect(compiled).rejects.toThrow();
});

const leftBehind = async (): Promise<string[]> =>
  (await readdir(tmpdir())).filter((name) => name.startsWith("authbridge-rego-"));
