/** Imported before the helpers that start the program: a soak is of the built one, unless AUTHBRIDGE_MAIN names another; and it waits long. */
import { fileURLToPath } from "node:url";

process.env["AUTHBRIDGE_MAIN"] ??= fileURLToPath(new URL("../../dist/main.js", import.meta.url));
// What is judged is whether a request is answered, not how fast.
process.env["AUTHBRIDGE_TEST_PATIENCE"] ??= "12";
