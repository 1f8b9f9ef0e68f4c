// The list of channels: what each is, how it does, and why.

import {byId, make, mark, put, rows} from './dom.js';
import {offline} from './link.js';
import {channels, now} from './market.js';
import {age} from './numbers.js';
import {touchNow, view} from './paint.js';

const FEW = 12; // so many are shown without being asked

// A word of help for each view.
const HELP = {
  price: 'the last price',
  day: 'the last price, and figures of 24 hours',
  book: 'the best levels of the order book',
  trade: 'each trade, once',
  quote: 'the best bid and ask',
  best: 'the best bid and ask of all venues',
  depth: 'each change of the whole order book',
  candle: 'open, high, low, close and volume',
  market: 'figures of the whole crypto market',
  top: 'the largest coins',
  trending: 'the coins that people search for',
};

function help({view, instruments = [], cadence_s, source}) {
  const names = instruments.length > 3 ? `${instruments.length} instruments` : instruments.join(', ');
  const often = cadence_s ? `every ${cadence_s} s` : 'as it comes';
  return `${HELP[view] ?? 'a kind that this page does not know'}${names && `: ${names}`}; from ${source}, ${often}`;
}

const show = rows(byId('channel-list'), (name) => {
  const [state, old, reason, said] = [
    make('span', 'state'), make('span', 'muted'), make('span', 'reason'), make('span', 'help muted'),
  ];
  const element = make('li', '', make('span', 'name', name), make('span', 'line', state, old), said, reason);
  return {element, state, old, reason, said};
});

let opened = false;

view('channels', () => {
  const names = [...channels.keys()].filter((name) => channels.get(name).listed);
  const away = offline();
  if (names.length && !opened) {
    opened = true;
    byId('channels').open ||= names.length <= FEW;
  }
  const wrong = names.filter((name) => channels.get(name).state !== 'live');
  const all = names.length ? `${names.length} channels, ` : '';
  const how = away || (wrong.length ? `${wrong.length} not live: ${wrong.slice(0, 3).join(', ')}` : 'all live');
  put(byId('channels-sum'), names.length ? all + how : 'No channels are known yet.');
  if (!byId('channels').open) return;
  show(names, (row, name) => {
    const {state, reason, retryAt, last, at} = channels.get(name);
    const shown = away ? 'unknown' : state;
    const again = retryAt > now() ? `again in ${age(retryAt - now() + 999)}` : '';
    const why = away ? 'no connection to the daemon' : [reason, again].filter(Boolean).join('; ');
    put(row.state, shown);
    put(row.old, (last?.cached ? 'cached ' : '') + age(now() - at));
    put(row.reason, why);
    put(row.said, help(channels.get(name)));
    mark(row.element, 'data-state', shown);
    mark(row.element, 'title', why || (last?.cached ? 'the venue has nothing newer yet' : null));
  });
});

byId('channels').ontoggle = () => touchNow('channels');
