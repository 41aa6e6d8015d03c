/** The Go terminal viewer's edit of the pipeline, step by step, in the directory of a mounted ConfigMap (contract 7). */
import { readFileSync } from "node:fs";
import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type GoType, mismatches } from "../support/go-decoder.ts";
import { owner } from "../support/owner.ts";
import { type Settings, toYaml } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

interface Status {
  readonly last_attempt: string;
  readonly last_success: string;
  readonly last_error: string;
  readonly active_config_sha256: string;
}

interface Step {
  readonly writes: string;
  readonly until: "applied" | "refused" | "settled";
  readonly status: Readonly<Record<string, unknown>>;
  readonly error?: string;
  readonly outbound: readonly string[];
}

const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../golden/viewer/${name}.json`, import.meta.url), "utf8"));
const { steps } = read("edit") as { readonly steps: readonly Step[] };
const { types } = read("transcript") as { readonly types: Record<string, GoType> };

const own = owner();
const files: Readonly<Record<string, Settings>> = {
  "what there was": settings(outbound("mcp-parser")),
  "another plugin": settings(outbound("mcp-parser", "inference-parser")),
  "a plugin that there is not": settings(outbound("mcp-parser", "nonsense")),
  "a key that needs a restart": settings(
    merge(outbound("mcp-parser"), { listener: { health_addr: "127.0.0.1:1" } }),
  ),
};

/** What the viewer makes of a status, by comparison with the one before its edit. */
const verdicts: Record<Step["until"], (now: Status, before: Status) => boolean> = {
  applied: (now, before) => now.last_error === "" && now.last_success > before.last_success,
  refused: (now, before) => now.last_error !== "" && now.last_attempt > before.last_attempt,
  settled: (now) => now.last_error === "",
};

test("an edit is applied, or refused and rolled back, as the viewer waits for it", async () => {
  const proxy = await own(ProxyProcess.start(files["what there was"] ?? {}));
  let writes = 0;
  /** As the kubelet replaces a ConfigMap's files. */
  const place = async (file: Settings): Promise<void> => {
    writes += 1;
    const name = `..${writes}`;
    await mkdir(proxy.path(name));
    await writeFile(proxy.path(`${name}/proxy.yaml`), toYaml(file));
    await symlink(name, proxy.path("..data_tmp"));
    await rename(proxy.path("..data_tmp"), proxy.path("..data"));
  };
  const status = async (): Promise<Status> => {
    const shown: unknown = await proxy.reloadStatus();
    expect(mismatches(shown, "ReloadStatus", types)).toEqual([]);
    return shown as Status;
  };
  await place(files["what there was"] ?? {});
  await symlink("..data/proxy.yaml", proxy.path("next"));
  await rename(proxy.path("next"), proxy.path("proxy.yaml"));

  for (const { writes: what, until, status: expected, error, outbound: plugins } of steps) {
    const before = await status();
    const file = files[what];
    if (file === undefined) throw new Error(`no file: ${what}`);
    await place(file);
    await eventually(async () => verdicts[until](await status(), before));
    const after = await status();
    expect(after, what).toMatchObject(expected);
    expect(after.last_error, what).toContain(error ?? "");
    const isKept = after.active_config_sha256 === before.active_config_sha256;
    expect(isKept, what).toBe(until !== "applied");
    const shown = (await proxy.sessions("/v1/pipeline")).json() as {
      readonly outbound: readonly { readonly name: string }[];
    };
    expect(
      shown.outbound.map(({ name }) => name),
      what,
    ).toEqual(plugins);
  }
});
