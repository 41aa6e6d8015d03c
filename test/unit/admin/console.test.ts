import { expect, test } from "vitest";
import { consoleRoutes } from "../../../src/admin/console.ts";

test("/console leads to the page, also behind a prefix", () => {
  const route = consoleRoutes().find(({ path }) => path === "/console");
  expect(route?.handle({ query: new URLSearchParams(), rest: "" })).toMatchObject({
    status: 308,
    headers: { Location: "./" },
  });
});
