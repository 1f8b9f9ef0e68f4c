/**
 * `client.js` in Node, moved by lines of JSON on standard input; what it hands over goes to standard output.
 *
 *     node client_driver.mjs CLIENT.js PORT
 *
 * `{connect: options}` (closes the client before), `{subscribe: [names, how]}`, `{unsubscribe: names}`, `{sync: number}`
 * (answered when the daemon has answered a ping), `{cut: hold}` (the connection breaks; with `hold` none opens until
 * `{online: true}`), and `{drop: instrument}`: the next data message of that instrument is lost on the way.
 */

import {createInterface} from 'node:readline';
import {pathToFileURL} from 'node:url';

import {WebSocket as Shim} from '../../seed/websocket.mjs';

const say = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);
let socket = null;
let held = false;
let dropped = null;

class Dead {
  readyState = 0;
  constructor() {
    socket = this;
  }
  close() {}
}

class Live extends Shim {
  constructor(url) {
    super(String(url));
    socket = this;
  }
  dispatchEvent(event) {
    if (event.type === 'message' && dropped) {
      const {instrument, seq} = JSON.parse(event.data);
      if (instrument === dropped) {
        dropped = null;
        say({dropped: seq});
        return true;
      }
    }
    return super.dispatchEvent(event);
  }
}

globalThis.WebSocket = class {
  constructor(url) {
    return held ? new Dead() : new Live(url);
  }
};
globalThis.location = new URL(`http://127.0.0.1:${process.argv[3]}/`);
globalThis.addEventListener = () => {};
globalThis.removeEventListener = () => {};
globalThis.document ??= {addEventListener: () => {}, visibilityState: 'visible'};
Math.random = () => 0; // no wait before it comes back

const {connect} = await import(pathToFileURL(process.argv[2]));
const syncs = new Map();
let client = null;

const moves = {
  connect(options) {
    client?.close();
    dropped = null;
    syncs.clear();
    held = false;
    client = connect('/ws', {
      ...options,
      onMessage: ({instrument, seq, prev_seq, type}) => say({message: [instrument, seq, prev_seq, type]}),
      onState: ({state}) => say({state}),
      onEvent: (event) => (syncs.has(event.id) ? say({sync: syncs.get(event.id)}) : say({event})),
    });
  },
  subscribe: ([names, how]) => client.subscribe(names, how),
  unsubscribe: (names) => client.unsubscribe(names),
  sync: (number) => syncs.set(client.ping(), number),
  cut(hold) {
    held = hold;
    const mine = socket;
    mine.onclose({code: 1006, reason: 'cut'});
  },
  online() {
    held = false;
    socket.onclose({code: 1006, reason: 'still away'});
  },
  drop(instrument) {
    dropped = instrument;
  },
};

for await (const line of createInterface({input: process.stdin})) {
  for (const [move, argument] of Object.entries(JSON.parse(line))) moves[move](argument);
}
process.exit(0);
