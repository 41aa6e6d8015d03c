/** An hour of what agents usually do stays inside the limits of the example, and data that leaves in names does not. */
import { hash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { beforeEach, expect, test } from "vitest";
import { parse } from "yaml";
import type { Plugin } from "../../../../src/pipeline/plugin.ts";
import { budgets } from "../../../../src/plugins/budgets/plugin.ts";
import { message, PluginBench } from "../../../support/plugin-bench.ts";

interface Example {
  readonly pipeline: {
    readonly outbound: { readonly plugins: readonly { name: string; config: object }[] };
  };
}
const file = parse(readFileSync("examples/exfiltration/config.yaml", "utf8")) as Example;
const config = file.pipeline.outbound.plugins.find(({ name }) => name === "budgets")?.config;

let plugin: Plugin;
let refused: string[] = [];
beforeEach(() => {
  plugin = new PluginBench().create(budgets, config);
  refused = [];
});

async function visit(url: string, headers: Readonly<Record<string, string>> = {}): Promise<void> {
  const { hostname, pathname, search } = new URL(url);
  const context = message({ to: `${hostname}:443`, path: pathname + search, headers });
  const said = await plugin.onRequest?.(context);
  if (said?.action === "deny") refused.push(url);
}

/** What a limit has of its fullest counter. */
function most(budget: string): number {
  const seen = plugin.budgets?.() as
    { readonly limits: readonly { budget: string; used: number }[] } | undefined;
  return Math.max(0, ...(seen?.limits ?? []).map((one) => (one.budget === budget ? one.used : 0)));
}

const hex = (seed: string): string => hash("sha256", seed);
const package_ = (at: number): string =>
  `${["left", "fast", "tiny", "node", "react"][at % 5]}-util${at}`;

async function each(count: number, url: (at: number) => string): Promise<void> {
  for (let at = 0; at < count; at += 1) await visit(url(at));
}

test("an hour of an agent that builds, reads and asks", async () => {
  // An install of four hundred packages.
  await each(400, (at) => `https://registry.npmjs.org/${package_(at)}`);
  await each(400, (at) => {
    const name = package_(at);
    return `https://registry.npmjs.org/${name}/-/${name}-${at % 9}.${at % 17}.1.tgz`;
  });
  // Clones, raw files at a commit, archives behind a redirect.
  await each(10, (at) => `https://github.com/acme/site${at}.git/info/refs?service=git-upload-pack`);
  await each(10, (at) => `https://github.com/acme/site${at}.git/git-upload-pack`);
  await each(
    30,
    (at) =>
      `https://raw.githubusercontent.com/acme/site/${hex(`${at}`).slice(0, 40)}/src/file${at}.ts`,
  );
  await each(
    20,
    (at) =>
      `https://objects.githubusercontent.com/github-production-release/${at}/${hex(`o${at}`)}`,
  );
  // Pages of a list, a search, calls of a model.
  await each(200, (at) => `https://github.com/acme/site/issues?state=open&per_page=100&page=${at}`);
  await each(50, (at) => `https://github.com/search?q=how+to+parse+yaml+${package_(at)}&type=code`);
  await each(300, () => "https://api.openai.com/v1/chat/completions");
  // Signed objects, in a bucket each.
  await each(
    40,
    (at) =>
      `https://data-${at % 8}.s3.amazonaws.com/models/part-${at}.bin?X-Amz-Algorithm=AWS4-HMAC-SHA256` +
      `&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T0000${at % 60}Z` +
      `&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=${hex(`s${at}`)}`,
  );
  // Hosts of a CDN with a hash in their names.
  await each(25, (at) => `https://d${hex(`c${at}`).slice(0, 13)}.cloudfront.net/app.js`);
  expect(refused).toEqual([]);
  const used = ["hosts", "names", "bits-in-names", "bits-in-urls", "bits-in-all-urls"].map(most);
  // The figures of docs/budgets.md.
  expect(used).toEqual([38, 25, 1_400, 38_659, 106_992]);
});

test.each([
  ["names", (data: string) => `https://${data.slice(0, 60)}.docs.example.com/`, 4_000],
  ["queries", (data: string) => `https://www.docs.example.com/?q=${data}`, 120_000],
  [
    "paths",
    (data: string) => `https://www.docs.example.com/${data.match(/.{6}/g)?.join("/")}`,
    120_000,
  ],
])("a megabyte in %s is stopped before a fiftieth of it has left", async (_, url, limit) => {
  const size = 200;
  let sent = 0;
  for (let at = 0; at < 5_000; at += 1) {
    const before = refused.length;
    const target = url(randomBytes(size).toString("hex"));
    await visit(target);
    if (refused.length === before) sent += Math.min(size, (target.length - 25) / 2);
  }
  expect(8 * sent).toBeLessThan(2 * limit);
  expect(sent).toBeLessThan(20_000);
});
