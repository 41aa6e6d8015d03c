import { expect, test } from "vitest";
import { DoctorReport, fail, findingLine, pass } from "../../../../src/cli/doctor/report.ts";

function report() {
  const lines: string[] = [];
  return { lines, report: new DoctorReport((finding) => void lines.push(findingLine(finding))) };
}

test("a check that never answers fails at its limit and hears that it is over", async () => {
  const { lines, report: doctor } = report();
  let heard: AbortSignal | undefined;
  const passed = await doctor.check("slow", 20, (signal) => {
    heard = signal;
    return new Promise(() => undefined);
  });
  expect(passed).toBe(false);
  expect(heard?.aborted).toBe(true);
  expect(lines).toEqual([expect.stringMatching(/^FAIL {2}slow .*no result within 0\.02 s/)]);
});

test("a check that throws is a failure and not the end", async () => {
  const { report: doctor } = report();
  const passed = await doctor.check("broken", 1_000, () => Promise.reject(new Error("boom")));
  expect(passed).toBe(false);
  expect(await doctor.check("next", 1_000, () => Promise.resolve(pass("fine")))).toBe(true);
  expect(doctor.failures).toBe(1);
});

test("one finding is one line, whatever a server put into its words", () => {
  const { lines, report: doctor } = report();
  doctor.add("x", fail("a\nb\u001b[31mc", "do\rthis"));
  expect(lines).toEqual(["FAIL  x           a b [31mc — do this\n"]);
});
