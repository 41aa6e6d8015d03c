import { expect, test } from "vitest";
import { invocation } from "../../../src/cli/invocation.ts";

test.each([
  [{}, "authbridge-proxy"],
  [{ npm_command: "exec" }, "npx authbridge-proxy"],
  [{ npm_command: "run-script" }, "authbridge-proxy"],
])("hints under %o begin with %s", (env, wanted) => {
  expect(invocation(env)).toBe(wanted);
});
