/** What is known of the secrets of a process, and what of it is kept. */
import { generateKeyPairSync } from "node:crypto";
import { inspect } from "node:util";
import { expect, test } from "vitest";
import { OwnSecrets, ownSecrets } from "../../../src/dlp/own-secrets.ts";
import { Scanner } from "../../../src/dlp/scanner.ts";
import { Secret } from "../../../src/secret.ts";

const wanted = new Set(["own_secrets"]);

function finds(own: OwnSecrets, text: string): boolean {
  const scanner = new Scanner({ own, maxDepth: 5, maxDecodedBytes: 2 ** 20 });
  return scanner.scan(Buffer.from(text), wanted).findings.length > 0;
}

test("a key in PEM is found by any of its lines, and not by what all keys share", () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const own = new OwnSecrets();
  own.add(new Secret(pem));
  for (const line of pem.split("\n").slice(1, -3)) expect(finds(own, `x ${line} y`)).toBe(true);
  const [begin = ""] = pem.split("\n");
  expect(finds(own, `${begin}\n-----END PRIVATE KEY-----\n`)).toBe(false);
  expect(finds(own, `"${pem.replaceAll("\n", String.raw`\n`)}"`)).toBe(true);
});

test("one that is too short is counted, and not looked for", () => {
  const own = new OwnSecrets();
  own.add(new Secret("hunter2"));
  expect([own.short, finds(own, "hunter2")]).toEqual([1, false]);
});

test("what is alike is not the same", () => {
  const own = new OwnSecrets();
  own.add(new Secret("correct-horse-battery"));
  expect(finds(own, "correct-horse-battery")).toBe(true);
  for (const text of [
    "Correct-horse-battery",
    "incorrect horse-battery",
    "orrect-horse-battery",
    "correct-horse-batter",
  ])
    expect(finds(own, text)).toBe(false);
});

test("every secret is known when it is made, but those of callers", () => {
  const before = new Secret("made-before-anybody-asked");
  const own = ownSecrets();
  const after = new Secret("made-after-somebody-asked");
  const callers = new Secret("of-a-caller-who-may-repeat-it", "caller");
  expect([before, after].map((secret) => finds(own, secret.reveal()))).toEqual([true, true]);
  expect(finds(own, callers.reveal())).toBe(false);
});

test("no value is kept", () => {
  const own = new OwnSecrets();
  const value = "a-value-that-is-not-kept";
  own.add(new Secret(value));
  const shown = inspect(own, { depth: 12, showHidden: true, maxArrayLength: null });
  expect(shown).not.toContain(value);
  expect(shown).not.toContain(Buffer.from(value).toString("hex"));
});

test("more secrets than are kept make room for the newest, oldest first", () => {
  const own = new OwnSecrets(64);
  const held = Array.from(
    { length: 70 },
    (_none, index) => new Secret(`secret number ${index} of seventy`),
  );
  for (const secret of held) own.add(secret);
  const [oldest, newest] = [held.at(0), held.at(-1)];
  expect(finds(own, newest?.reveal() ?? "")).toBe(true);
  expect(finds(own, oldest?.reveal() ?? "")).toBe(false);
  expect(own.forgotten).toBeGreaterThan(0);
});

test("what another thread holds is looked for, and makes room before what this one holds", () => {
  const own = new OwnSecrets(16);
  const told: string[] = [];
  const end = own.onNew((text) => told.push(text));
  const mine = new Secret("held-by-this-thread-itself");
  own.add(mine);
  own.learn("held-by-another-thread");
  own.add(new Secret("held-by-this-thread-itself"));
  expect([told, [...own.held()]]).toEqual([[mine.reveal()], [mine.reveal()]]);
  expect(finds(own, "x held-by-another-thread y")).toBe(true);
  for (let at = 0; at < 40; at += 1) own.learn(`of-another-thread-${at}`);
  expect(finds(own, "held-by-another-thread")).toBe(false);
  expect([finds(own, mine.reveal()), finds(own, "of-another-thread-39")]).toEqual([true, true]);
  end();
  own.add(new Secret("held-later-by-this-thread"));
  expect([told.length, own.forgotten]).toEqual([1, 0]);
});
