/** Imported before the helpers that start the program: a soak is of the built one, unless AUTHBRIDGE_MAIN names another. */
import { fileURLToPath } from "node:url";

process.env["AUTHBRIDGE_MAIN"] ??= fileURLToPath(new URL("../../dist/main.js", import.meta.url));
