/** The response of an agent over A2A, event by event, folded into the view of the call. */
import {
  bounded,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  textOf,
} from "../../http/json-access.ts";
import { type A2aView, maxTextChars, shortText, textOfParts } from "../../protocols/a2a-message.ts";

/** States after which nothing follows on this response. */
const finalStates: ReadonlySet<string> = new Set([
  "completed",
  "failed",
  "canceled",
  "rejected",
  "input-required",
  "auth-required",
]);

const maxErrorChars = 1_024;

/**
 * The view with a response, made from the request's.
 *
 * It is a new object, and complete at any time: a stream that breaks off leaves what came of it.
 */
export class A2aFold {
  readonly view: A2aView;
  #isError = false;
  #isEmpty = true;

  constructor(request: A2aView) {
    this.view = { ...request };
  }

  /** True when the agent responded with an error of the protocol. */
  get isError(): boolean {
    return this.#isError;
  }

  get isEmpty(): boolean {
    return this.#isEmpty;
  }

  /** One response or event: in the envelope of JSON-RPC, or bare as REST sends it. */
  add(value: JsonObject): void {
    this.#isEmpty = false;
    if (isObject(value["error"])) {
      this.#isError = true;
      this.#fail(textOf(value["error"]["message"]) ?? "error");
      return;
    }
    const result = "jsonrpc" in value ? objectOf(value["result"]) : value;
    this.#result(result);
  }

  #result(result: JsonObject): void {
    const { task, message, statusUpdate, artifactUpdate } = result;
    if (isObject(task)) this.#task(task);
    else if (isObject(message) && result["kind"] === undefined) this.#message(message);
    else if (isObject(statusUpdate)) this.#status(statusUpdate);
    else if (isObject(artifactUpdate)) this.#artifact(artifactUpdate);
    else this.#tagged(result);
  }

  /** 0.3 says by `kind` what a result is; a task that was asked for has none in 1.0. */
  #tagged(result: JsonObject): void {
    switch (result["kind"]) {
      case "message":
        this.#message(result);
        return;
      case "status-update":
        this.#status(result);
        return;
      case "artifact-update":
      case "artifact":
        this.#artifact(result);
        return;
      default:
        if (isObject(result["status"])) this.#task(result);
        else this.#ids(result, undefined);
    }
  }

  #task(task: JsonObject): void {
    this.#ids(task, task["id"]);
    const texts = objectsOf(task["artifacts"]).map(({ parts }) => textOfParts(parts, ""));
    const artifact = texts.filter((text) => text !== "").join("\n");
    // A task is sent whole: it replaces what its events brought.
    if (artifact !== "") this.view.artifact = bounded(artifact, maxTextChars);
    this.#state(objectOf(task["status"]), true);
  }

  #message(message: JsonObject): void {
    this.#ids(message, undefined);
    this.#append(textOfParts(message["parts"], "\n"));
  }

  #status(update: JsonObject): void {
    this.#ids(update, undefined);
    this.#state(objectOf(update["status"]), update["final"] === true);
  }

  #artifact(update: JsonObject): void {
    this.#ids(update, undefined);
    this.#append(textOfParts(objectOf(update["artifact"])["parts"], ""));
  }

  #state(status: JsonObject, isFinal: boolean): void {
    const said = shortText(status["state"]);
    if (said === undefined) return;
    const state = said
      .replace(/^TASK_STATE_/, "")
      .toLowerCase()
      .replaceAll("_", "-");
    if (!isFinal && !finalStates.has(state)) return;
    this.view.finalStatus = state;
    const words = textOfParts(objectOf(status["message"])["parts"], "\n");
    if (state === "failed" || state === "rejected") this.#fail(words);
    // Many agents give their last words with the state and not as an artifact.
    else if (this.view.artifact === undefined) this.#append(words);
  }

  /** The request's own conversation stays: another one in the response would tear the two apart. */
  #ids(result: JsonObject, id: unknown): void {
    const { view } = this;
    const sessionId = shortText(result["contextId"]) ?? shortText(result["sessionId"]);
    const taskId = shortText(result["taskId"]) ?? shortText(id);
    if (view.sessionId === undefined && sessionId !== undefined) view.sessionId = sessionId;
    if (view.taskId === undefined && taskId !== undefined) view.taskId = taskId;
  }

  #append(text: string): void {
    if (text === "") return;
    const { artifact = "" } = this.view;
    if (artifact.length > maxTextChars) return;
    this.view.artifact = bounded(artifact + text, maxTextChars);
  }

  #fail(message: string): void {
    if (message !== "") this.view.errorMessage = bounded(message, maxErrorChars);
  }
}
