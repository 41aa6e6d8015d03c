import { describe, expect, test } from "vitest";
import { createLogger } from "../../../src/telemetry/log.ts";
import { LogDestination, type LogFileSystem } from "../../../src/telemetry/log-destination.ts";

/** A descriptor whose answers the test decides: everything at once, nothing, some bytes, or an error. */
class FakeFiles implements LogFileSystem {
  text = "";
  calls = 0;
  next: "take" | "stall" | number | NodeJS.ErrnoException = "take";

  write: LogFileSystem["write"] = (_fd, bytes, done) => {
    this.calls += 1;
    const { next } = this;
    if (next === "stall") return;
    if (next instanceof Error) {
      done(next, 0);
      return;
    }
    const count = next === "take" ? bytes.length : Math.min(next, bytes.length);
    this.text += bytes.subarray(0, count).toString();
    queueMicrotask(() => done(null, count));
  };

  writeSync: LogFileSystem["writeSync"] = (_fd, bytes) => {
    if (this.next instanceof Error) throw this.next;
    this.text += bytes.toString();
    return bytes.length;
  };
}

const failing = (code: string): NodeJS.ErrnoException => Object.assign(new Error(code), { code });

async function logged(write: (log: ReturnType<typeof createLogger>) => void): Promise<string> {
  const files = new FakeFiles();
  const destination = new LogDestination(2, { fileSystem: files });
  write(createLogger("info", destination));
  await destination.close();
  return files.text;
}

describe("log lines", () => {
  test("are JSON with level, time, fields and message", async () => {
    const line = await logged((log) => log.info({ flow: "f-1", status: 200 }, "flow"));
    const parsed = JSON.parse(line) as Record<string, unknown>;
    expect(parsed).toMatchObject({ level: "info", flow: "f-1", status: 200, msg: "flow" });
    expect(new Date(String(parsed["time"])).toISOString()).toBe(parsed["time"]);
  });

  const canary = "canary-7c1e";
  test.each([
    ["a field", { authorization: canary }],
    ["a field in capitals", { Authorization: canary }],
    ["a suffix", { client_secret: canary, subjectToken: canary, client_assertion: canary }],
    ["headers", { headers: { "proxy-authorization": canary, "set-cookie": [canary] } }],
    ["headers of a request", { request: { headers: { cookie: canary } } }],
    ["a list", { calls: [{ ok: true }, { password: canary }] }],
    ["an object", { token: { access: canary } }],
    [
      "an error's own field",
      { err: Object.assign(new Error("x"), { config: { api_key: canary } }) },
    ],
  ])("never show a secret in %s", async (_name, fields) => {
    const line = await logged((log) => log.warn(fields, "oops"));
    expect(line).toContain("[secret]");
    expect(line).not.toContain(canary);
  });

  test("never show a secret that a child logger is bound to", async () => {
    const line = await logged((log) => log.child({ token: canary, plugin: "p" }).info("hello"));
    expect(line).not.toContain(canary);
    expect(line).toContain('"plugin":"p"');
  });

  test("keep counts and flags whose names end like secrets, and do not change the caller's object", async () => {
    const fields = { token: 3, secret: false, password: "hidden" };
    const line = await logged((log) => log.info(fields, "x"));
    expect(JSON.parse(line)).toMatchObject({ token: 3, secret: false, password: "[secret]" });
    expect(fields.password).toBe("hidden");
  });

  test("an error keeps its message and stack", async () => {
    const line = await logged((log) => log.error({ err: new Error("boom") }, "failed"));
    const { err } = JSON.parse(line) as { err: { message: string; stack: string } };
    expect(err.message).toBe("boom");
    expect(err.stack).toContain("log.test.ts");
  });

  test("the level can be changed while running", async () => {
    const text = await logged((log) => {
      log.debug("one");
      log.level = "debug";
      log.debug("two");
    });
    expect(text).not.toContain("one");
    expect(text).toContain("two");
  });
});

describe("log destination", () => {
  test("writes a batch as soon as it is long enough, and the rest on close", async () => {
    const files = new FakeFiles();
    const destination = new LogDestination(2, { fileSystem: files, batchChars: 10 });
    destination.write("12345\n");
    expect(files.calls).toBe(0);
    destination.write("67890\n");
    expect(files.calls).toBe(1);
    await destination.close();
    expect(files.text).toBe("12345\n67890\n");
  });

  test("continues a write that was taken in part, in order", async () => {
    const files = new FakeFiles();
    files.next = 4;
    const destination = new LogDestination(2, { fileSystem: files });
    for (const line of ["héllo\n", "wörld\n"]) destination.write(line);
    await destination.close();
    expect(files.calls).toBeGreaterThan(2);
    expect(files.text.length).toBeGreaterThan(10);
    expect(files.text.endsWith("rld\n")).toBe(true);
  });

  test("a descriptor that takes nothing loses lines beyond the bound, and close ends by its deadline", async () => {
    const files = new FakeFiles();
    files.next = "stall";
    const options = { fileSystem: files, batchChars: 10, maxChars: 100 };
    const destination = new LogDestination(2, options);
    for (let index = 0; index < 1_000; index += 1) destination.write("0123456789\n");
    expect(destination.dropped).toBeGreaterThan(900);
    expect(files.calls).toBe(1);
    await destination.close(1);
    destination.flushSync();
    expect(files.text).toBe("");
  });

  test.each(["EPIPE", "ENOSPC", "EIO"])(
    "%s loses a batch, not the process, and says so later",
    async (code) => {
      const files = new FakeFiles();
      files.next = failing(code);
      const destination = new LogDestination(2, { fileSystem: files });
      destination.write("lost\n");
      await destination.close();
      expect(destination.dropped).toBe(1);
      files.next = "take";
      destination.write("kept\n");
      await destination.close();
      const [first = "", second] = files.text.split("\n");
      expect(JSON.parse(first)).toMatchObject({ level: "warn", dropped: 1 });
      expect(second).toBe("kept");
    },
  );

  test("EAGAIN keeps the batch, which the last flush of the process still writes", () => {
    const files = new FakeFiles();
    files.next = failing("EAGAIN");
    const destination = new LogDestination(2, { fileSystem: files });
    destination.write("one\n");
    destination.flush();
    destination.write("two\n");
    files.next = "take";
    destination.flushSync();
    expect(files.text).toBe("one\ntwo\n");
    expect(destination.dropped).toBe(0);
  });

  test("the last flush of the process does not throw on a broken descriptor", () => {
    const files = new FakeFiles();
    const destination = new LogDestination(2, { fileSystem: files });
    destination.write("one\n");
    files.next = failing("EPIPE");
    expect(() => destination.flushSync()).not.toThrow();
  });
});
