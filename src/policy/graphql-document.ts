/** Which operation of a GraphQL document runs, and which root fields it selects: no more of the language than that. */
import type { GraphqlOperation } from "./request-facts.ts";

/** The operation, or why none can be determined. */
export type GraphqlReading =
  | { readonly operation: GraphqlOperation; readonly error?: undefined }
  | { readonly operation?: undefined; readonly error: string };

const maxTokens = 20_000;
const maxDepth = 128;

/** A problem with a document; never leaves this file. */
class DocumentError extends Error {}

/** GraphQL October 2021 section 2.1: what is ignored, a string in either form, a name, a number, a punctuator. */
const lexer =
  /(?<ignored>[\s,\uFEFF]+|#[^\n\r]*)|(?<token>"""(?:\\"""|[^])*?"""|"(?:\\.|[^"\\\n\r])*"|[_A-Za-z]\w*|-?\d[\w.+-]*|\.\.\.|[!$&()/:=@[\]{|}])/y;

/** Reads a document; `operationName` says which of several operations runs. Never throws. */
export function readGraphqlDocument(text: string, operationName?: string): GraphqlReading {
  try {
    const document = new DocumentParser(tokenize(text));
    return { operation: document.select(operationName) };
  } catch (error) {
    if (error instanceof DocumentError) return { error: error.message };
    throw error;
  }
}

function tokenize(text: string): readonly string[] {
  const tokens: string[] = [];
  for (let at = 0; at < text.length; at = lexer.lastIndex) {
    lexer.lastIndex = at;
    const groups = lexer.exec(text)?.groups;
    if (groups === undefined) throw new DocumentError("the document has a character out of place");
    const { token } = groups;
    if (token === undefined) continue;
    tokens.push(token);
    if (tokens.length > maxTokens) throw new DocumentError(`more than ${maxTokens} tokens`);
  }
  return tokens;
}

/** One selection at the root: a field, or a fragment whose selections stand for it. */
type Selection =
  | { readonly kind: "field"; readonly name: string }
  | { readonly kind: "spread"; readonly name: string }
  | { readonly kind: "inline"; readonly selections: readonly Selection[] };

interface Operation {
  readonly type: string;
  readonly name: string | undefined;
  readonly selections: readonly Selection[];
}

const closing = new Map([
  ["{", "}"],
  ["(", ")"],
  ["[", "]"],
]);

class DocumentParser {
  readonly #tokens: readonly string[];
  readonly #operations: Operation[] = [];
  readonly #fragments = new Map<string, readonly Selection[]>();
  #at = 0;

  constructor(tokens: readonly string[]) {
    this.#tokens = tokens;
    while (this.#at < tokens.length) this.#definition();
  }

  select(operationName: string | undefined): GraphqlOperation {
    const operation = this.#chosen(operationName);
    const fields = new Set<string>();
    this.#collect(operation.selections, fields, new Set(), 0);
    return { operationType: operation.type, fields: [...fields], operationName: operation.name };
  }

  #chosen(wanted: string | undefined): Operation {
    const names = this.#operations.map(({ name }) => name);
    if (new Set(names).size < names.length) throw new DocumentError("two operations share a name");
    const [first, second] = this.#operations;
    if (first === undefined) throw new DocumentError("there is no operation");
    if (second !== undefined && names.includes(undefined)) {
      throw new DocumentError("an operation without name must stand alone");
    }
    // Some servers take an empty name for none.
    if (wanted === undefined || wanted === "") {
      if (second === undefined) return first;
      throw new DocumentError("several operations need operationName");
    }
    const found = this.#operations.find(({ name }) => name === wanted);
    if (found === undefined) throw new DocumentError("operationName names no operation");
    return found;
  }

  #definition(): void {
    const word = this.#next();
    if (word === "{") {
      this.#operations.push({ type: "query", name: undefined, selections: this.#selections(1) });
    } else if (word === "query" || word === "mutation" || word === "subscription") {
      const name = isName(this.#peek()) ? this.#next() : undefined;
      if (this.#peek() === "(") this.#skip();
      this.#directives();
      this.#expect("{");
      this.#operations.push({ type: word, name, selections: this.#selections(1) });
    } else if (word === "fragment") {
      const name = this.#name();
      if (this.#fragments.has(name)) throw new DocumentError("two fragments share a name");
      if (this.#name() !== "on") throw new DocumentError("a fragment has no type condition");
      this.#name();
      this.#directives();
      this.#expect("{");
      this.#fragments.set(name, this.#selections(1));
    } else throw new DocumentError("a definition is no operation and no fragment");
  }

  /** What stands between braces of which the first is already read. */
  #selections(depth: number): readonly Selection[] {
    if (depth > maxDepth) throw new DocumentError(`nested deeper than ${maxDepth}`);
    const selections: Selection[] = [];
    while (this.#peek() !== "}") selections.push(this.#selection(depth));
    this.#next();
    if (selections.length === 0) throw new DocumentError("a selection is empty");
    return selections;
  }

  #selection(depth: number): Selection {
    if (this.#peek() !== "...") return this.#field(depth);
    this.#next();
    const word = this.#peek();
    if (isName(word) && word !== "on") {
      const name = this.#name();
      this.#directives();
      return { kind: "spread", name };
    }
    if (word === "on") {
      this.#next();
      this.#name();
    }
    this.#directives();
    this.#expect("{");
    return { kind: "inline", selections: this.#selections(depth + 1) };
  }

  #field(depth: number): Selection {
    let name = this.#name();
    if (this.#peek() === ":") {
      this.#next();
      name = this.#name();
    }
    if (this.#peek() === "(") this.#skip();
    this.#directives();
    if (this.#peek() === "{") {
      this.#next();
      this.#selections(depth + 1);
    }
    return { kind: "field", name };
  }

  #directives(): void {
    while (this.#peek() === "@") {
      this.#next();
      this.#name();
      if (this.#peek() === "(") this.#skip();
    }
  }

  /** Passes over everything up to the bracket that closes the next one. */
  #skip(): void {
    const open: string[] = [];
    do {
      const token = this.#next();
      const close = closing.get(token);
      if (close !== undefined) open.push(close);
      else if (token === "}" || token === ")" || token === "]") {
        if (open.pop() !== token) throw new DocumentError("brackets do not match");
      }
      if (open.length > maxDepth) throw new DocumentError(`nested deeper than ${maxDepth}`);
    } while (open.length > 0);
  }

  /** Every root field that can run, whatever its directives say. */
  #collect(
    selections: readonly Selection[],
    fields: Set<string>,
    spread: Set<string>,
    depth: number,
  ): void {
    if (depth > maxDepth) throw new DocumentError(`fragments nest deeper than ${maxDepth}`);
    for (const selection of selections) {
      if (selection.kind === "field") fields.add(selection.name);
      else if (selection.kind === "inline")
        this.#collect(selection.selections, fields, spread, depth + 1);
      else if (!spread.has(selection.name)) {
        spread.add(selection.name);
        const fragment = this.#fragments.get(selection.name);
        if (fragment === undefined) throw new DocumentError("a fragment is not defined");
        this.#collect(fragment, fields, spread, depth + 1);
      }
    }
  }

  #peek(): string | undefined {
    return this.#tokens[this.#at];
  }

  #next(): string {
    const token = this.#tokens[this.#at];
    if (token === undefined) throw new DocumentError("the document ends too early");
    this.#at += 1;
    return token;
  }

  #expect(token: string): void {
    if (this.#next() !== token) throw new DocumentError(`'${token}' is missing`);
  }

  #name(): string {
    const token = this.#next();
    if (!isName(token)) throw new DocumentError("a name is missing");
    return token;
  }
}

function isName(token: string | undefined): token is string {
  return token !== undefined && /^[_A-Za-z]\w*$/.test(token);
}
