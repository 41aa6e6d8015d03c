import { describe, expect, test } from "vitest";
import { denialRoutes } from "../../../src/admin/denials.ts";
import { serve } from "./client.ts";

const routes = denialRoutes({
  observations: () => [{ plugin: "egress-policy", observed: { denials: [] } }],
  additions: (chosen) => [
    {
      plugin: "egress-policy",
      addition: { text: [...chosen].join(","), file: "/etc/policy.yaml" },
    },
  ],
});

describe("/v1/policy/suggestion", () => {
  test("asks for one addition for everything that was chosen", async () => {
    const server = await serve(routes);
    const query = "denial=a.example:443%20/usr/bin/curl&denial=b.example:80%20%3Cunresolved%3E";
    const { status, body } = await server.get(`/v1/policy/suggestion?${query}`);
    expect(status).toBe(200);
    expect(JSON.parse(body)).toEqual({
      instances: [
        {
          plugin: "egress-policy",
          addition: {
            text: "a.example:443 /usr/bin/curl,b.example:80 <unresolved>",
            file: "/etc/policy.yaml",
          },
        },
      ],
    });
  });

  test.each([
    ["nothing", ""],
    ["too much", Array.from({ length: 513 }, (_, at) => `denial=h${at}:1%20x`).join("&")],
  ])("is 400 for %s", async (_what, query) => {
    const server = await serve(routes);
    const { status, body } = await server.get(`/v1/policy/suggestion?${query}`);
    expect(status).toBe(400);
    expect(body).toContain("denial names what to allow");
  });
});
