/**
 * What an example of the user's text finds where it runs, and what is written down of it. `prepare` is called with the
 * globals that the example is to have: in a page its window, in Node an object of its own.
 *
 * The example's own text is not touched. That its port 8000 is another one here is between it and its WebSocket; so is
 * that every connection subscribes to all there is, and says whatever else the daemon answers.
 */

function prepare(globals, {Socket, port, commands}) {
  const report = {types: [], channels: [], errors: [], counts: {}};
  const complain = (...what) => report.errors.push(what.map((each) => each?.stack ?? String(each)).join(' '));
  const count = (what) => (report.counts[what] = (report.counts[what] ?? 0) + 1);
  const note = (list, what) => what !== undefined && !list.includes(what) && list.push(what);

  globals.WebSocket = class extends Socket {
    constructor(url, ...rest) {
      super(url.replace('//localhost:8000/', `//localhost:${port}/`), ...rest);
      globals.opened = this;
      this.addEventListener('open', () => {
        for (const each of commands) this.send(JSON.stringify(each));
      });
      this.addEventListener('message', ({data}) => {
        const {type, connector_id} = JSON.parse(data);
        note(report.types, type);
        note(report.channels, connector_id);
      });
    }
  };

  // A page has all of these; Node has none.
  globals.window ??= {addEventListener() {}};
  globals.requestAnimationFrame ??= (frame) => setTimeout(frame, 16);
  globals.document ??= {getElementById: () => ({style: {}, getContext: () => ({})})};
  const {document} = globals;
  const find = document.getElementById;
  document.getElementById = (id) => {
    count(`element ${id}`);
    return find.call(document, id);
  };
  globals.console = {
    log: (...what) => {
      count('log');
      if (/NaN|undefined/.test(what.filter((each) => typeof each === 'string').join())) complain(...what);
    },
    table: (rows) => {
      count('table');
      if (!rows || !Object.keys(rows).length) complain('an empty table');
    },
    warn: complain,
    error: complain,
  };

  // What the user writes for himself.
  globals.updateUI = () => count('updateUI');
  globals.processMessage = () => count('processMessage');
  globals.reconnect = () => count('reconnect');
  globals.sendErrorAlert = complain;

  /** `chart.js/auto`, as far as the example uses it: each label has a number. */
  globals.Chart = class {
    constructor(_context, {data}) {
      this.data = data;
    }

    update() {
      count('update');
      const {labels, datasets: [{data}]} = this.data;
      if (labels.length !== data.length) complain(`${labels.length} labels and ${data.length} prices`);
      if (!data.every(Number.isFinite)) complain('a chart with holes', JSON.stringify(data));
    }
  };
  return report;
}

/** What is called where an example only defines it, once its connection is open. */
const CALLS = {
  'Reconnection Logic': "subscribe(['binance_prices', 'bitcoinprice'])",
  '4. Error Resilience': "new WebSocketManager('ws://localhost:8000/ws').connect()",
};

/** Before an example: those that make no connection use one that is there. */
function begin(globals, code) {
  if (!/\bws = new WebSocket\(/.test(code)) globals.ws = new globals.WebSocket('ws://localhost:8000/ws');
}

/** Behind it; `evaluate` runs a text where the example ran. */
function call({opened}, heading, evaluate) {
  const text = CALLS[heading];
  if (text?.startsWith('new ')) evaluate(text);
  else if (text) opened.addEventListener('open', () => evaluate(text));
}

globalThis.seed = {prepare, begin, call};
