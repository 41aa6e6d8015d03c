// What a JSON report of vitest says of the tests that failed: `node scripts/failed-tests.ts files|names|counts REPORT`.
import { readFileSync } from "node:fs";
import { relative } from "node:path";

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

const [wanted, path = ""] = process.argv.slice(2);
const report = JSON.parse(readFileSync(path, "utf8")) as Report;
const failed = report.testResults.filter(({ status }) => status === "failed");
const lines: Record<string, () => string[]> = {
  files: () => failed.map(({ name }) => relative(process.cwd(), name)),
  names: () =>
    failed.flatMap(({ name, assertionResults }) =>
      assertionResults
        .filter(({ status }) => status === "failed")
        .map(({ fullName }) => `${relative(process.cwd(), name)}: ${fullName}`),
    ),
  counts: () => [`${report.numPassedTests} ${report.numFailedTests}`],
};
for (const line of lines[wanted ?? ""]?.() ?? []) console.log(line);
