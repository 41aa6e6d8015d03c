/** `doctor`: what of a file works on this machine, check by check, with what to do about the rest. */
import { setTimeout as delay } from "node:timers/promises";
import { type LoadedConfig, loadConfig } from "../../config/load.ts";
import { formatProblem } from "../../yaml/problem.ts";
import { authorityObjection, openAuthority } from "../../app/bridge.ts";
import { withUnusedKeys } from "../../app/build-problems.ts";
import { probeBridge } from "./bridge.ts";
import { probeCommand, type TriedCommand } from "./command.ts";
import { connectThrough, verifiedTls } from "./connect.ts";
import {
  DoctorReport,
  fail,
  type Finding,
  findingLine,
  type NamedFinding,
  pass,
  skip,
} from "./report.ts";
import { printableJson } from "../event-line.ts";
import type { FileCommand } from "../config-file.ts";
import { proxyOfFile } from "../proxy-address.ts";
import { askOperator, probeListeners } from "./listeners.ts";
import { OwnInstance } from "../own-instance.ts";
import { forProbing, writeProbeFile } from "../own-file.ts";
import { buildServices } from "./services.ts";
import { examineCertificates } from "./certificates.ts";
import { examineState } from "./state.ts";
import { TemporaryDirectory } from "../temporary-directory.ts";
import { tokenChecks, tokenOf } from "./token.ts";

/** Long enough for a slow response, short enough for a command that is run interactively. */
const limitMs = 15_000;
const readyLimitMs = 5_000;
const readyPollMs = 50;
const soonMs = 30 * 86_400_000;
/** RFC 6761 section 6.4: nobody can have this name, so no origin is ever dialled for it. */
const probeName = "doctor.invalid";

interface DoctorCommand extends FileCommand, TriedCommand {
  /** A file with a token: nothing else is looked at then. */
  readonly tokenFile?: string;
  /** One JSON document at the end, in place of lines. */
  readonly json: boolean;
}

/** Prints the report and resolves with the exit code: 0 when everything passed, else 1. */
export async function doctor(command: DoctorCommand): Promise<number> {
  const findings: NamedFinding[] = [];
  const report = new DoctorReport((finding) => {
    if (command.json) findings.push(finding);
    else process.stdout.write(findingLine(finding));
  });
  const temporary = await TemporaryDirectory.make("authbridge-doctor-");
  try {
    await examine(command, report, temporary);
  } finally {
    await temporary.close();
  }
  const { failures } = report;
  const passed = failures === 0;
  if (command.json) process.stdout.write(`${printableJson({ passed, findings }, 2)}\n`);
  else process.stdout.write(passed ? "everything passed\n" : `${failures} failed\n`);
  return failures === 0 ? 0 : 1;
}

async function examine(
  command: DoctorCommand,
  report: DoctorReport,
  temporary: TemporaryDirectory,
): Promise<void> {
  const options = { lenient: command.lenient, env: process.env };
  const loaded = await withUnusedKeys(loadConfig(command.file, options));
  if (loaded.kind === "rejected") {
    for (const problem of loaded.problems)
      report.add("file", fail(formatProblem(problem), "correct the file; check prints the same"));
    return;
  }
  const { warnings } = loaded;
  const remarks = warnings.length === 0 ? "" : `; check prints its ${warnings.length} warning(s)`;
  report.add("file", pass(`${command.file} is valid${remarks}`));
  if (command.tokenFile !== undefined) return explainToken(loaded, report, command.tokenFile);
  let isRunning = false;
  await report.check("listener", limitMs, async (signal) => {
    const state = await probeListeners(loaded, signal);
    ({ isRunning } = state);
    return state.findings;
  });
  const isAuthorityFit = await report.check("ca", limitMs, () => examineAuthority(loaded));
  if (loaded.config.tls_bridge.client_certificates.length > 0)
    await report.check("certs", limitMs, async () => examineCertificates(loaded.config));
  await report.check("state", limitMs, () => examineState(loaded.config));
  const isBuilt = await examineServices(loaded, report);
  if (isRunning) await examineRunning(loaded, report, isAuthorityFit);
  if (!isBuilt || !isAuthorityFit) {
    report.add("start", skip("not tried: the pipeline or the CA is not fit for it"));
    return;
  }
  if (!isRunning) await examineOwn(loaded, report, temporary.path);
  if (command.command.length > 0) {
    const limit = command.timeoutMs + limitMs;
    await report.check("command", limit, () =>
      temporary.suspendedDuring(() => probeCommand(loaded, command, temporary.path)),
    );
  }
}

async function examineAuthority({ config }: LoadedConfig): Promise<Finding> {
  if (config.tls_bridge.mode !== "enabled") return skip("the TLS bridge is off");
  const objection = authorityObjection(config);
  if (objection !== undefined) return skip(objection);
  const { authority, caFile } = await openAuthority(config);
  const expires = authority.notAfter.toISOString();
  const facts = `${caFile}: ${authority.subject}, expires ${expires}`;
  if (authority.notAfter.getTime() - Date.now() < soonMs)
    return fail(facts, "it runs out within 30 days: put a new set in its place");
  return pass(facts);
}

/** Nothing but the token is looked at: whoever asks has the rest running. */
async function explainToken(
  loaded: LoadedConfig,
  report: DoctorReport,
  path: string,
): Promise<void> {
  const token = await tokenOf(path);
  if (typeof token === "string") {
    report.add("token", fail(token, "name a file with one token"));
    return;
  }
  let judges = 0;
  const isBuilt = await examineServices(loaded, report, (dependent) => {
    const checks = tokenChecks(dependent, token);
    judges += checks.length;
    return checks;
  });
  if (isBuilt && judges === 0)
    report.add("token", fail("no plugin judges tokens", "add jwt-validation to pipeline.inbound"));
}

/** Whether the pipelines could be built. What they depend on is looked at by the way, and does not count for it. */
async function examineServices(
  loaded: LoadedConfig,
  report: DoctorReport,
  checks?: Parameters<typeof buildServices>[1],
): Promise<boolean> {
  let isBuilt = false;
  await report.check("pipeline", limitMs * 4, async () => {
    const services = await buildServices(loaded, checks);
    isBuilt = services.problems.length === 0;
    try {
      for (const check of services.checks)
        await report.check(check.name, limitMs, (signal) => check.run(signal));
      if (isBuilt) return pass("every plugin accepts its configuration");
      return services.problems.map((text) => fail(text, "correct the file"));
    } finally {
      await services.close();
    }
  });
  return isBuilt;
}

async function examineRunning(
  loaded: LoadedConfig,
  report: DoctorReport,
  isAuthorityFit: boolean,
): Promise<void> {
  const { listener } = loaded.config;
  await report.check("ready", limitMs, async (signal) => {
    const response = await askOperator(listener.health_addr, "/readyz", signal);
    if (response?.status === 200) return pass("the running proxy is ready");
    const reason = response === undefined ? "does not answer" : response.body;
    return notReady(`the running proxy: ${reason}`);
  });
  const proxy = proxyOfFile(loaded.config);
  if (typeof proxy === "string") return;
  if (loaded.config.callers !== undefined || listener.forward_proxy_tls !== undefined) {
    report.add("connect", skip("only agents have what the running proxy asks for (callers)"));
    return;
  }
  await report.check("connect", limitMs, async (signal) => {
    const canTrust = isAuthorityFit && loaded.config.tls_bridge.ca === "file";
    const ca = canTrust ? await caOf(loaded) : undefined;
    return probeConnect(loaded, proxy, ca, signal);
  });
}

/** Starts the file's pipelines on ports of their own. */
async function examineOwn(
  loaded: LoadedConfig,
  report: DoctorReport,
  directory: string,
): Promise<void> {
  const config = forProbing(loaded, directory);
  let instance: OwnInstance | undefined;
  const isStarted = await report.check("start", limitMs, async () => {
    instance = await OwnInstance.start(await writeProbeFile(directory, "whole", config));
    return pass("the file starts");
  });
  const started = instance;
  if (!isStarted || started === undefined) return;
  try {
    await report.check("ready", limitMs, () => untilReady(started));
    const { forward } = started.addresses;
    if (forward === undefined) return;
    const isBridged = config.tls_bridge.mode === "enabled";
    const ca = isBridged ? (await openAuthority(config)).authority.caPem : undefined;
    await report.check("connect", limitMs, (signal) => probeConnect(loaded, forward, ca, signal));
    if (ca === undefined) return;
    await report.check("bridge", limitMs, (signal) => probeBridge(directory, config, ca, signal));
  } finally {
    await started.close();
  }
}

async function untilReady(instance: OwnInstance): Promise<Finding> {
  const deadline = performance.now() + readyLimitMs;
  for (;;) {
    const reason = instance.readiness();
    if (reason === undefined) return pass("every plugin is ready");
    if (performance.now() > deadline) return notReady(reason);
    await delay(readyPollMs);
  }
}

function notReady(reason: string): Finding {
  return fail(
    reason.trim(),
    "a plugin waits for a key set, a credential file or a service; the lines above say which is missing",
  );
}

async function caOf({ config }: LoadedConfig): Promise<string | undefined> {
  if (config.tls_bridge.mode !== "enabled") return undefined;
  return (await openAuthority(config)).authority.caPem;
}

/** With `ca`, and where policy lets an unknown name in, the handshake of the bridge is verified as well. */
async function probeConnect(
  { config }: LoadedConfig,
  proxy: { readonly host: string; readonly port: number },
  ca: string | undefined,
  signal: AbortSignal,
): Promise<Finding> {
  const port = config.tls_bridge.ports[0] ?? 443;
  const { status, socket } = await connectThrough({ proxy, host: probeName, port, signal });
  try {
    const response = `CONNECT to ${probeName} was answered ${status}`;
    if (status !== 200) return pass(`the forward proxy answers (${response}, as it should be)`);
    if (ca === undefined) return pass(`the forward proxy answers (${response})`);
    const secured = await verifiedTls(socket, probeName, ca, signal);
    if (typeof secured !== "string")
      return pass("the forward proxy answers, and its certificates verify against ca.crt");
    return fail(
      `the forward proxy's certificate does not verify against ca.crt: ${secured}`,
      "the proxy signs with another CA than the one in tls_bridge.ca_dir, or has not read it yet: restart it",
    );
  } finally {
    socket.destroy();
  }
}
