/** What one step counts for: under enforce what it says, under observe nothing. */
import { expect, test } from "vitest";
import {
  allow,
  type Decision,
  deny,
  exempt,
  modify,
  respond,
} from "../../../src/pipeline/plugin.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const denial = { code: "auth.unauthorized", message: "no" };
const reply = { status: 299, headers: {}, body: Buffer.from("instead") };

test.each<[name: string, said: Decision]>([
  ["allows", allow("said")],
  ["changes", modify("said")],
  ["exempts", exempt("said")],
  ["refuses", deny("said", denial)],
  ["answers", respond("said", reply)],
])("a step that %s and only observes neither refuses nor consents", async (_name, said) => {
  const plugin = { onRequest: () => said };
  const observing = { plugin, onError: "observe" } as const;
  const verdict = async (otherwise: "allow" | "deny") =>
    pipelineOf([observing], { otherwise }).runRequest(message());
  expect(await verdict("deny")).toMatchObject({ denial: { code: "policy.forbidden" } });
  expect(await verdict("deny")).not.toHaveProperty("denial.plugin");
  expect(await verdict("allow")).toHaveProperty("permit");
});
