/** Credential placeholders: the agent holds a handle, the caller's token stays in the proxy. */
import { beforeAll, describe, expect, test } from "vitest";
import { get } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { eventually } from "../support/eventually.ts";
import { type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let agent: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;

function placeholding(ttl: Settings = {}): Promise<ProxyProcess> {
  return ProxyProcess.start(
    merge(
      settings({
        listener: { reverse_proxy_backend: agent.url },
        egress: {
          hosts: { "target.test": ["127.0.0.1"], "plain.test": ["127.0.0.1"] },
        },
      }),
      {
        pipeline: {
          inbound: {
            plugins: [
              {
                name: "jwt-validation",
                config: { issuer: idp.issuer, audience: "agent", placeholder_mode: true, ...ttl },
              },
            ],
          },
          outbound: {
            plugins: [
              {
                name: "token-exchange",
                config: {
                  token_url: idp.tokenUrl,
                  resolve_placeholders: true,
                  identity: { type: "client-secret", client_id: "a", client_secret: "b" },
                  routes: { rules: [{ host: "target.test", target_audience: "target" }] },
                },
              },
            ],
          },
        },
      },
    ),
  );
}

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(placeholding());
});

let counter = 0;

/** Sends a token in and answers what the agent got instead. */
async function enter(token: string, through = proxy): Promise<string> {
  const path = `/in-${(counter += 1)}`;
  const answer = await get(through.reverse, path, { Authorization: `Bearer ${token}` });
  expect(answer.status, answer.text).toBe(200);
  return agent.requestFor(path).header("authorization") ?? "";
}

async function leave(name: string, authorization: string, through = proxy) {
  const path = `/out-${(counter += 1)}`;
  const answer = await get(through.forward, `http://${name}:${agent.port}${path}`, {
    Authorization: authorization,
  });
  const [request] = agent.requestsFor(path);
  return {
    answer,
    authorization: request?.header("authorization"),
    reached: request !== undefined,
  };
}

describe("a placeholder", () => {
  test("F1: the agent never sees the token, and the target gets the exchanged one", async () => {
    const token = await idp.token({ claims: { sub: "f1" } });
    const handle = await enter(token);
    expect(handle).toMatch(/^Bearer abph_[\w-]{43}$/);
    const { answer, authorization } = await leave("target.test", handle);
    expect(answer.status).toBe(200);
    expect(authorization).toBe("Bearer exchanged-target");
    expect(idp.tokenCalls.at(-1)?.form.get("subject_token")).toBe(token);
  });

  test("F2: an unknown handle is 401 and asks nobody", async () => {
    const asked = idp.tokenCalls.length;
    const { answer, reached } = await leave("target.test", "Bearer abph_unknownhandle");
    expect(answer.status).toBe(401);
    expect(answer.json()).toMatchObject({
      error: "auth.unauthorized",
      message: "unresolvable credential placeholder",
    });
    expect(reached).toBe(false);
    expect(idp.tokenCalls).toHaveLength(asked);
  });

  test("F3: an ordinary token is exchanged as ever", async () => {
    const token = await idp.token({ claims: { sub: "f3" } });
    const { authorization } = await leave("target.test", `Bearer ${token}`);
    expect(authorization).toBe("Bearer exchanged-target");
    expect(idp.tokenCalls.at(-1)?.form.get("subject_token")).toBe(token);
  });

  test("F4, CRED-01: on a host without a route the token never leaves", async () => {
    const token = await idp.token({ claims: { sub: "f4" } });
    const handle = await enter(token);
    const { answer, authorization } = await leave("plain.test", handle);
    expect(authorization ?? "").not.toContain(token.slice(0, 20));
    // The Go program forwards the handle unchanged; refusing it would be as safe.
    if (answer.status === 200) expect(authorization).toBe(handle);
    else expect([401, 403]).toContain(answer.status);
  });

  test("F7: every request gets a handle of its own", async () => {
    const token = await idp.token({ claims: { sub: "f7" } });
    const handles = await Promise.all(Array.from({ length: 20 }, () => enter(token)));
    expect(new Set(handles).size).toBe(20);
    expect(handles.every((handle) => handle.startsWith("Bearer abph_"))).toBe(true);
  });

  test("the record shows the first eleven characters of a handle and no more", async () => {
    const handle = await enter(await idp.token({ claims: { sub: "shown" } }));
    const events = (await proxy.sessions("/v1/sessions/default")).text;
    const secret = handle.slice("Bearer ".length);
    expect(events).toContain("placeholder_minted");
    expect(events).not.toContain(secret.slice(0, 12));
    expect(proxy.stderr).not.toContain(secret.slice(0, 12));
  });

  test("a handle survives a reload", async () => {
    const handle = await enter(await idp.token({ claims: { sub: "reload" } }));
    const { readFile } = await import("node:fs/promises");
    await proxy.reload(`${await readFile(proxy.path("proxy.yaml"), "utf8")}\n# changed\n`);
    expect((await leave("target.test", handle)).authorization).toBe("Bearer exchanged-target");
  });

  test("F8: a handle ends with its time", async () => {
    const brief = await own(placeholding({ placeholder_ttl: "1s" }));
    const handle = await enter(await idp.token({ claims: { sub: "f8" } }), brief);
    await eventually(async () => {
      const { answer } = await leave("target.test", handle, brief);
      return answer.status === 401;
    });
  });
});
