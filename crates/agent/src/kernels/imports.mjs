// SPDX-License-Identifier: Apache-2.0
//
// The third part of the Node kernel driver's text, put behind `node.mjs` (whose captured functions it uses): `import`.
//
// `Runtime.evaluate` knows no imports. `import {a as b} from "m"` becomes `const {a: b} = await ımport("m", undefined, ["a"])`
// and `import(` becomes `ımport(`, a function of ours. A small scanner finds the places; it knows comments, strings,
// templates, brackets, and regular expressions as far as the token before a slash tells them from a division.

/** `import(specifier)`, relative to the working directory; for an import statement also a check of the names. */
async function importModule(specifier, options, names) {
  specifier = `${specifier}`;
  const from = pathToFileURL(`${cwd()}/`);
  const relative = startsWith(specifier, ".") || startsWith(specifier, "/");
  let module;
  try {
    module = await load(relative ? new URL(specifier, from).href : specifier, options);
  } catch (error) {
    if (relative || error?.code !== "ERR_MODULE_NOT_FOUND") throw error;
    let path;
    try {
      path = require("node:module").createRequire(from).resolve(specifier);
    } catch {
      throw error;
    }
    module = await load(pathToFileURL(path).href, options);
  }
  for (let index = 0; index < (names?.length ?? 0); index++) {
    if (!has(module, names[index])) {
      throw new SyntaxError(`The requested module '${specifier}' does not provide an export named '${names[index]}'`);
    }
  }
  return module;
}

const SPACE = /(?:\s|\/\/[^\n]*|\/\*[^]*?\*\/)*/y;
const WORD = /[\p{ID_Continue}$#@\\]+/uy;
const STRING = /"(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*'/y;
const REGEX = /\/(?:[^/\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
const TEMPLATE = /(?:[^`\\$]|\\[^]|\$(?!\{))*(?:`|\$\{)/y;
const NAMES = /\{[^{}]*\}/y;
const BEFORE_REGEX = /^(?:return|typeof|case|do|else|in|of|instanceof|new|void|delete|throw|await|yield)$/;
const BEFORE_HEAD = /^(?:if|while|for|with)$/;

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return exec(pattern, text)?.[0] ?? "";
}

/** Returns the source with its imports as calls of `ımport`; the number of lines stays. */
function rewriteImports(source) {
  if (!includes(source, "import")) return source;
  let result = "";
  let copied = 0;
  const replace = (from, to, text) => {
    result += slice(source, copied, from) + text;
    copied = to;
  };
  const open = []; // brackets; a "(" remembers whether a regex may follow its end; "`" is a template around
  let depth = 0;
  let before = ""; // the token before
  let at = 0;
  const push = (bracket) => (open[depth++] = bracket);
  const template = () => {
    const text = match(TEMPLATE, source, at);
    at += text.length || source.length;
    before = ")";
    if (charAt(text, text.length - 1) === "{") before = push("`");
  };
  while ((at += match(SPACE, source, at).length) < source.length) {
    const character = charAt(source, at);
    const word = match(WORD, source, at);
    const string = match(STRING, source, at);
    const regexMayCome = !exec(/^(?:\)|\]|\+\+|--)$/, before) && (!exec(/^[\p{ID_Continue}$"]/u, before) || exec(BEFORE_REGEX, before));
    const regex = character === "/" && regexMayCome ? match(REGEX, source, at) : "";
    if (word === "import" && before !== ".") {
      const statement = depth === 0 ? readImport(source, at) : undefined;
      const next = at + 6 + match(SPACE, source, at + 6).length;
      if (statement) replace(at, statement.end, statement.text);
      else if (charAt(source, next) === "(") replace(at, at + 6, "ımport");
      at = statement ? statement.end : at + 6;
      before = statement ? ";" : "import";
    } else if (word || string || regex) {
      at += (word || string || regex).length;
      before = word || (string ? '"' : ")");
    } else if (character === "`") {
      at += 1;
      template();
    } else {
      at += 1;
      if (character === "(" || character === "[" || character === "{") push(character === "(" && exec(BEFORE_HEAD, before) ? "head" : character);
      const closed = character === ")" || character === "]" || character === "}" ? open[--depth] : "";
      if (depth < 0) depth = 0;
      if (closed === "`") template();
      else if (closed === "head") before = ";";
      else before = (character === "+" || character === "-") && before === character && charAt(source, at - 2) === character ? character + character : character;
    }
  }
  return result + slice(source, copied);
}

/** Reads an import statement; undefined if it is none. */
function readImport(source, from) {
  let at = from + 6;
  const take = (pattern) => {
    at += match(SPACE, source, at).length;
    const text = match(pattern, source, at);
    at += text.length;
    return text;
  };
  const targets = []; // patterns for the namespace object, which is evaluated once
  let names = "";
  let specifier = take(STRING);
  if (!specifier) {
    const standard = take(WORD);
    if (standard) targets[0] = `{default: ${standard}}`;
    if (!standard || take(/,/y)) {
      const list = take(NAMES);
      if (list) {
        const imports = readNames(slice(list, 1, -1));
        targets[targets.length] = `{${imports.pattern}}`;
        names = imports.names;
      } else if (take(/\*/y) && take(WORD) === "as") {
        targets[targets.length] = take(WORD);
      } else {
        return undefined;
      }
    }
    if (take(WORD) !== "from" || !(specifier = take(STRING))) return undefined;
    if (standard) names = `"default",${names}`;
  }
  const end = at;
  const attributes = exec(/^(?:with|assert)$/, take(WORD)) ? take(NAMES) : "";
  if (!attributes) at = end;
  const options = attributes ? `{with: ${attributes}, assert: ${attributes}}` : "undefined";
  const call = `await ımport(${specifier}, ${options}, [${names}])`;
  const pattern = targets.length === 2 ? `[${targets[0]}, ${targets[1]}]` : targets[0];
  const value = targets.length === 2 ? `(module => [module, module])(${call})` : call;
  const lines = repeat("\n", split(slice(source, from, at), "\n").length - 1);
  return { end: at, text: (targets.length ? `const ${pattern} = ${value}` : `void (${call})`) + `;${lines}` };
}

/** Turns `a, b as c` into the pattern `a, b: c` and the list of names `"a","b",`. */
function readNames(list) {
  const clean = { pattern: "", names: "" };
  let at = 0;
  const take = (pattern) => {
    at += match(SPACE, list, at).length;
    const text = match(pattern, list, at);
    at += text.length;
    return text;
  };
  for (;;) {
    const name = take(STRING) || take(WORD);
    if (!name) return clean;
    const alias = exec(/^as\b/, slice(list, at + match(SPACE, list, at).length)) && take(WORD) ? take(WORD) : name;
    clean.pattern += `${name}: ${alias}, `;
    clean.names += `${exec(/^["']/, name) ? name : `"${name}"`},`;
    take(/,/y);
  }
}
