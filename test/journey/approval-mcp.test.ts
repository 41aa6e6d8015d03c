/** Approval of tool calls: what the MCP SDK's client sees while it waits, and what binds a decision to a call. */
import { execFile } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, statusOf } from "../support/http-client.ts";
import { McpTestClient, McpTestServer } from "../support/mcp-server.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { throughProxy } from "../support/proxied-fetch.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-mcp-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const rules = [
  { name: "sums", tools: ["add"] },
  { name: "commands", effect: "ask", tools: ["exec"] },
  {
    name: "pages",
    effect: "ask",
    tools: ["fetch_url"],
    arguments: { url: { url: { hosts: ["api.weather.gov"] } } },
  },
];

interface Scene {
  readonly proxy: ProxyProcess;
  readonly operator: Approver;
  readonly server: McpTestServer;
  readonly client: McpTestClient;
}

async function scene(approval: Settings, isJson = false): Promise<Scene> {
  const server = await own(McpTestServer.start({ json: isJson }));
  const config = { servers: [{ name: "gateway", rules }] };
  const proxy = await own(
    ProxyProcess.start(
      settings({
        session: { api_secret_file: secretFile },
        approval,
        ...outbound("mcp-parser", { name: "tool-policy", config }),
      }),
    ),
  );
  const agent = await own(
    Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`, undefined, false)),
  );
  const client = await own(McpTestClient.connect(`${server.url}/mcp`, agent.fetch));
  return { proxy, operator: new Approver(proxy, "operator-secret"), server, client };
}

describe.each([
  ["events", false],
  ["JSON", true],
])("held, from a server that responds with %s", (_name, isJson) => {
  test("signs of life keep the client waiting for longer than it would, then the result comes", async () => {
    const { operator, client, server } = await scene({ keep_alive: "100ms" }, isJson);
    let signs = 0;
    const called = client.client.callTool(
      { name: "exec", arguments: { command: "ls" } },
      undefined,
      {
        timeout: 5_000,
        resetTimeoutOnProgress: true,
        onprogress: () => (signs += 1),
      },
    );
    await eventually(() => signs > 60, 60_000);
    const ask = await operator.next();
    expect(ask).toMatchObject({
      plugin: "tool-policy",
      rule: "commands",
      request: { tool: "exec", arguments: '{"command":"ls"}' },
    });
    expect(server.calls).toEqual([]);
    await operator.allow(ask.id);
    expect(await called).toMatchObject({ content: [{ text: "done" }] });
    expect(server.calls).toEqual([{ tool: "exec", args: { command: "ls" } }]);
  });

  test("a refusal is an error of the call, before and after the first sign of life", async () => {
    const { operator, client, server } = await scene({ keep_alive: "100ms" }, isJson);
    let signs = 0;
    const called = client.client.callTool(
      { name: "exec", arguments: { command: "rm" } },
      undefined,
      {
        onprogress: () => (signs += 1),
      },
    );
    const refused = expect(called).rejects.toMatchObject({
      code: -32_000,
      data: { error: "policy.approval-denied" },
      message: expect.stringContaining("no"),
    });
    await eventually(() => signs > 1);
    await operator.deny((await operator.next()).id, "no");
    await refused;
    // It stands: nobody is asked, and nothing is waited for.
    await expect(client.call("exec", { command: "rm" })).rejects.toMatchObject({ code: -32_000 });
    expect(await client.call("add", { a: 1, b: 2 })).toBe("3");
    expect(server.calls.map(({ tool }) => tool)).toEqual(["add"]);
  });
});

describe("calls", () => {
  test("polling: an error with the id, and the next attempt with another JSON-RPC id passes once", async () => {
    const { operator, client, server } = await scene({ on_pending: "poll" });
    const error = await client.call("exec", { command: "ls" }).catch((reason: unknown) => reason);
    const { data } = error as { data: { approval: string; poll: string } };
    expect(error).toMatchObject({ code: -32_000, data: { error: "policy.approval-pending" } });
    expect(data.poll).toContain(data.approval);
    await operator.allow(data.approval);
    await expect(client.call("exec", { command: "ls " })).rejects.toMatchObject({
      data: { error: "policy.approval-pending" },
    });
    await expect(client.call("exec", { command: "LS" })).rejects.toThrow();
    expect(await client.call("exec", { command: "ls" })).toBe("done");
    await expect(client.call("exec", { command: "ls" })).rejects.toThrow();
    expect(server.calls).toEqual([{ tool: "exec", args: { command: "ls" } }]);
  });

  test("what a rule that asks does not allow is refused, and is not asked about", async () => {
    const { operator, client } = await scene({ on_pending: "poll" });
    expect(await client.toolNames()).toEqual(["add", "exec", "fetch_url"]);
    await expect(client.call("fetch_url", { url: "https://evil.test/" })).rejects.toThrow(
      /not allowed/,
    );
    expect(await operator.pending()).toEqual([]);
    await expect(client.call("fetch_url", { url: "https://api.weather.gov/" })).rejects.toThrow(
      /approval is needed/,
    );
    await operator.waitFor(1);
  });
});

describe("other clients", () => {
  let origin: HttpOrigin;
  let proxy: ProxyProcess;
  let operator: Approver;

  beforeAll(async () => {
    origin = await own(HttpOrigin.launch(() => reply(200, "paid")));
    const endpoint = {
      host: "127.0.0.1",
      port: origin.port,
      protocol: "rest",
      enforcement: "ask",
      rules: [{ allow: { method: "GET", path: "/**" } }],
    };
    const config = { network_policies: { api: { endpoints: [endpoint] } } };
    proxy = await own(
      ProxyProcess.start(
        merge(
          settings({ session: { api_secret_file: secretFile } }),
          outbound({ name: "egress-policy", config }),
        ),
      ),
    );
    operator = new Approver(proxy, "operator-secret");
  });

  test.each([false, true])("fetch waits in silence (in a CONNECT: %s)", async (isTunnel) => {
    const address = `http://127.0.0.1:${proxy.forward.port}`;
    const agent = await own(Promise.resolve(throughProxy(address, undefined, isTunnel)));
    const sent = agent.fetch(`${origin.url}/pay`, { method: "POST", body: `n=${isTunnel}` });
    await operator.allow((await operator.next()).id);
    expect(await (await sent).text()).toBe("paid");
  });

  test("curl waits in silence", async () => {
    const args = ["-s", "-x", `http://127.0.0.1:${proxy.forward.port}`, "-d", "n=1"];
    const sent = promisify(execFile)("curl", [...args, `${origin.url}/pay`]);
    await operator.allow((await operator.next()).id);
    expect((await sent).stdout).toBe("paid");
  });
});

test("the head that says that a person is asked has no receipt, which would say allow", async () => {
  const key = generateKeyPairSync("ed25519").privateKey;
  const keyFile = join(scratch, "receipts.pem");
  writeFileSync(keyFile, key.export({ type: "pkcs8", format: "pem" }));
  const origin = await own(HttpOrigin.launch());
  const path = join(scratch, "audit.jsonl");
  const proxy = await own(
    ProxyProcess.start(
      settings({
        session: { api_secret_file: secretFile },
        approval: { keep_alive: "100ms" },
        audit: { path, signing_key_file: keyFile, origin: "here", receipts: {} },
        ...outbound("mcp-parser", {
          name: "tool-policy",
          config: { servers: [{ name: "gateway", rules }] },
        }),
      }),
    ),
  );
  const operator = new Approver(proxy, "operator-secret");
  const client = await own(RawClient.connect(proxy.forward));
  client.write({
    method: "POST",
    target: `${origin.url}/mcp`,
    headers: {
      Host: origin.authority,
      Accept: "application/json, text/event-stream",
      "Content-Type": "application/json",
      "authbridge-receipt": "request",
    },
    body: '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"exec","arguments":{}}}',
  });
  const { head } = await client.head();
  expect(statusOf(head)).toBe(200);
  expect(head.fields.map(([name]) => name.toLowerCase())).not.toContain("authbridge-receipt");
  await operator.deny((await operator.next()).id, "no");
  await client.sees("policy.approval-denied");
  expect(origin.requests).toEqual([]);
});
