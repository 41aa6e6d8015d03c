/** The console over the traffic of two agents that ask models, call tools and are refused some of it. */
import type { Browser, Locator, Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { browserPath, launchBrowser, openPage, screenshot } from "../support/browser.ts";
import { TestAuthority } from "../support/certs.ts";
import { request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const json = { "Content-Type": "application/json" };
const basic = (name: string, password: string): string =>
  `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`;

const completion = JSON.stringify({
  id: "c-1",
  model: "gpt-4o-mini",
  choices: [
    {
      finish_reason: "tool_calls",
      message: {
        role: "assistant",
        tool_calls: [
          { id: "t", type: "function", function: { name: "get_forecast", arguments: "{}" } },
        ],
      },
    },
  ],
  usage: { prompt_tokens: 900, completion_tokens: 134, total_tokens: 1_034 },
});
const prompt = JSON.stringify({
  model: "gpt-4o-mini",
  messages: [{ role: "user", content: "Will it rain in Berlin?" }],
});
const toolCall = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: { name: "get_forecast", arguments: { city: "Berlin" } },
});
const toolResult = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  result: { content: [{ type: "text", text: "rain" }] },
});

let browser: Browser;
let origin: HttpOrigin;
let proxy: ProxyProcess;

/** One request of an agent; resolves with its status. */
async function ask(agent: string, host: string, path: string, body?: string): Promise<number> {
  const authority = `${host}:${origin.port}`;
  const { status } = await request(proxy.forward, {
    method: body === undefined ? "GET" : "POST",
    target: `http://${authority}${path}`,
    headers: {
      Host: authority,
      "Proxy-Authorization": basic(agent, "pass"),
      ...(body === undefined ? {} : { ...json, "Content-Length": String(Buffer.byteLength(body)) }),
    },
    ...(body === undefined ? {} : { body }),
  });
  return status;
}

async function opened(hash = "", width = 1500, height = 900): Promise<Page> {
  const { page } = await openPage(browser, { width, height });
  const { host, port } = proxy.address("sessions");
  await page.goto(`http://${host}:${port}/${hash}`);
  await page.locator('#feed[data-state="live"]').waitFor();
  return page;
}

const rows = (page: Page): Locator => page.locator(".rows .row");

describe.skipIf(browserPath === undefined)("the console's views in headless Chromium", () => {
  beforeAll(async () => {
    origin = await own(HttpOrigin.launch());
    origin.on("/v1/chat/completions", () => reply(200, completion, json));
    origin.on("/mcp", () => reply(200, toolResult, json));
    const hosts = ["api.models.test", "mcp.weather.test", "api.weather.test", "paste.example.test"];
    proxy = await own(
      ProxyProcess.start(
        settings({
          egress: { hosts: Object.fromEntries(hosts.map((host) => [host, ["127.0.0.1"]])) },
          callers: {
            clients: ["weather-agent", "research-agent"].map((name) => ({
              name,
              password: "pass",
            })),
          },
          ...outbound("mcp-parser", "inference-parser", {
            name: "egress-policy",
            config: { allow: hosts.slice(0, 3), deny: [{ host: hosts[2], paths: ["/admin/**"] }] },
          }),
        }),
      ),
    );
    for (let turn = 0; turn < 12; turn += 1) {
      const agent = turn % 3 === 0 ? "research-agent" : "weather-agent";
      expect(await ask(agent, "api.models.test", "/v1/chat/completions", prompt)).toBe(200);
      expect(await ask(agent, "mcp.weather.test", "/mcp", toolCall)).toBe(200);
      expect(await ask(agent, "api.weather.test", `/v2/points/${turn}`)).toBe(200);
      if (turn % 4 === 0) expect(await ask(agent, "paste.example.test", "/new", "x=1")).toBe(403);
    }
    expect(await ask("research-agent", "api.weather.test", "/admin/keys")).toBe(403);
    browser = await launchBrowser();
    return () => browser.close();
  });

  test("the overview is the first view, and its figures are those of the traffic", async () => {
    const page = await opened();
    expect(page.url()).toContain("#overview");
    const tile = (name: string): Locator => page.locator(".tile", { hasText: name }).locator("b");
    await expect.poll(() => tile("Requests").textContent()).toBe("40");
    expect(await tile("Refused").textContent()).toBe("4");
    expect(await tile("Tokens").textContent()).toBe("12.4K");
    const ranking = (title: string): Locator =>
      page.locator(".overview section.card", { has: page.getByRole("heading", { name: title }) });
    await ranking("Hosts").getByText("api.models.test").waitFor();
    await ranking("Models").getByText("gpt-4o-mini").waitFor();
    await ranking("Tools").getByText("get_forecast").waitFor();
    await ranking("Callers").getByText("weather-agent").waitFor();
    expect(await ranking("Rules that refuse").textContent()).toContain("egress-policy");
    const map = page.locator("svg.map");
    expect(await map.getAttribute("aria-label")).toBe("Egress map: 2 callers, 4 hosts");
    expect(await map.locator("path.way.refused").count()).toBe(2 + 1);
    expect(await page.locator("figure svg").first().getAttribute("aria-label")).toMatch(
      /^Requests: 40 in all/,
    );
  });

  test("the overview leads to the flows that it counts", async () => {
    const page = await opened();
    await page.locator("svg.map text.link", { hasText: "paste.example.test" }).click();
    await expect.poll(() => rows(page).count()).toBe(3);
    for (const row of await rows(page).all()) expect(await row.textContent()).toContain("denied");
  });

  test("the address keeps the filter, so that it can be passed on", async () => {
    const page = await opened("#flows");
    await page.locator("#filter").fill('tool:"get_forecast" host:mcp');
    await expect.poll(() => rows(page).count()).toBe(12);
    const url = page.url();
    expect(url).toContain("#flows?filter=");
    await page.goto("about:blank");
    await page.goto(url);
    await expect.poll(() => rows(page).count()).toBe(12);
    expect(await page.locator("#filter").inputValue()).toBe('tool:"get_forecast" host:mcp');
    expect(await rows(page).first().textContent()).toContain("get_forecast");
  });

  test("a flow is copied as curl, as a question to explain, and as a line of policy", async () => {
    const page = await opened("#flows?filter=%2Fadmin%2Fkeys");
    await rows(page).first().click();
    const copied = async (name: string): Promise<string> => {
      const button = page.locator(".copies button", { hasText: name });
      await button.click();
      const done = page.locator(".copies button[data-copied]").filter({ hasText: "Copied" });
      await done.waitFor();
      const text = (await done.getAttribute("data-copied")) ?? "";
      await button.waitFor();
      return text;
    };
    const place = `api.weather.test:${origin.port}`;
    const { host, port } = proxy.forward;
    expect(await copied("Copy as curl")).toBe(
      `curl -x http://${host}:${port} 'http://${place}/admin/keys'`,
    );
    expect(await copied("Copy as explain")).toBe(
      `authbridge-proxy explain --config FILE --url 'http://${place}/admin/keys' --method 'GET' --caller 'research-agent'`,
    );
    expect(await copied("Copy as policy line")).toBe(
      `- { host: "api.weather.test", port: ${origin.port}, methods: ["GET"], paths: ["/admin/keys"] }`,
    );
  });

  test("what is chosen among the refusals is one addition, to copy or to download", async () => {
    const page = await opened("#denials");
    await page.locator("#choose-all").check();
    const addition = page.locator(".addition pre");
    await addition.filter({ hasText: "paste.example.test" }).waitFor();
    const text = (await addition.textContent()) ?? "";
    expect(text.match(/^\+ network_policies:$/gm)).toHaveLength(1);
    for (const line of text.trimEnd().split("\n")) expect(line.startsWith("+ ")).toBe(true);
    const [offered] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Download" }).click(),
    ]);
    expect(offered.suggestedFilename()).toBe("policy-addition.yaml");
    await page.locator("#choose-all").uncheck();
    await page.locator(".addition").waitFor({ state: "hidden" });
  });

  test("a session has turns, tools, tokens and a timeline", async () => {
    const page = await opened("#sessions");
    const card = page.locator('section[aria-label^="Session"]');
    await card.locator("svg.spans").waitFor();
    const text = (await card.textContent()) ?? "";
    expect(text).toContain("get_forecast");
    expect(text).toMatch(/Tokens12\.4K/);
    expect(text).toMatch(/Refused4/);
    expect(await card.locator("rect.span").count()).toBe(40);
    expect(await card.locator("rect.span.refused").count()).toBe(4);
  });

  test("health is in figures", async () => {
    const page = await opened("#health");
    const memory = page.locator(".tile", { hasText: "Memory" }).locator("b");
    expect(await memory.textContent()).toMatch(/^\d+(\.\d)? MiB$/);
    expect(await page.locator("pre").count()).toBe(0);
  });

  test.each([
    ["overview", ".tile"],
    ["flows", ".rows .row"],
    ["sessions", "svg.spans"],
    ["denials", "article.card"],
    ["health", ".tile"],
  ])("%s fits a telephone", async (view, part) => {
    const page = await opened(`#${view}`, 390, 844);
    await page.locator(part).first().waitFor();
    const wide = await page.evaluate("document.documentElement.scrollWidth");
    expect(wide).toBeLessThanOrEqual(390);
    const seen = await page.locator(part).first().boundingBox();
    expect(seen?.width ?? 0).toBeLessThanOrEqual(390);
    await screenshot(page, `console-${view}-telephone`);
  });

  test("a page that has nothing to show says what to do", async () => {
    const idle = await own(ProxyProcess.start(settings()));
    const { page } = await openPage(browser);
    const { host, port } = idle.address("sessions");
    await page.goto(`http://${host}:${port}/#flows`);
    await page.locator(".empty", { hasText: "HTTP_PROXY" }).waitFor();
    await page.locator("#filter").fill("nothing");
    await page.locator(".empty", { hasText: "HTTP_PROXY" }).waitFor();
  });

  test("everything of the page together is small", async () => {
    const { page } = await openPage(browser);
    let bytes = 0;
    page.on("response", (response) => {
      if (!response.url().includes("/v1/"))
        void response.body().then((body) => (bytes += body.length));
    });
    const { host, port } = proxy.address("sessions");
    await page.goto(`http://${host}:${port}/`);
    await page.locator('#feed[data-state="live"]').waitFor();
    await expect.poll(() => bytes).toBeGreaterThan(50_000);
    expect(bytes).toBeLessThan(150_000);
  });

  test.each(["light", "dark"] as const)("every view is there in %s", async (colorScheme) => {
    const page = await opened("", 1280, 800);
    await page.emulateMedia({ colorScheme });
    for (const [key, view] of [
      ["1", "overview"],
      ["2", "flows"],
      ["3", "sessions"],
      ["4", "denials"],
      ["5", "pipeline"],
      ["6", "plugins"],
      ["7", "configuration"],
      ["8", "health"],
    ] as const) {
      await page.keyboard.press(key);
      await page
        .locator('#tabs [aria-selected="true"]', { hasText: new RegExp(view, "i") })
        .waitFor();
      if (view !== "flows") await page.locator("#view h2").first().waitFor();
      if (view === "overview") await page.locator(".tile").first().waitFor();
      if (view === "sessions") await page.locator("svg.spans").waitFor();
      if (view === "flows") await rows(page).nth(2).click();
      if (view === "denials") await page.locator("#choose-all").check();
      await screenshot(page, `console-${view}-${colorScheme}`);
      if (view === "flows") await page.keyboard.press("Escape");
    }
  });
});

describe.skipIf(browserPath === undefined)("connections that were opened", () => {
  test("are folded into their requests, until somebody wants to see them", async () => {
    const authority = await TestAuthority.create();
    const secure = await own(TlsOrigin.start(await authority.server(["api.allowed.test"])));
    const at = `api.allowed.test:${secure.port}`;
    const bridge = await own(
      BridgeProxy.start({ ports: [secure.port], originCa: authority.caPem, otherwise: "allow" }),
    );
    expect((await bridge.get(at, "/inside")).status).toBe(200);
    const driven = await launchBrowser();
    try {
      const { page } = await openPage(driven);
      const { host, port } = bridge.address("sessions");
      await page.goto(`http://${host}:${port}/#flows`);
      await rows(page).filter({ hasText: "/inside" }).waitFor();
      await expect.poll(() => rows(page).count()).toBe(1);
      await page.getByRole("button", { name: "Connections" }).click();
      await expect.poll(() => rows(page).count()).toBe(2);
      expect(page.url()).toContain("connections=shown");
    } finally {
      await driven.close();
    }
  });
});
