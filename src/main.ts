#!/usr/bin/env node
/** The process edge: arguments, signals and exit codes. 0 success, 1 failure while running, 2 bad usage or file. */
import { parseCommand, usage } from "./app/command-line.ts";

const command = parseCommand(process.argv.slice(2));
switch (command.kind) {
  case "help":
    process.stdout.write(usage);
    break;
  case "version": {
    const { packageVersion } = await import("./app/version.ts");
    process.stdout.write(`authbridge-proxy ${packageVersion()}\n`);
    break;
  }
  case "usage-error":
    process.stderr.write(`authbridge-proxy: ${command.message}\n\n${usage}`);
    process.exitCode = 2;
    break;
  case "schema": {
    const { printSchema } = await import("./app/print-schema.ts");
    process.stdout.write(printSchema());
    break;
  }
  case "check": {
    const { check } = await import("./app/check.ts");
    process.exitCode = await check(command);
    break;
  }
  case "run": {
    const { run } = await import("./app/run.ts");
    process.exitCode = await run(command);
    break;
  }
}
