/** Puts the console's files beside the compiled code: they are served as they are. */
import { cpSync } from "node:fs";

const from = new URL("../src/admin/console", import.meta.url);
const to = new URL("../dist/admin/console", import.meta.url);

cpSync(from, to, { recursive: true, filter: (path) => !path.endsWith("tsconfig.json") });
