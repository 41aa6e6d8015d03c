/** dlp by itself: what its keys change in what is found. */
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { checkDigits } from "../../../../src/dlp/key-formats.ts";
import { dlp } from "../../../../src/plugins/dlp/plugin.ts";
import {
  message,
  type MessageShape,
  PluginBench,
  problemsOf,
} from "../../../support/plugin-bench.ts";

const random = "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT";
const githubKey = `ghp_${random}${checkDigits(random)}`;
const json = { "Content-Type": "application/json" };

/** The code of the refusal; undefined where nothing was found. */
async function refusal(config: object, shape: MessageShape): Promise<string | undefined> {
  const decision = await new PluginBench().create(dlp, config).onRequest?.(message(shape));
  return decision?.action === "deny" ? decision.denial.code : undefined;
}

/** The text below so many codings. */
function coded(text: string, times: number): string {
  return times === 0 ? text : coded(Buffer.from(text).toString("base64"), times - 1);
}

describe("max_depth", () => {
  test.each([
    [5, {}, "by default"],
    [1, { max_depth: 1 }, "as the file says"],
    [8, { max_depth: 8 }, "as the file says"],
  ])("%i codings in each other are undone: %j (%s)", async (depth, config, _how) => {
    const sent = (times: number) => ({
      headers: json,
      body: { a: coded(`see ${githubKey}`, times) },
    });
    expect(await refusal(config, sent(depth))).toBe("dlp.refused");
    expect(await refusal(config, sent(depth + 1))).toBeUndefined();
  });
});

describe("max_decoded_bytes", () => {
  const large = {
    headers: json,
    body: { a: gzipSync(Buffer.alloc(1_048_576, 97)).toString("base64") },
  };

  test("bounds what codings come to", async () => {
    expect(await refusal({}, large)).toBeUndefined();
    expect(await refusal({ max_decoded_bytes: 65_536 }, large)).toBe("dlp.unread");
    const observing = { max_decoded_bytes: 65_536, default: { action: "observe" } };
    expect(await refusal(observing, large)).toBeUndefined();
  });
});

describe("credential_fields", () => {
  test.each([
    [[], true],
    [["X-Partner-Key"], false],
    [["x_partner_key"], false],
    [["X-Partner-*"], false],
    [["X-Partner"], true],
  ])("%j: a key of a provider in X-Partner-Key is found: %s", async (credential_fields, found) => {
    const shape = { headers: { "X-Partner-Key": githubKey } };
    expect(await refusal({ credential_fields }, shape)).toBe(found ? "dlp.refused" : undefined);
  });

  test.each(["X Partner", "X-Partner:", "*", ""])("refuses %j, which no field has", (name) => {
    expect(problemsOf(dlp, { credential_fields: [name] }).join()).toContain(
      "must be a header name",
    );
  });
});

describe("larger_bodies: stream", () => {
  test.each([1_000, 100_000])("a number is one outside of texts only, in pieces of %i", (size) => {
    const redacting = { detectors: ["cards"], action: "redact" };
    const config = { larger_bodies: "stream", default: redacting };
    const plugin = new PluginBench().create(dlp, config);
    const judge = plugin.judgeStream?.(message({ headers: json, body: "" }));
    const card = 4_111_111_111_111_111;
    const long = "a[1, ".repeat(10_000);
    const said = [`it is: ${card}, again`, `[${card}]`, `a": ${card}, "`];
    const body = JSON.stringify({ long, said, card, list: [card] });
    const passed: Buffer[] = [];
    for (let at = 0; at < body.length; at += size) {
      const piece = Buffer.from(body.slice(at, at + size));
      passed.push(...(judge?.push(piece, at + size >= body.length).passed ?? []));
    }
    const mask = "[redacted:cards]";
    expect(JSON.parse(Buffer.concat(passed).toString())).toEqual({
      long,
      said: said.map((text) => text.replace(String(card), mask)),
      card: mask,
      list: [mask],
    });
  });
});
