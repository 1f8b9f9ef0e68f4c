/**
 * Runs the examples in Node, each with globals of its own, all at once:
 *
 *     node node.mjs PLAN.json
 *
 * The plan has the `port`, the `examples` by heading, the `commands` of every connection, and which `types` and
 * `channels` each is to meet within `within_ms`. Prints what was met, and whatever went wrong, by heading.
 */

import {readFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';
import vm from 'node:vm';

import {WebSocket as Shim} from './websocket.mjs';

const here = dirname(fileURLToPath(import.meta.url));
vm.runInThisContext(readFileSync(join(here, 'host.js'), 'utf8'), {filename: 'host.js'});
const {prepare, begin, call} = globalThis.seed;
const Socket = globalThis.WebSocket ?? Shim;

const {port, examples, commands, types, channels, modules, within_ms} = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const reports = {};
const realms = {};
const stray = [];

process.on('uncaughtException', (error) => {
  // The stack names the example, by its file name, where it was thrown.
  const at = Object.keys(examples).find((heading) => error.stack?.includes(`${heading}.js`));
  (reports[at]?.errors ?? stray).push(`uncaught ${error.stack}`);
});

for (const [heading, code] of Object.entries(examples)) {
  if (code.startsWith('import ')) continue;
  const realm = (realms[heading] = {setTimeout, Date, Math, JSON, Promise, URL});
  reports[heading] = prepare(realm, {Socket, port, commands});
  vm.createContext(realm);
  try {
    begin(realm, code);
    vm.runInContext(code, realm, {filename: `${heading}.js`});
    call(realm, heading, (text) => vm.runInContext(text, realm));
  } catch (error) {
    reports[heading].errors.push(error.stack);
  }
}

// A module has this process's own globals.
const ours = console;
for (const [heading, path] of Object.entries(modules)) {
  reports[heading] = prepare(globalThis, {Socket, port, commands});
  begin(globalThis, examples[heading]);
  await import(pathToFileURL(path)).catch((error) => reports[heading].errors.push(error.stack));
}

const met = ({types: some, channels: others}) =>
  types.every((each) => some.includes(each)) && channels.every((each) => others.includes(each));
const deadline = Date.now() + within_ms;
while (!Object.values(reports).every(met) && Date.now() < deadline) await new Promise((done) => setTimeout(done, 20));
await new Promise((done) => setTimeout(done, 200));
try {
  vm.runInContext('disconnect()', realms['1. Connection Management']);
} catch (error) {
  stray.push(error.stack);
}
ours.log(JSON.stringify({reports, stray}));
process.exit(0);
