/** What a person names may be anything: it is read, or said to be what it is, and never waited for without end. */
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { bytesOf, readGiven, textOfGiven } from "../../../src/files/given-file.ts";

const maxBytes = 1_048_576;

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "given-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function pipeIn(directory: string): string {
  const path = join(directory, "pipe");
  execFileSync("mkfifo", [path]);
  return path;
}

async function textOf(path: string, silenceMs: number): Promise<string | Buffer> {
  const read = await readGiven(path, maxBytes, { silenceMs });
  return typeof read === "string" ? read : read.toString();
}

describe("a pipe", () => {
  test("is read to the end that its writer makes, however late that comes", async () => {
    const path = pipeIn(folder());
    const read = textOf(path, 60_000);
    const writer = await open(path, "w");
    await writer.write("first ");
    await writer.write("second");
    await writer.close();
    expect(await read).toBe("first second");
  });

  test("that nobody opens for writing is refused", async () => {
    expect(await textOf(pipeIn(folder()), 0)).toMatch(/^cannot be read: nobody writes/);
  });

  test("whose writer says nothing is refused", async () => {
    const path = pipeIn(folder());
    // Both ends in one: an open for writing alone would wait for the reader.
    const writer = await open(path, "r+");
    onTestFinished(() => writer.close());
    expect(await textOf(path, 0)).toMatch(/^cannot be read: nobody writes/);
  });
});

test("what has no end is refused at the limit", async () => {
  expect(await readGiven("/dev/zero", maxBytes)).toBe("is larger than 1 MiB");
});

test("a file is closed where its reader stops early", async () => {
  const path = join(folder(), "long");
  writeFileSync(path, Buffer.alloc(maxBytes));
  // The lowest number that is free is the one that is given.
  const free = (): number => {
    const number = openSync(path, "r");
    closeSync(number);
    return number;
  };
  const before = free();
  for await (const _chunk of bytesOf(path)) break;
  expect(free()).toBe(before);
});

describe("what cannot be read is said in words, with its name", () => {
  test.each<[string, RegExp, (directory: string) => string | Promise<string>]>([
    ["absent", /: there is no such file$/, (at) => join(at, "absent")],
    ["a directory", /: it is a directory$/, (at) => at],
    ["below a file", /: a part of its path is not a directory$/, () => "/dev/null/x"],
    ["a name too long", /: its name is too long$/, (at) => join(at, "x".repeat(5_000))],
    [
      "links in a circle",
      /: its symbolic links form a loop$/,
      (at) => {
        symlinkSync("b", join(at, "a"));
        symlinkSync("a", join(at, "b"));
        return join(at, "a");
      },
    ],
    [
      "a socket",
      /: it is a socket, or a device that is not there$/,
      async (at) => {
        const server = createServer();
        onTestFinished(() => void server.close());
        await new Promise<void>((resolve) => server.listen(join(at, "s"), resolve));
        return join(at, "s");
      },
    ],
  ])("%s", async (_case, said, make) => {
    const path = await make(folder());
    const error = await textOfGiven(path, maxBytes).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "config.invalid", message: expect.stringMatching(said) });
    expect((error as Error).message.startsWith(`${path} cannot be read`)).toBe(true);
  });
});
