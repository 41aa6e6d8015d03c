import { expect, test } from "vitest";
import { healthRoutes } from "../../../src/admin/health.ts";
import { serve } from "./client.ts";

test("/healthz and /livez answer an empty 200 whatever the plugins say", async () => {
  const { get } = await serve(healthRoutes({ readiness: () => "draining" }));
  expect(await get("/healthz")).toMatchObject({ status: 200, body: "" });
  expect(await get("/livez")).toMatchObject({ status: 200, body: "" });
});

test("/readyz is 200 when nothing stands against it and 503 with the reason otherwise", async () => {
  let reason: string | undefined = "inbound plugin not ready: jwt-validation";
  const { get } = await serve(healthRoutes({ readiness: () => reason }));
  const before = await get("/readyz");
  expect(before.status).toBe(503);
  expect(before.headers["content-type"]).toMatch(/^text\/plain/);
  expect(before.body).toBe("inbound plugin not ready: jwt-validation\n");
  reason = undefined;
  expect(await get("/readyz")).toMatchObject({ status: 200, body: "" });
});

test("probes need no secret", async () => {
  const secret = { reveal: () => "s" };
  const { get } = await serve(healthRoutes({ readiness: () => undefined }), { secret });
  expect((await get("/readyz")).status).toBe(200);
});
