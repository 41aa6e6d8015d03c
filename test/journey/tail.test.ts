/** tail and verify-audit as an operator runs them. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile, writeFile } from "node:fs/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { startTail } from "../support/tail.ts";

const own = owner();
const policy = {
  name: "egress-policy",
  config: { allow: ["127.0.0.1"] },
};

describe("tail", () => {
  test("shows what happened and what happens, one line each, filtered, without colour in a pipe", async () => {
    const origin = await own(HttpOrigin.launch());
    const proxy = await own(ProxyProcess.start(settings(outbound(policy))));
    const ask = (target: string): ReturnType<typeof request> => request(proxy.forward, { target });
    await ask(`${origin.url}/before`);
    const { host, port } = proxy.address("sessions");
    const url = `http://${host}:${port}`;
    const all = await own(startTail("--url", url));
    const denied = await own(startTail("--url", url, "--decision", "deny", "--json"));
    const other = await own(startTail("--url", url, "--host", "elsewhere", "--limit", "0"));
    await eventually(() => all.out().includes("/before"));
    await ask("http://refused.example/secret?token=abc");
    await ask(`${origin.url}/after`);
    await eventually(() => all.out().includes("/after") && denied.out().includes("\n"));
    const lines = all.out().trimEnd().split("\n");
    expect(lines[0]).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} {2}default {2}out {2}allow {3}GET 127\.0\.0\.1:\d+\/before {2}egress-policy: /,
    );
    const refusal = lines.find((line) => line.includes("refused.example"));
    expect(refusal).toMatch(/deny {4}403 {2}GET refused\.example\/secret {2}egress-policy: /);
    expect(all.out()).not.toContain("\u001b");
    const events = denied
      .out()
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    expect(events).toMatchObject([{ phase: "denied", host: "refused.example" }]);
    expect(other.out()).toBe("");
    expect(all.err()).toBe("");
  });

  test("comes back after a lost connection, and asks for what it missed", async () => {
    const asked: IncomingMessage[] = [];
    const server = await serve((incoming, response) => {
      asked.push(incoming);
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      const number = asked.length === 1 ? 7 : 8;
      response.write(`: ok\n\n: dropped 3\n\nevent: session-event\nid: ${number}\n`);
      response.write(
        `data: ${JSON.stringify({ phase: "request", host: `h${number}\u001b[2J\nx` })}\n\n`,
      );
      if (asked.length === 1) response.end();
    });
    const { out, err } = await own(startTail("--url", server));
    await eventually(() => out().includes("h8"));
    expect(asked[0]?.headers["last-event-id"]).toBeUndefined();
    expect(asked[0]?.url).toBe("/v1/events?limit=20");
    expect(asked[1]?.headers["last-event-id"]).toBe("7");
    expect(asked[1]?.url).toBe("/v1/events");
    expect(err()).toContain("events dropped 3");
    expect(err()).toContain("connecting again");
    // What strangers wrote draws no line and speaks to no terminal.
    expect(out().trimEnd().split("\n")).toHaveLength(2);
    expect(out()).not.toContain("\u001b");
  });

  test("says in words what is wrong, and ends", async () => {
    const closed = await serve((_, response) => response.writeHead(401).end());
    const refused = await runProgram(["tail", "--url", closed]);
    expect(refused).toMatchObject({ code: 1 });
    expect(refused.stderr).toContain("401: a secret is needed (--secret-file)");
    const nobody = await runProgram(["tail", "--url", "http://127.0.0.1:1"]);
    expect(nobody).toMatchObject({ code: 1 });
    expect(nobody.stderr).toMatch(
      /^authbridge-proxy: http:\/\/127\.0\.0\.1:1 cannot be reached: .*$/m,
    );
    const bad = await runProgram(["tail", "--decision", "maybe"]);
    expect(bad).toMatchObject({ code: 2 });
  });
});

describe("verify-audit", () => {
  test("a decision log of real traffic is whole, and one changed byte is found", async () => {
    const origin = await own(HttpOrigin.launch());
    const config = settings({
      ...outbound(policy),
      listener: { skip_hosts: ["127.0.0.2"] },
      audit: { path: "audit.jsonl" },
    });
    const proxy = await own(ProxyProcess.start(config));
    await request(proxy.forward, { target: `${origin.url}/one` });
    await request(proxy.forward, { target: "http://refused.example/" });
    await request(proxy.forward, { target: "http://127.0.0.2:9/" });
    await proxy.stop();
    const path = proxy.path("audit.jsonl");
    const text = await readFile(path, "utf8");
    const records = text
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as object);
    expect(records).toMatchObject([
      { decision: "allow", path: "/one", steps: [{ plugin: "egress-policy", action: "allow" }] },
      { decision: "deny", host: "refused.example:80", status: 403, code: "policy.forbidden" },
      { decision: "exempt", host: "127.0.0.2:9" },
    ]);
    const whole = await runProgram(["verify-audit", path]);
    expect(whole).toMatchObject({ code: 0 });
    expect(whole.stdout).toContain("records: 3");
    expect(proxy.stderr).toContain("decision log ends");
    await writeFile(path, text.replace('"decision":"deny"', '"decision":"allow"'));
    const changed = await runProgram(["verify-audit", path]);
    expect(changed).toMatchObject({ code: 1 });
    expect(changed.stdout).toContain("audit.jsonl:2: is not a whole record");
  });
});

async function serve(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server: Server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
