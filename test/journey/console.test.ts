/** The console in a real browser, over a real proxy and its real events. */
import { Agent, request as sendRequest } from "node:http";
import type { Browser, Page } from "playwright-core";
import { beforeAll, describe, expect, test } from "vitest";
import {
  browserPath,
  launchBrowser,
  openPage,
  screenshot,
  type WatchedPage,
} from "../support/browser.ts";
import { get } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let browser: Browser;
let origin: HttpOrigin;

const config = (): Parameters<typeof ProxyProcess.start>[0] =>
  settings({
    session: { max_events: 30_000 },
    egress: { hosts: { "open.test": ["127.0.0.1"], "closed.test": ["127.0.0.1"] } },
    ...outbound({
      name: "egress-policy",
      config: { allow: ["open.test"], deny: [{ host: "open.test", paths: ["/admin/**"] }] },
    }),
  });

/** One request through the proxy, whatever its answer. */
async function pass(proxy: ProxyProcess, host: string, path = "/"): Promise<number> {
  const authority = `${host}:${origin.port}`;
  return (await get(proxy.forward, `http://${authority}${path}`, { Host: authority })).status;
}

async function started(): Promise<ProxyProcess> {
  return own(ProxyProcess.start(config()));
}

async function opened(proxy: ProxyProcess, hash = "#flows"): Promise<WatchedPage> {
  const watched = await openPage(browser);
  const { host, port } = proxy.address("sessions");
  await watched.page.goto(`http://${host}:${port}/${hash}`);
  await watched.page.locator('#feed[data-state="live"]').waitFor();
  return watched;
}

const rows = (page: Page): ReturnType<Page["locator"]> => page.locator(".rows .row");

describe.skipIf(browserPath === undefined)("the console in headless Chromium", () => {
  beforeAll(async () => {
    origin = await own(HttpOrigin.launch());
    browser = await launchBrowser();
    return () => browser.close();
  });

  test("shows flows as they happen, refused ones with who refused them", async () => {
    const proxy = await started();
    const { page, requests, complaints } = await opened(proxy);
    await pass(proxy, "open.test", "/hello");
    await rows(page).filter({ hasText: "/hello" }).filter({ hasText: "allowed" }).waitFor();
    await pass(proxy, "closed.test", "/secret-plans");
    const refused = rows(page).filter({ hasText: "/secret-plans" });
    await refused.filter({ hasText: "denied" }).waitFor();
    expect(await refused.textContent()).toContain("egress-policy");
    await screenshot(page, "console-live");
    const { host, port } = proxy.address("sessions");
    expect(requests.filter((url) => !url.startsWith(`http://${host}:${port}/`))).toEqual([]);
    expect(complaints).toEqual([]);
  });

  test("shows what happened before it was opened", async () => {
    const proxy = await started();
    await pass(proxy, "open.test", "/before");
    const { page } = await opened(proxy);
    await rows(page).filter({ hasText: "/before" }).waitFor();
  });

  test("filters by words and fields, and back", async () => {
    const proxy = await started();
    for (const path of ["/one", "/two", "/admin/three"]) await pass(proxy, "open.test", path);
    const { page } = await opened(proxy);
    await expect.poll(() => rows(page).count()).toBe(3);
    const box = page.locator("#filter");
    for (const [query, count] of [
      ["decision:denied", 1],
      ["-decision:denied", 2],
      ["/two", 1],
      ["host:open plugin:egress /one", 1],
      ['rule:"deny[0]"', 1],
      ["nothing-like-it", 0],
      ["", 3],
    ] as const) {
      await box.fill(query);
      await expect.poll(() => rows(page).count(), { message: query }).toBe(count);
    }
  });

  test("opens the timeline of a flow and of its session", async () => {
    const proxy = await started();
    await pass(proxy, "open.test", "/admin/users?token=hidden-in-query");
    const { page } = await opened(proxy);
    await rows(page).first().click();
    const detail = page.locator(".detail");
    await detail.locator("li", { hasText: "egress-policy" }).first().waitFor();
    expect(await detail.textContent()).toMatch(/deny.*Refused.*403/s);
    expect(await page.content()).not.toContain("hidden-in-query");
    await screenshot(page, "console-detail");
    await detail.locator("button.link").click();
    await page.locator('section[aria-label="Session"]').waitFor();
  });

  test("works by keyboard", async () => {
    const proxy = await started();
    for (const path of ["/first", "/second"]) await pass(proxy, "open.test", path);
    const { page } = await opened(proxy);
    await expect.poll(() => rows(page).count()).toBe(2);
    await page.keyboard.press("j");
    const selected = page.locator('.row[aria-selected="true"]');
    await selected.filter({ hasText: "/second" }).waitFor();
    await page.keyboard.press("j");
    await selected.filter({ hasText: "/first" }).waitFor();
    await page.keyboard.press("k");
    await selected.filter({ hasText: "/second" }).waitFor();
    await page.keyboard.press("Escape");
    await page.locator("aside").waitFor({ state: "hidden" });
    await page.keyboard.press("/");
    await page.keyboard.type("/first");
    await expect.poll(() => rows(page).count()).toBe(1);
    await page.keyboard.press("Escape");
    await page.keyboard.press("?");
    await page.locator("#keys[open]").waitFor();
    await page.keyboard.press("Escape");
    for (const [key, title] of [
      ["1", "Overview"],
      ["3", "Sessions"],
      ["4", "Refused, by reason"],
      ["5", "Inbound, to the agent"],
      ["6", "Plugins of this version"],
      ["7", "Configuration"],
      ["8", "Health"],
    ] as const) {
      await page.keyboard.press(key);
      await page.locator("#view h2", { hasText: title }).first().waitFor();
      await screenshot(page, `console-view-${key}`);
    }
  });

  test("groups refusals with their reason and the rule that would allow them", async () => {
    const proxy = await started();
    for (let times = 0; times < 3; times += 1) await pass(proxy, "closed.test", "/plans");
    const { page } = await opened(proxy, "#denials");
    const card = page.locator(".card", { hasText: "closed.test" });
    await card.filter({ hasText: "3×" }).waitFor();
    await card.getByRole("checkbox").check();
    const addition = page.locator(".addition pre");
    await addition.filter({ hasText: 'host: "closed.test"' }).waitFor();
    expect(await addition.textContent()).toContain("/plans");
    await card.getByRole("button", { name: "Show the flows" }).click();
    await expect.poll(() => rows(page).count()).toBe(3);
  });

  test("offers no rule for what policy suggest never opens", async () => {
    const proxy = await started();
    await pass(proxy, "169.254.169.254");
    const { page } = await opened(proxy, "#denials");
    const card = page.locator(".card", { hasText: "169.254.169.254" });
    await card.locator("pre", { hasText: "cloud metadata services are never opened" }).waitFor();
    expect(await card.textContent()).not.toContain("A rule that would allow it");
  });

  test("is dark where the system is, and where the reader wants it", async () => {
    const { page } = await opened(await started());
    const colour = (): Promise<string> =>
      page.evaluate("getComputedStyle(document.documentElement).backgroundColor");
    await page.emulateMedia({ colorScheme: "light" });
    const light = await colour();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await colour();
    expect(dark).not.toBe(light);
    await screenshot(page, "console-dark");
    await page.locator("#theme").click();
    expect(await colour()).toBe(light);
    await page.locator("#theme").click();
    expect(await colour()).toBe(dark);
  });

  test("what an agent sends is text", async () => {
    const proxy = await started();
    await pass(proxy, "open.test", "/<img%20src=x%20onerror=alert(1)>'\"");
    const { page, complaints } = await opened(proxy);
    await expect.poll(() => rows(page).count()).toBeGreaterThan(0);
    await rows(page).first().click();
    expect(await page.locator("img").count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  test("holds 10,000 events with a handful of elements, newest first", async () => {
    const proxy = await started();
    const agent = new Agent({ keepAlive: true, maxSockets: 16 });
    const authority = `open.test:${origin.port}`;
    const one = (index: number): Promise<void> =>
      new Promise((resolve, reject) => {
        const path = `http://${authority}/n${index}`;
        sendRequest({ ...proxy.forward, agent, path, headers: { Host: authority } }, (response) => {
          response.resume().once("end", resolve);
        })
          .once("error", reject)
          .end();
      });
    for (let from = 0; from < 5_000; from += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, index) => one(from + index)));
    }
    agent.destroy();
    const { page, complaints } = await opened(proxy);
    await expect
      .poll(() => page.locator(".bar .count").textContent(), { timeout: 15_000 })
      .toBe("5000");
    expect(await rows(page).count()).toBeLessThan(100);
    await page.locator(".scroll").evaluate((list) => list.scrollTo(0, list.scrollHeight));
    await rows(page).filter({ hasText: "/n0" }).first().waitFor();
    // Whoever reads far down is not moved by what comes.
    const before = await rows(page).nth(10).textContent();
    await pass(proxy, "open.test", "/late");
    await expect.poll(() => page.locator(".bar .count").textContent()).toBe("5001");
    await expect.poll(() => page.locator(".rows").textContent()).toContain(before ?? "?");
    await page.locator("#filter").fill("/late");
    await expect.poll(() => rows(page).count()).toBe(1);
    await screenshot(page, "console-10000");
    expect(complaints).toEqual([]);
  });

  test("comes back when the proxy does", async () => {
    const proxy = await started();
    const { page } = await opened(proxy);
    await proxy.stop();
    await page.locator('#feed:not([data-state="live"])').waitFor();
  });

  test("shows why a changed file was refused", async () => {
    const proxy = await started();
    await proxy.rewriteConfig("listener: [");
    await expect.poll(async () => (await proxy.reloadStatus()).reloads_failed).toBeGreaterThan(0);
    const { page } = await opened(proxy, "#configuration");
    await page.locator("#view", { hasText: "The last change was refused" }).waitFor();
    await page.locator("pre", { hasText: "proxy.yaml" }).waitFor();
  });
});
