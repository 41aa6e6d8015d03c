import { beforeEach, expect, test } from "vitest";
import { JwtBundles } from "../../../../src/spiffe/workload/jwt-bundles.ts";
import { eventually } from "../../../support/eventually.ts";
import { owner } from "../../../support/owner.ts";
import { type Answer, field, WorkloadApi } from "../../../support/workload-api.ts";

const own = owner();
let agent: WorkloadApi;
let heard: string[];
let now: () => number;

function bundles(over: object = {}): JwtBundles {
  return new JwtBundles({
    socket: agent.path,
    clock: { now: () => now() },
    observer: {
      rotated: (item, facts) => heard.push(`${item} ${JSON.stringify(facts)}`),
      failed: (_item, problem) => heard.push(problem),
    },
    backOff: { first: 5, most: 20 },
    ...over,
  });
}

const textOf = async (source: JwtBundles, domain: string): Promise<string> =>
  (await source.keySet(domain)).toString();

beforeEach(async () => {
  agent = await own(WorkloadApi.start());
  heard = [];
  now = () => Date.now();
});

test("key sets are streamed with the first question, and replaced as a whole", async () => {
  const source = await own(bundles());
  agent.updateKeys({ "example.org": "one", "other.test": "two" });
  expect(agent.connections).toBe(0);
  expect(await textOf(source, "example.org")).toBe("one");
  expect(await textOf(source, "other.test")).toBe("two");
  const same = await source.keySet("example.org");
  agent.updateKeys({ "example.org": "one" });
  await eventually(async () => {
    await expect(source.keySet("other.test")).rejects.toThrow(
      "no keys of the trust domain other.test",
    );
  });
  expect(await source.keySet("example.org")).toBe(same);
  agent.updateKeys({ "example.org": "three" });
  await eventually(async () => (await textOf(source, "example.org")) === "three");
  expect(agent.calls).toEqual(["FetchJWTBundles"]);
  expect(heard).toHaveLength(3);
});

test("keys outlive the agent for a day", async () => {
  const source = await own(bundles());
  agent.updateKeys({ "example.org": "one" });
  await source.keySet("example.org");
  await agent.stop();
  await eventually(() => heard.some((line) => line.includes("ENOENT")));
  expect(await textOf(source, "example.org")).toBe("one");
  now = () => Date.now() + 86_400_000;
  await expect(source.keySet("example.org")).rejects.toMatchObject({
    code: "upstream.unreachable",
    message: expect.stringContaining("ENOENT"),
  });
});

test.each<[string, Answer, string]>([
  ["refuses", { status: 7, words: "no identity issued" }, "PermissionDenied, no identity issued"],
  ["sends garbage", { message: Buffer.from("garbage") }, "a field"],
  [
    "sends keys of no trust domain",
    { message: field(1, Buffer.concat([field(1, "https://x"), field(2, "{}")])) },
    'keys of "https://x", which is no trust domain',
  ],
  ["says nothing", "silence", "did not answer in 50 ms"],
])("an agent that %s is a reason and no end", async (_name, answer, why) => {
  const source = await own(bundles({ answerMs: answer === "silence" ? 50 : 5_000 }));
  agent.answerKeys(answer);
  await expect(source.keySet("example.org")).rejects.toThrow(why);
  agent.updateKeys({ "example.org": "one" });
  await eventually(async () => (await textOf(source, "example.org")) === "one");
});
