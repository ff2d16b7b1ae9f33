// SPDX-License-Identifier: Apache-2.0
// BOOTSTRAP: require("node:vm").compileFunction(require("node:fs").readFileSync(203,"utf8"),["require","process","load"],{filename:"<driver>"})(require,process,(specifier,options)=>import(specifier,options))
//
// The Node kernel driver: it executes source text for the agent and keeps the variables.
//
// The agent starts `node -e BOOTSTRAP`, which calls this text, with errors.mjs and imports.mjs behind it, as the body of a
// function. Descriptors: 0 is `/dev/null`; 1
// and 2 are pipes that the agent reads; 200 requests, 201 replies, 202 acknowledgements; 203 this text. A frame is kind u8,
// id u64, length u32 (little endian), payload.
//
//     agent                      driver
//                            <-- READY(0, version)
//       RUN(id, source) -------->
//                            <-- BARRIER(n)          before output changes between stdout and stderr
//       n as 8 bytes, on 202 --->                    once the agent has drained both pipes
//                            <-- DONE(id, status)    0 success, 1 raised, 2 interrupted; all output is in the pipes
//
// Choices:
// - `Runtime.evaluate` of an inspector session inside this very process, in REPL mode: the whole text at once, `const` and
//   `class` can be declared again, top-level await, and the value of the last expression. It knows no `import`: statements
//   become `const {...} = await ımport(...)`, and `import(` becomes `ımport(` (as long, so that columns stay right).
// - The evaluation runs inside a `vm.Script` with `breakOnSigint`, whose watchdog stops endless loops; so do the callbacks
//   that are due right afterwards. Code that resumes later has no watchdog: a loop there ends when the agent kills.
// - SIGINT during an await clears the timers that were set since the execution began. If sockets, files or children could
//   still resume its code, nothing is answered and the agent kills: code that was declared ended never goes on.
// - `process.exit` ends the execution by terminating the JavaScript under way, which no `catch` can stop.
// - The pipes are opened again through /proc: those descriptors close on exec, block whatever others do to fd 1, and
//   outlive a closed fd 1. All writes are synchronous.
// - Timers and sockets of earlier executions live on; their errors go to stderr.
// - User code may change every builtin: what the driver needs is captured here at the start.
"use strict";

const fs = require("node:fs");
const util = require("node:util");
const vm = require("node:vm");
const { AsyncResource } = require("node:async_hooks");
const { Session } = require("node:inspector");
const { Socket } = require("node:net");
const { Readable, Writable } = require("node:stream");
const { pathToFileURL } = require("node:url");
const { promiseHooks } = require("node:v8");

const [RUN, READY, BARRIER, DONE] = [1, 16, 17, 18];
const [SUCCESS, ERROR, INTERRUPTED] = [0, 1, 2];
const HEAD_BYTES = 13;
const SOURCE_CHARS_MAX = 8 * 1024 * 1024; // of earlier executions, kept for error messages
const LINE_CHARS_MAX = 200; // of a source line in an error message
const { O_RDONLY, O_WRONLY } = fs.constants;
const { apply, defineProperty, getPrototypeOf, has } = Reflect;
const { writeSync, readSync, openSync, closeSync, fstatSync } = fs;
const { inspect } = util;
const { isPromise, isNativeError, isUint8Array } = util.types;
const { setImmediate, clearImmediate, clearTimeout, Buffer, URL, String, SyntaxError, TypeError } = globalThis;
const { alloc: allocate, concat: concatenate } = Buffer;
const bytesOf = Buffer.from;
const nextTick = process.nextTick.bind(process);
const uncurry = (method) => (self, ...args) => apply(method, self, args);
const [exec, slice, includes, startsWith, repeat, split, charAt] = [
  RegExp.prototype.exec,
  ...["slice", "includes", "startsWith", "repeat", "split", "charAt"].map((name) => String.prototype[name]),
].map(uncurry);
const [readUInt8, readUInt32LE, readBigUInt64LE, writeUInt8, writeUInt32LE, writeBigUInt64LE, subarray, copy, toText] = [
  ...["readUInt8", "readUInt32LE", "readBigUInt64LE", "writeUInt8", "writeUInt32LE", "writeBigUInt64LE", "subarray", "copy"],
  "toString",
].map((name) => uncurry(Buffer.prototype[name]));
const [isPrototypeOf, errorToString, promiseThen] = [
  Object.prototype.isPrototypeOf,
  Error.prototype.toString,
  Promise.prototype.then,
].map(uncurry);
const [mapGet, mapSet, mapDelete, mapKeys, setAdd, setDelete] = [
  ...["get", "set", "delete", "keys"].map((name) => Map.prototype[name]),
  Set.prototype.add,
  Set.prototype.delete,
].map(uncurry);
const syntaxErrorPrototype = SyntaxError.prototype;
const iteratorNext = uncurry(getPrototypeOf(new Map().keys()).next);
const cwd = process.cwd;
const exitProcess = process.reallyExit.bind(process);
const resourcesInUse = process.getActiveResourcesInfo?.bind(process) ?? (() => []);
const runTicks = process._tickCallback?.bind(process) ?? (() => {});
const on = process.on.bind(process);
const emit = process.emit.bind(process);
const listeners = process.listeners.bind(process);
const rawListeners = process.rawListeners.bind(process);
const removeListener = process.removeListener.bind(process);
const captureUncaught = process.setUncaughtExceptionCaptureCallback.bind(process);
const capturesUncaught = process.hasUncaughtExceptionCaptureCallback.bind(process);

// Descriptors

const reopen = (descriptor, flags) => openSync(`/proc/self/fd/${descriptor}`, flags);
const identities = [0, 1, 2].map((descriptor) => fstatSync(descriptor));
const saved = [reopen(0, O_RDONLY), reopen(1, O_WRONLY), reopen(2, O_WRONLY)];
const [requests, replies, acks] = [reopen(200, O_RDONLY), reopen(201, O_WRONLY), reopen(202, O_RDONLY)];
for (const descriptor of [200, 201, 202, 203]) closeSync(descriptor);

function restoreDescriptor(descriptor) {
  try {
    const { dev, ino } = fstatSync(descriptor);
    if (dev === identities[descriptor].dev && ino === identities[descriptor].ino) return;
    closeSync(descriptor);
  } catch {
    // It was closed.
  }
  // A new descriptor gets the lowest free number: this one, as those below it have been restored before.
  const got = reopen(saved[descriptor], descriptor === 0 ? O_RDONLY : O_WRONLY);
  if (got !== descriptor) {
    writeAll(saved[2], bytesOf(`the kernel cannot restore descriptor ${descriptor}, and ends\n`));
    exitProcess(1);
  }
}

function writeAll(descriptor, bytes) {
  for (let offset = 0; offset < bytes.length; ) {
    offset += writeSync(descriptor, bytes, offset, bytes.length - offset);
  }
}

function send(kind, id, payload) {
  const frame = allocate(HEAD_BYTES + payload.length);
  writeUInt8(frame, kind, 0);
  writeBigUInt64LE(frame, id, 1);
  writeUInt32LE(frame, payload.length, 9);
  copy(payload, frame, HEAD_BYTES);
  writeSync(replies, frame); // below PIPE_BUF: never half a frame
}

// Output

const NOTHING = allocate(0);
const ack = allocate(8);
let sequence = 0n;
let channel = 0; // the stream that wrote last; 0 once everything is drained

function barrier() {
  sequence += 1n;
  const number = sequence;
  send(BARRIER, number, NOTHING);
  for (;;) {
    try {
      // An earlier barrier that was interrupted leaves its ack behind: skip it.
      if (readSync(acks, ack, 0, 8, null) === 0 || readBigUInt64LE(ack, 0) >= number) return;
    } catch (error) {
      if (error.code !== "EINTR") throw error;
    }
  }
}

function writeOutput(to, bytes) {
  if (channel !== to) {
    if (channel !== 0) barrier();
    channel = to;
  }
  writeAll(saved[to], bytes);
}

class Output extends Writable {
  constructor(descriptor) {
    super();
    // As with the streams of Node itself, nobody can end or destroy them.
    const fixed = { fd: descriptor, _type: "pipe", _isStdio: true, destroySoon: this.destroy };
    for (const name in fixed) defineProperty(this, name, { value: fixed[name], configurable: true, writable: true });
  }
  /** Writes at once, past the state of a Writable, which would stay "writing" when SIGINT ends a write half way. */
  write(chunk, encoding, done) {
    if (typeof chunk !== "string" && !isUint8Array(chunk)) {
      const error = new TypeError("The \"chunk\" argument must be of type string or an instance of Buffer or Uint8Array");
      error.code = "ERR_INVALID_ARG_TYPE";
      throw error;
    }
    const named = typeof encoding === "string" ? encoding : "utf8";
    writeOutput(this.fd, typeof chunk === "string" ? bytesOf(chunk, named) : chunk);
    later(typeof encoding === "function" ? encoding : done);
    return true;
  }
  end(chunk, encoding, done) {
    if (chunk !== null && chunk !== undefined && typeof chunk !== "function") this.write(chunk, encoding);
    else later(chunk);
    later(done);
    return this;
  }
  destroy() {
    return this;
  }
}

function later(callback) {
  if (typeof callback === "function") nextTick(callback);
}

const printError = (text) => writeOutput(2, bytesOf(text));
const streams = [undefined, new Output(1), new Output(2)];

const openInput = () => {
  const input = new Readable({ read() { this.push(null); } }); // prettier-ignore
  input.fd = 0;
  return input;
};

// What Node has inside and does not offer

/** Returns one of Node's internal bindings, or undefined in a Node that has given up this door. */
function binding(name) {
  const { noDeprecation } = process;
  try {
    process.noDeprecation = true;
    return process.binding(name);
  } catch {
    return undefined;
  } finally {
    process.noDeprecation = noDeprecation;
  }
}

// Terminated code leaves entries on Node's stack of asynchronous contexts. Node compares and aborts, unless it was started
// with --no-force-async-hooks-checks: this is that option for a process that runs already.
const asyncWrap = binding("async_wrap");
if (asyncWrap?.constants) asyncWrap.async_hook_fields[asyncWrap.constants.kCheck] = 0;
const forgetAsyncStack = asyncWrap?.clearAsyncIdStack ?? (() => {});

// SIGINT while no watchdog is active. Not `process.on`: around its watchdog `vm` takes such listeners off, and for that time
// SIGINT would end the process. The watchdog leaves the signal to itself, and Node's own handler is to be set again.
const { SIGINT } = require("node:os").constants.signals;
const Signal = binding("signal_wrap")?.Signal;
const watcher = Signal && new Signal();
if (watcher) watcher.onsignal = () => onSigint();
const stopWatching = watcher?.stop.bind(watcher) ?? (() => {});
const startWatching = watcher?.start.bind(watcher) ?? (() => on("SIGINT", onSigint));

function watchSigint() {
  // Node sets its handler for the first listener only: the user's are off for that moment.
  const users = rawListeners("SIGINT");
  for (let index = 0; index < users.length; index++) removeListener("SIGINT", users[index]);
  stopWatching();
  startWatching(SIGINT);
  for (let index = 0; index < users.length; index++) if (users[index] !== onSigint) on("SIGINT", users[index]);
}

// Evaluation

const session = new Session();
session.connect();
const sessionPost = uncurry(Session.prototype.post);
const box = { value: undefined };
let launched; // what the watched script calls
let watchDepth = 0;

/** Sends a command that is answered at once, and returns the answer. */
function ask(method, params) {
  let answer;
  sessionPost(session, method, { __proto__: null, objectGroup: "driver", ...params }, (_error, reply) => (answer = reply));
  return answer;
}

function hide(name, value) {
  defineProperty(globalThis, name, { value, enumerable: false, configurable: false, writable: false });
}

hide("ımport", importModule);
hide("ıaunch", () => {
  const act = launched;
  launched = undefined;
  return act?.();
});
defineProperty(globalThis, "ıbox", { value: box, configurable: true });
const boxId = ask("Runtime.evaluate", { expression: "ıbox", objectGroup: "box" }).result.objectId;
delete globalThis.ıbox;
const watched = new vm.Script("ıaunch()", { filename: "<driver>" });
const runWatched = uncurry(vm.Script.prototype.runInThisContext);

/** Calls what may run user code; returns whether SIGINT ended it. */
function interruptible(act) {
  launched = act;
  watchDepth += 1;
  try {
    runWatched(watched, { __proto__: null, breakOnSigint: true, displayErrors: false });
    return false;
  } catch (error) {
    if (error?.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") return true;
    throw error;
  } finally {
    watchDepth -= 1;
    if (watchDepth === 0) watchSigint();
  }
}

/** Returns the value that the inspector describes. */
function local({ objectId, value, unserializableValue }) {
  const argument = objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value };
  const functionDeclaration = "function (value) { this.value = value; }";
  ask("Runtime.callFunctionOn", { objectId: boxId, functionDeclaration, arguments: [argument] });
  const found = box.value;
  box.value = undefined;
  return found;
}

/** Returns the inspector's description of a value. */
function remote(value) {
  box.value = value;
  const functionDeclaration = "function () { const { value } = this; this.value = undefined; return value; }";
  return ask("Runtime.callFunctionOn", { objectId: boxId, functionDeclaration }).result;
}

const sources = new Map(); // name -> text
let sourceChars = 0;
let runs = 0;
let current; // the execution under way
const evaluations = new Set(); // promises of evaluations that may never end: their collection would crash Node 22

function remember(name, source) {
  mapSet(sources, name, source);
  sourceChars += source.length;
  while (sourceChars > SOURCE_CHARS_MAX && sources.size > 1) {
    const oldest = iteratorNext(mapKeys(sources)).value;
    sourceChars -= mapGet(sources, oldest).length;
    mapDelete(sources, oldest);
  }
}

function start(id, source) {
  restore();
  watchDepth = 0; // terminated code never counts down
  channel = 0;
  runs += 1;
  const name = `<run-${runs}>`;
  remember(name, source);
  const began = new AsyncResource("EXECUTION", { requireManualDestroy: true }).asyncId();
  const run = (current = { id, name, began, resources: resourcesInUse(), status: SUCCESS, settled: false });
  const expression = `${rewriteImports(source)}\n//# sourceURL=${name}`;
  // The first promise that is made is the one of the evaluation as a whole.
  const stop = promiseHooks.onInit((promise) => {
    stop();
    run.promise ??= promise;
    setAdd(evaluations, run.promise);
  });
  const interrupted = interruptible(() => {
    const parameters = { __proto__: null, expression, replMode: true, silent: true, objectGroup: "driver" };
    sessionPost(session, "Runtime.evaluate", parameters, (error, reply) => evaluated(run, error, reply));
    stop();
    try {
      runTicks();
    } catch (error) {
      uncaught(error);
    }
  });
  stop();
  if (interrupted) interrupt(run);
  else if (run.failure) fail(run, run.failure);
}

function evaluated(run, error, reply) {
  setDelete(evaluations, run.promise);
  if (run.settled) return;
  if (error) {
    run.failure = error; // of the inspector: most likely because SIGINT has ended the evaluation
    return;
  }
  const interrupted = interruptible(() => {
    if (reply.exceptionDetails) {
      fail(run, local(reply.exceptionDetails.exception), reply.exceptionDetails);
    } else if (reply.result.type === "undefined") {
      settle(run, SUCCESS);
    } else {
      echo(run, local(reply.result));
    }
  });
  if (interrupted) interrupt(run);
}

function echo(run, value) {
  if (isPromise(value)) {
    const shown = (result) => run.settled || (interruptible(() => echo(run, result)) && interrupt(run));
    const failed = (reason) => run.settled || (interruptible(() => fail(run, reason)) && interrupt(run));
    promiseThen(value, shown, failed);
    return;
  }
  try {
    if (value !== undefined && !isTimer(value)) writeOutput(1, bytesOf(`${inspect(value)}\n`));
    settle(run, SUCCESS);
  } catch (error) {
    fail(run, error);
  }
}

function fail(run, error, details) {
  if (run.settled) return;
  printError(describe(error, run, details));
  settle(run, ERROR);
}

/** Marks the end of an execution; it is announced once the rejections that nobody handled have been reported. */
function settle(run, status) {
  if (run.settled) return;
  run.status = status;
  run.settled = true;
  setImmediate(() => finish(run));
}

function finish(run) {
  if (run.finished) return;
  run.finished = true;
  watchDepth = 0;
  restore();
  if (run.terminated) forgetAsyncStack();
  ask("Runtime.releaseObjectGroup", {});
  current = undefined;
  send(DONE, run.id, bytesOf([run.status]));
  pump();
}

// Interrupts and exits

const TIMERS = [[setTimeout(() => {}, 0), clearTimeout], [setImmediate(() => {}), clearImmediate]].map(([timer, clear]) => {
  clear(timer);
  return { prototype: getPrototypeOf(timer), clear };
});
const ASYNC_ID = Object.getOwnPropertySymbols(setImmediate(() => {})).find((symbol) => symbol.description === "asyncId");

function isTimer(value) {
  return isPrototypeOf(TIMERS[0].prototype, value) || isPrototypeOf(TIMERS[1].prototype, value);
}

/** Clears all timers and immediates that were set since the execution began, wherever they are held. */
function clearTimers(run) {
  for (let kind = 0; kind < TIMERS.length; kind++) {
    const { prototype, clear } = TIMERS[kind];
    const { objects } = ask("Runtime.queryObjects", { prototypeObjectId: remote(prototype).objectId });
    const found = local(objects);
    for (let index = 0; index < found.length; index++) {
      if (found[index][ASYNC_ID] > run.began) clear(found[index]);
    }
  }
}

/** Says whether something other than a timer may resume code of the execution. */
function mayResume(run) {
  const left = { __proto__: null };
  for (let index = 0; index < run.resources.length; index++) left[run.resources[index]] = (left[run.resources[index]] ?? 0) + 1;
  const now = resourcesInUse();
  for (let index = 0; index < now.length; index++) {
    const type = now[index];
    if (type !== "Timeout" && type !== "Immediate" && !(left[type]-- > 0)) return true;
  }
  return false;
}

function interrupt(run) {
  if (run.settled) {
    setImmediate(() => finish(run)); // in case that the signal came just before
    return;
  }
  run.terminated = true;
  clearTimers(run);
  printError("Error: the execution was interrupted\n");
  settle(run, INTERRUPTED);
}

function onSigint() {
  if (!current || current.settled) return;
  clearTimers(current);
  if (!mayResume(current)) interrupt(current);
}

function exit(code) {
  const run = current;
  if (run && !run.settled) {
    run.settled = run.terminated = true;
    setImmediate(() => {
      clearTimers(run);
      const failed = code !== undefined && code !== null && `${code}` !== "0";
      if (failed) printError(`Error: process.exit(${code})\n`);
      run.status = failed ? ERROR : SUCCESS;
      setImmediate(() => finish(run));
    });
  }
  sessionPost(session, "Runtime.terminateExecution");
  for (;;); // until the termination takes hold
}

function uncaught(error, origin = "uncaughtException") {
  if (listeners("uncaughtException").length > 0) {
    emit("uncaughtException", error, origin);
    return;
  }
  if (current && !current.settled) {
    fail(current, error);
  } else {
    printError(describe(error, current));
    if (current) current.status = current.status || ERROR;
  }
}

// What user code may have broken

// Before the console is looked at: it keeps the streams that it finds then.
for (const [name, value] of [["stdout", streams[1]], ["stderr", streams[2]]]) {
  defineProperty(process, name, { __proto__: null, value, configurable: true, enumerable: true, writable: true });
}
const consoleMembers = Object.getOwnPropertyNames(console).map((name) => [console, name, console[name]]);
const members = [
  [globalThis, "process", process],
  [globalThis, "console", console],
  [process, "stdin", undefined],
  [process, "stdout", streams[1]],
  [process, "stderr", streams[2]],
  [process, "exit", exit],
  ...["on", "emit", "nextTick", "cwd", "listeners"].map((name) => [process, name, process[name]]),
  [streams[1], "write", Output.prototype.write],
  [streams[2], "write", Output.prototype.write],
  ...consoleMembers,
];
const STDIN = 2; // its place in the list
let directory = cwd();

function restore() {
  for (let descriptor = 0; descriptor < 3; descriptor++) restoreDescriptor(descriptor);
  const stdin = members[STDIN][2];
  if (!stdin || stdin.readableDidRead || stdin.destroyed) members[STDIN][2] = openInput();
  for (let index = 0; index < members.length; index++) {
    const { 0: owner, 1: name, 2: value } = members[index];
    if (owner[name] === value) continue;
    defineProperty(owner, name, { __proto__: null, value, configurable: true, enumerable: owner !== globalThis, writable: true });
  }
  if (!capturesUncaught()) captureUncaught(uncaught);
  followDirectory();
}

/** Lets `require` resolve from the working directory after a change of it. */
function followDirectory() {
  try {
    if (cwd() === directory) return;
    directory = cwd();
    globalThis.require = require("node:module").createRequire(`${directory}/`);
  } catch {
    // The directory was deleted.
  }
}

// Requests

let received = NOTHING;
let chunks = [NOTHING]; // the first place is for what was received before
let waiting = 0; // bytes in chunks

/** Starts the next execution if its request is complete and none is under way. */
function pump() {
  const total = received.length + waiting;
  if (current || total < HEAD_BYTES) return;
  if (received.length < HEAD_BYTES || total >= HEAD_BYTES + readUInt32LE(received, 9)) {
    chunks[0] = received;
    received = concatenate(chunks);
    chunks = [NOTHING];
    waiting = 0;
  }
  const end = HEAD_BYTES + readUInt32LE(received, 9);
  if (received.length < end) return;
  const frame = subarray(received, 0, end);
  received = subarray(received, end);
  if (readUInt8(frame, 0) !== RUN) return pump();
  const id = readBigUInt64LE(frame, 1);
  current = { id, settled: true }; // taken
  // One turn later, so that a SIGINT that was meant for the execution before cannot hit this one.
  const source = toText(frame, "utf8", HEAD_BYTES);
  setImmediate(() => start(id, source));
}

defineProperty(Error, "prepareStackTrace", { value: prepareStackTrace, configurable: true, writable: true, enumerable: false });
process.execArgv = [];
restore();
watchSigint();
const socket = new Socket({ fd: requests, readable: true, writable: false });
socket.on("data", (data) => {
  chunks[chunks.length] = data;
  waiting += data.length;
  pump();
});
socket.on("end", () => exitProcess(0));
send(READY, 0n, bytesOf(`Node.js ${process.version}`));
