// SPDX-License-Identifier: Apache-2.0
//
// The second part of the Node kernel driver's text, put behind `node.mjs` (whose captured functions it uses): what errors
// look like. The user sees the line, a mark below it, and a stack without the frames of the driver.

const FRAME = /(<run-\d+>):(\d+):(\d+)/;

function describe(error, run, details) {
  try {
    const text = inspect(error);
    if (!isNativeError(error)) return `Uncaught ${text}\n`;
    // An error without frames comes in square brackets, which say nothing to the user.
    const plain = charAt(text, 0) === "[" && charAt(text, text.length - 1) === "]" ? slice(text, 1, -1) : text;
    return `${whereOf(error, run, details)}${plain}\n`;
  } catch {
    return "Uncaught error that cannot be printed\n";
  }
}

/** Returns the user's line with a mark below it, as Node prints it above an error. */
function whereOf(error, run, details) {
  const { 1: frameName, 2: frameLine, 3: frameColumn } = exec(FRAME, `${error.stack}`) ?? {};
  const atParsing = !frameName && run && details && isPrototypeOf(syntaxErrorPrototype, error);
  const name = atParsing ? run.name : frameName;
  const line = atParsing ? details.lineNumber + 1 : frameLine;
  const column = atParsing ? details.columnNumber + 1 : frameColumn;
  const text = name && split(mapGet(sources, name) ?? "", "\n")[line - 1];
  if (!text || text.length > LINE_CHARS_MAX) return "";
  return `${name}:${line}\n${text}\n${repeat(" ", column - 1)}^\n\n`;
}

/** Formats stacks without the driver's frames, and without the frame of the inspector above them. */
function prepareStackTrace(error, frames) {
  let text;
  try {
    const { code } = error;
    text = typeof code === "string" && startsWith(code, "ERR_") ? `${error.name} [${code}]: ${error.message}` : errorToString(error);
  } catch {
    text = "Error";
  }
  const file = (index) => frames[index]?.getFileName() ?? "";
  let index = 0;
  while (file(index) === "<driver>") index++;
  for (; index < frames.length && file(index) !== "<driver>"; index++) {
    if (file(index + 1) !== "<driver>" || !startsWith(file(index), "node:")) text += `\n    at ${frames[index]}`;
  }
  return text;
}

