// The tape of trades of what is looked at, newest first.

import {chosen, instrument, venue} from './choice.js';
import {byId, make, mark, mostDecimals, put, putDigits, rows} from './dom.js';
import {offline} from './link.js';
import {exactly, trouble} from './market.js';
import {clock} from './numbers.js';
import {view} from './paint.js';
import {trades} from './tape.js';

const SHOWN = 24;
const SIDES = {buy: ['▲ buy', 'up'], sell: ['▼ sell', 'down']};

const show = rows(byId('trade-rows'), () => {
  const cells = {time: make('td', 'muted'), side: make('td'), price: make('td', 'price'), size: make('td')};
  return {element: make('tr', '', ...Object.values(cells)), ...cells};
});

view('trades', () => {
  const newest = trades().slice(0, SHOWN);
  // Only what is shown is worth another look at its digits.
  for (const trade of newest) trade.exact ??= exactly(trade.text);
  const most = (name) => mostDecimals(newest.map(({exact}) => exact[name]));
  const [priced, sized] = [most('price'), most('size')];
  show([...newest.keys()], (row, at) => {
    const {exact, message} = newest[at];
    const [words, move] = SIDES[message.side] ?? ['', null];
    put(row.time, clock(newest[at].at, true));
    put(row.side, words);
    if (row.moved !== move) mark(row.side, 'data-move', (row.moved = move));
    putDigits(row.price, exact.price, priced);
    putDigits(row.size, exact.size, sized);
  });
  const name = chosen('trade');
  const wrong = name && (offline() || trouble(name, instrument()));
  const none = name ? 'No trades yet.' : `No channel here has trades of ${instrument()}.`;
  put(byId('trades-note'), newest.length ? [venue(), wrong].filter(Boolean).join(', ') : none);
  mark(byId('trades'), 'data-old', wrong ? '' : null);
});
