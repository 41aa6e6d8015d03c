/** The recipes of docs/policy.md: each file under examples/policy runs, and allows and refuses what its cases say. */
import { globSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { getThrough } from "../../examples/demo/requests.ts";
import { owner } from "../support/owner.ts";
import { runProgram, type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const env = { API_KEY: "sk-test" };
const recipes = globSync("examples/policy/*.yaml").sort();
const document = readFileSync("docs/policy.md", "utf8");

interface Case {
  readonly url?: string;
  readonly expect: string;
}

function casesOf(recipe: string): readonly Case[] {
  const text = readFileSync(`examples/policy/cases/${basename(recipe)}`, "utf8");
  return (parse(text) as { readonly cases: readonly Case[] }).cases;
}

test("there are ten recipes or more, and docs/policy.md names each", () => {
  expect(recipes.length).toBeGreaterThanOrEqual(10);
  for (const recipe of recipes) expect(document).toContain(`../${recipe}`);
});

test("every case of every recipe holds", async () => {
  // Also where no variable is set: the command of the document works as it stands.
  const ended = await runProgram(["policy", "test", "examples/policy"], { cwd: process.cwd() });
  expect(ended).toMatchObject({ code: 0, stderr: "" });
  expect(ended.stdout).toMatch(/\d+ passed, 0 failed\n$/);
});

describe.each(recipes)("%s", (recipe) => {
  test("allows something and refuses something", () => {
    const verdicts = new Set(casesOf(recipe).map((one) => one.expect));
    expect(verdicts.has("allow")).toBe(true);
    expect(verdicts.has("deny")).toBe(true);
  });

  test("runs as it is, and refuses what its policy does not name", async () => {
    const file = parse(readFileSync(recipe, "utf8")) as Settings;
    const proxy = await own(ProxyProcess.start(merge(settings(), file), { env }));
    const refused = casesOf(recipe).flatMap(({ url, expect: verdict }) =>
      verdict === "deny" && url?.startsWith("http:") === true ? [url] : [],
    );
    for (const url of ["http://elsewhere.test/", ...refused]) {
      expect((await getThrough(proxy.forward.port, url, undefined)).status, url).toBe(403);
    }
  });
});

test.each([
  ["orders.shop.svc.cluster.local", 0, "10.96.14.7 private"],
  ["stolen.example", 1, "10.96.14.8 is a forbidden address, class private"],
])("inside-services: %s", async (host, code, words) => {
  const line = `explain --config examples/policy/inside-services.yaml --url http://${host}:8080/`;
  const ended = await runProgram(line.split(" "), { cwd: process.cwd() });
  expect(ended.code).toBe(code);
  expect(ended.stdout).toContain(words);
});
