#!/usr/bin/env node
/** The process edge: arguments, signals and exit codes. 0 success, 1 failure while running, 2 bad usage or file. */
// As a whole: an old Node without some of its names has to get as far as the sentence about its age.
import nodeModule from "node:module";
import { parseCommand } from "./cli/arguments/command-line.ts";
import { nodeProblem, nodeRemedy } from "./cli/version.ts";
import { helpFor, usageFor } from "./cli/arguments/usage.ts";

const tooOld = nodeProblem(process.versions.node);
if (tooOld !== undefined) {
  const line = nodeRemedy(process.argv.slice(2));
  process.stderr.write(`authbridge-proxy: ${tooOld}; without installing one:\n  ${line}\n`);
  process.exit(2);
}
// Compiled code of the last start is used again, where there is a place to keep it; without one nothing is lost.
nodeModule.enableCompileCache();

const argv = process.argv.slice(2);
const command = parseCommand(argv);
switch (command.kind) {
  case "help":
    process.stdout.write(helpFor(argv));
    break;
  case "version": {
    const { packageVersion } = await import("./cli/version.ts");
    process.stdout.write(`authbridge-proxy ${packageVersion()}\n`);
    break;
  }
  case "usage-error":
    process.stderr.write(`authbridge-proxy: ${command.message}\n\n${usageFor(argv)}`);
    process.exitCode = 2;
    break;
  case "schema": {
    const { printSchema } = await import("./cli/schema.ts");
    process.stdout.write(printSchema());
    break;
  }
  case "check": {
    const { check } = await import("./cli/check.ts");
    process.exitCode = await check(command);
    break;
  }
  case "ca": {
    const { printCa } = await import("./cli/ca.ts");
    process.exitCode = await printCa(command);
    break;
  }
  case "env": {
    const { printEnvironment } = await import("./cli/env.ts");
    process.exitCode = await printEnvironment(command);
    break;
  }
  case "doctor": {
    const { doctor } = await import("./cli/doctor/doctor.ts");
    // A check that ran into its limit may have left a handle open; the report is complete.
    process.exit(await doctor(command));
    break;
  }
  case "run-command": {
    const { runBehindProxy } = await import("./cli/run.ts");
    // The proxy is closed by now; what a client left open must not hold the exit code back.
    process.exit(await runBehindProxy(command));
    break;
  }
  case "init": {
    const { writeStarter } = await import("./cli/init.ts");
    process.exitCode = await writeStarter(command);
    break;
  }
  case "explain": {
    const { explain } = await import("./cli/rehearsal/explain.ts");
    process.exitCode = await explain(command);
    break;
  }
  case "policy-test": {
    const { testPolicies } = await import("./cli/rehearsal/policy-test.ts");
    process.exitCode = await testPolicies(command);
    break;
  }
  case "policy-suggest": {
    const { suggestPolicy } = await import("./cli/rehearsal/suggest.ts");
    process.exitCode = await suggestPolicy(command);
    break;
  }
  case "tail": {
    const { tail } = await import("./cli/tail.ts");
    process.exitCode = await tail(command);
    break;
  }
  case "verify-audit": {
    const { verifyAudit } = await import("./cli/verify-audit.ts");
    process.exitCode = await verifyAudit(command);
    break;
  }
  case "demo": {
    const { demo } = await import("./cli/demo.ts");
    process.exitCode = await demo(command);
    break;
  }
  case "run": {
    const { run } = await import("./cli/serve.ts");
    process.exitCode = await run(command);
    break;
  }
}
